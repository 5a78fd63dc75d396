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
//! - `rules` holds the rules between settings, each a line of setting, condition and text. Those of
//!   one caller, link or vendor are in `callers`, `check` and `vendor`.
//! - `show` prints the settings in force with their origin, and `schema` their JSON schema, both
//!   from the declaration. `restart` lists the settings that a reload does not apply.
//!
//! Only `app`, `reload` and `cli` import this room. A new setting is a line in `file`, a line in
//! `config.toml`, and a member of the options of its room; `check` puts together the options that
//! come from several tables.
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
mod rules;
mod schema;
mod show;
mod sources;
mod vendor;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod reference;

pub use check::{
    AuthMode, CacheSettings, ChangesSettings, ConsoleSettings, LogSettings, Settings, StoreKind,
    StoreSettings, TraceSettings, ValkeySettings,
};
pub use form::Level;
pub(crate) use form::parsed;
pub use load::{SettingsAt, from_text, load};
pub(crate) use names::CallerName;
pub use report::Refusal;
pub use restart::needs_restart;
pub use schema::json_schema;
pub use show::ShownSetting;
pub use sources::{Certificates, SecretName, Secrets, VendorSecrets};
pub use vendor::{AccountSource, VendorSettings};
