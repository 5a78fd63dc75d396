//! `config.toml` and the environment, checked and cut into the options that each module owns.
//!
//! `layer` reads the two sources, `file` mirrors them key by key (each leaf checks itself, see
//! `form`), `load` merges and reports, `check` holds the rules between settings. Nothing here ever
//! prints a value: a misplaced secret stays where it was put.

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
    ValkeySettings,
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
