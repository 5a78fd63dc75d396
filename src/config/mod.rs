//! Reads `config.toml` and the environment, checks them, and returns the options of each room.
//!
//! ```text
//! config.toml ┐
//!             ├▶ layer ─▶ load (merge) ─▶ file (one field per setting) ─▶ check ─▶ Settings
//! environment ┘              └─────────────▶ report ─▶ Refusal: place, setting, what is right
//! ```
//!
//! - [`load()`] and [`SettingsAt`] read settings once and again. [`Settings`] holds the options of
//!   every room; [`Settings::read_secrets`] reads the keys that it names.
//! - `file` mirrors `config.toml` field by field. A leaf checks its own value (`form`, `measure`,
//!   `names`, `lists`); `check` and its siblings hold the rules between settings.
//! - `show` prints the settings in force with their origin, `schema` their JSON schema, and
//!   `restart` lists the settings that a reload does not apply.
//!
//! Only `app`, `reload` and `cli` import this room. A new setting is a field in `file` with its
//! default, a line in `config.toml`, and a member of the options of its room.
//!
//! What must never happen here:
//! - A text shows a value: a misplaced secret would end up in a log.
//! - A setting is ignored, or its rule is checked in another room.
//! - A default in `file` differs from the one in `config.toml`.

mod callers;
mod check;
mod file;
mod form;
mod layer;
mod lists;
mod load;
mod measure;
mod names;
mod report;
mod restart;
mod schema;
mod show;
mod sources;
mod store;
mod tls;
mod traces;
mod vendor;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod reference;

pub use check::{
    AuthMode, CacheSettings, ConsoleSettings, LogSettings, Settings, StoreKind, StoreSettings,
    ValkeySettings, WhenAway,
};
pub(crate) use form::Form;
pub use form::Level;
pub use load::{SettingsAt, from_text, load};
pub(crate) use names::CallerName;
pub use report::Refusal;
pub use restart::{NEEDS_RESTART, needs_restart};
pub use schema::json_schema;
pub use show::ShownSetting;
pub use sources::{Secrets, VendorSecrets};
pub use tls::Certificates;
pub use traces::TraceSettings;
pub use vendor::{AccountSource, VendorSettings};
