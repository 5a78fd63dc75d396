//! The public surface: reads each request strictly into a question, and writes each answer.
//!
//! One table, `routes::TABLE`, names every route. Each route has one file in `routes` that reads
//! its requests, with a JSON file beside it that describes it for `/openapi.json`:
//!
//! ```text
//! Call ─▶ routes.rs ─▶ routes/customers.rs, routes/case_search.rs, … ─▶ Question
//!                                                                         │
//! Answered ◀─ answer.rs ◀─ Answer ◀─ reads ◀─ serve.rs ◀──────────────────┘
//! ```
//!
//! [`Question`] is a request after validation. [`Routes`] answers it with the reads. `answer.rs`
//! adds `ETag`, `Cache-Status`, `Age` and the content coding. `admin` is the operators' listener,
//! and `docs` and `openapi` describe the surface to people and programs.
//!
//! What must never happen here:
//! - An undocumented parameter or a duplicate JSON member is ignored. It is refused, and named.
//! - Two spellings of a path reach the same route.
//! - A file here decides what a caller may see, or how fresh an answer is. The reads decide.

mod accept_encoding;
mod answer;
pub mod cache_control;
mod docs;
mod fixed;
mod hints;
pub mod keyless;
pub mod openapi;
pub mod query_string;
pub mod question;
mod recall;
pub mod routes;
mod serve;

pub mod admin;

pub use question::Question;
pub use serve::Routes;

#[cfg(test)]
mod tests;
