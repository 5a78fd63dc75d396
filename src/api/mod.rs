//! The public surface: one table of routes, and for each question one file that reads it strictly
//! and tells the answer.

mod accept_encoding;
mod answer;
mod billing;
pub mod cache_control;
mod case_changes;
mod case_export;
mod case_search;
mod customers;
mod docs;
mod events;
mod fixed;
mod hints;
pub mod keyless;
mod nable_drop_in;
pub mod openapi;
mod overview;
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
