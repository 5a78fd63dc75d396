//! Reads `config.toml` and the environment, checks them, and returns the options of each room.
//!
//! ```text
//! config.toml ┐
//!             ├▶ layer ─▶ figment (merge) ─▶ file (one line per setting) ─▶ check ─▶ Settings
//! environment ┘                               └─▶ report ─▶ Refusal: place, setting, what is right
//! ```
//!
//! - [`load()`] and [`SettingsAt`] read settings once and again. [`Settings`] holds the options of
//!   every room; [`Settings::read_secrets`] reads the keys that it names.
//! - `file` declares every setting once, with its form and its default. A form reads a value, shows
//!   it, says what would be right, and describes it as JSON schema (`form`, `measure`, `names`,
//!   `lists`). Where a room has options of its own, values are read into them.
//! - `check` and its siblings hold the rules between settings.
//! - `show` prints the settings in force with their origin, and `schema` their JSON schema, both
//!   from the declaration. `restart` lists the settings that a reload does not apply.
//!
//! Only `app`, `reload` and `cli` import this room. A new setting is a line in `file`, a line in
//! `config.toml`, and a member of the options of its room.
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
    AuthMode, CacheSettings, ChangesSettings, ConsoleSettings, LogSettings, Settings, StoreKind,
    StoreSettings, ValkeySettings,
};
pub use form::Level;
pub(crate) use form::parsed;
pub use load::{SettingsAt, from_text, load};
pub(crate) use names::CallerName;
pub use report::Refusal;
pub use restart::needs_restart;
pub use schema::json_schema;
pub use show::ShownSetting;
pub use sources::{Secrets, VendorSecrets};
pub use tls::Certificates;
pub use traces::TraceSettings;
pub use vendor::{AccountSource, VendorSettings};
