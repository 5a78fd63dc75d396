//! How a setting is read, shown and described: one trait for tables, one for single values.
//!
//! A value that is wrong is reported by what would be right, and never repeated: it might be a
//! secret.

use figment::value::{Dict, Value};
use serde_json::{Value as Json, json};
use toml::Value as Toml;

use super::layer::unknown;
use super::report::Report;
use crate::access::Role;
use crate::server::ClientAuth;
use crate::store::WhenAway;

/// What is known of a single setting besides its value.
#[derive(Clone, Copy)]
pub struct Facts {
    /// What would be right, as the end of a sentence that begins with "must be".
    pub right: fn() -> String,
    /// Its JSON schema.
    pub shape: fn() -> Json,
}

/// Takes the path, the value and the facts of one setting. The value is `None` where the setting
/// is not given and has no default.
pub type Visit<'a> = dyn FnMut(&str, Option<Toml>, Facts) + 'a;

/// A setting, or a table of settings.
pub trait Setting {
    /// What the gateway makes of it.
    type Value;

    /// Reads what was given. `into` holds the default before, and keeps it if that is wrong.
    fn read(into: &mut Self::Value, given: Value, path: &str, report: &mut Report);

    /// Visits each single setting, in the order of the declaration.
    fn each(value: &Self::Value, path: &str, visit: &mut Visit<'_>);
}

/// A single value.
pub trait Form {
    /// What the gateway makes of it.
    type Value;

    /// Returns what would be right, as the end of a sentence that begins with "must be".
    fn right() -> String;

    /// Returns the value, if it is right.
    fn take(given: &Value) -> Option<Self::Value>;

    /// Returns the value as it is written in `config.toml`.
    fn show(value: &Self::Value) -> Toml;

    /// Returns the JSON schema of what may be written.
    fn shape() -> Json {
        json!({"type": "string"})
    }
}

fn facts<F: Form>() -> Facts {
    Facts {
        right: F::right,
        shape: F::shape,
    }
}

fn read<F: Form>(given: &Value, path: &str, report: &mut Report) -> Option<F::Value> {
    let value = F::take(given);
    if value.is_none() {
        report.add(path, must_be::<F>());
    }
    value
}

fn must_be<F: Form>() -> String {
    format!("must be {}", F::right())
}

/// Parses a value that was given on the command line.
///
/// # Errors
/// What would be right.
pub(crate) fn parsed<F: Form>(text: &str) -> Result<F::Value, String> {
    F::take(&Value::from(text)).ok_or_else(must_be::<F>)
}

impl<F: Form> Setting for F {
    type Value = F::Value;

    fn read(into: &mut F::Value, given: Value, path: &str, report: &mut Report) {
        if let Some(value) = read::<F>(&given, path, report) {
            *into = value;
        }
    }

    fn each(value: &F::Value, path: &str, visit: &mut Visit<'_>) {
        visit(path, Some(F::show(value)), facts::<F>());
    }
}

/// A setting without a default.
impl<F: Form> Setting for Option<F> {
    type Value = Option<F::Value>;

    fn read(into: &mut Self::Value, given: Value, path: &str, report: &mut Report) {
        if let Some(value) = read::<F>(&given, path, report) {
            *into = Some(value);
        }
    }

    fn each(value: &Self::Value, path: &str, visit: &mut Visit<'_>) {
        visit(path, value.as_ref().map(F::show), facts::<F>());
    }
}

/// A list of tables. Its members are visited as `path[0].name`; those of an empty list without a
/// value, as `path[].name`.
impl<T: Setting<Value = T> + Default> Setting for Vec<T> {
    type Value = Self;

    fn read(into: &mut Self, given: Value, path: &str, report: &mut Report) {
        let Value::Array(_, items) = given else {
            return report.add(path, "must be a list of tables");
        };
        *into = Self::new();
        for (i, item) in items.into_iter().enumerate() {
            let mut table = T::default();
            T::read(&mut table, item, &format!("{path}[{i}]"), report);
            into.push(table);
        }
    }

    fn each(value: &Self, path: &str, visit: &mut Visit<'_>) {
        for (i, table) in value.iter().enumerate() {
            T::each(table, &format!("{path}[{i}]"), visit);
        }
        if value.is_empty() {
            let of_list = Facts {
                right: || "a list of tables".to_owned(),
                shape: || json!({"type": "array"}),
            };
            visit(path, None, of_list);
            let mut bare = |path: &str, _: Option<Toml>, facts: Facts| visit(path, None, facts);
            T::each(&T::default(), &format!("{path}[]"), &mut bare);
        }
    }
}

/// Returns the path of a setting in the table at `path`.
pub fn below(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

pub(super) fn as_table(given: Value, path: &str, report: &mut Report) -> Option<Dict> {
    match given {
        Value::Dict(_, table) => Some(table),
        _ => {
            report.add(path, "must be a table");
            None
        }
    }
}

/// Reports what is left of a table, whose settings have these names.
pub(super) fn no_more(left: &Dict, known: &[&str], path: &str, report: &mut Report) {
    for name in left.keys() {
        unknown(name, known, path, report);
    }
}

/// Returns a whole number that is not negative.
pub(super) fn whole(given: &Value) -> Option<u64> {
    u64::try_from(given.to_i128()?).ok()
}

impl Form for bool {
    type Value = Self;

    fn right() -> String {
        "true or false".to_owned()
    }

    fn take(given: &Value) -> Option<Self> {
        given.to_bool()
    }

    fn show(value: &Self) -> Toml {
        Toml::from(*value)
    }

    fn shape() -> Json {
        json!({"type": "boolean"})
    }
}

/// Declares forms of texts, a line each: what would be right, how a text is read, and how a value
/// is shown. `or number`: a whole number may be written without quotes.
macro_rules! forms {
    ($($(#[$doc:meta])* $form:ty $(=> $value:ty)?: $right:expr, $read:expr, $show:expr $(, or $number:ident)?;)*) => {$(
        impl $crate::config::form::Form for $form {
            type Value = $crate::config::form::one_of!($($value)? , Self);

            fn right() -> String {
                $right.to_string()
            }

            fn take(given: &figment::value::Value) -> Option<Self::Value> {
                let read: fn(&str) -> Option<Self::Value> = $read;
                $(if let Some($number) = $crate::config::form::whole(given) {
                    return read(&$number.to_string());
                })?
                read(given.as_str()?)
            }

            fn show(value: &Self::Value) -> toml::Value {
                let show: fn(&Self::Value) -> String = $show;
                show(value).into()
            }
        }
    )*};
}
pub(super) use forms;

/// The first of two types that is there.
macro_rules! one_of {
    (, $default:ty) => {
        $default
    };
    ($given:ty, $default:ty) => {
        $given
    };
}
pub(super) use one_of;

/// Forms that are one of a few words.
macro_rules! words {
    ($($word:ty),*) => {$(
        impl Form for $word {
            type Value = Self;

            fn right() -> String {
                or_list(&Self::ALL.map(|word| format!("\"{}\"", word.as_str())))
            }

            fn take(given: &Value) -> Option<Self> {
                let text = given.as_str()?;
                Self::ALL.into_iter().find(|word| word.as_str() == text)
            }

            fn show(value: &Self) -> Toml {
                value.as_str().into()
            }

            fn shape() -> Json {
                json!({"type": "string", "enum": Self::ALL.map(Self::as_str)})
            }
        }
    )*};
}
words!(AuthMode, ClientAuth, Level, Role, StoreKind, WhenAway);

/// Returns a list in words: "a", "a or b", "a, b or c".
pub(super) fn or_list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// Declares an enum of words.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$of_variant:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of_variant])* $variant,)* }

        impl $name {
            /// Every variant.
            pub const ALL: [Self; [$(stringify!($variant)),*].len()] = [$(Self::$variant),*];

            /// Returns the word used in settings.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

choice! {
    /// Which callers are accepted.
    AuthMode {
        /// Callers that present a caller key or certificate.
        Keys = "keys",
        /// Everyone; for loopback only.
        Open = "open",
    }
}

choice! {
    /// What the store is made of.
    StoreKind {
        /// A file on this machine.
        Disk = "disk",
        /// A Valkey or Redis that other gateways use too.
        Valkey = "valkey",
        /// Nothing: what is remembered ends with the process.
        None = "none",
    }
}

choice! {
    /// How much is logged.
    Level {
        /// Only failures.
        Error = "error",
        /// And what an operator should look at.
        Warn = "warn",
        /// And normal events.
        Info = "info",
        /// And the reasons of decisions.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}
