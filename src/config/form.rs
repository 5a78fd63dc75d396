//! How a setting is read, shown and described: one trait for tables, one for single values, and
//! the macros that declare both. `tables!` and `fields!` declare tables, a line for each setting;
//! `forms!` and `texts!` declare kinds of single values.
//!
//! A value that is wrong is reported by what would be right, and never repeated: it might be a
//! secret.

use figment::value::{Dict, Value};
use serde_json::{Map, Value as Json, json};
use toml::Value as Toml;

use super::layer::unknown;
use super::names::{FileName, VariableName};
use super::report::Report;
use super::sources::SecretName;
use crate::access::Role;
use crate::server::ClientAuth;
use crate::store::WhenAway;

/// Takes the path, the value and the JSON schema of one setting. The value is `None` where the
/// setting is not given and has no default.
pub type Visit<'a> = dyn FnMut(&str, Option<Toml>, fn() -> Schema) + 'a;

/// The JSON schema of one setting.
pub type Schema = Map<String, Json>;

/// A setting, or a table of settings.
pub trait Setting {
    /// What the gateway makes of it.
    type Value;

    /// Takes what was given out of the table around it. `into` holds the default before, and keeps
    /// it where nothing was given, or something wrong.
    fn read(into: &mut Self::Value, around: &mut Dict, path: &str, report: &mut Report);

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
    fn shape() -> Json;
}

/// Returns the JSON schema of a setting, which says what would be right.
fn schema<F: Form>() -> Schema {
    let must_be = json!(format!("Must be {}", F::right()));
    let mut schema = F::shape().as_object().cloned().unwrap_or_default();
    schema.insert("description".to_owned(), must_be);
    schema
}

/// Returns a setting's name within its table.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Takes the value at this path out of the table around it.
pub(super) fn taken(around: &mut Dict, path: &str) -> Option<Value> {
    around.remove(last(path))
}

fn read<F: Form>(around: &mut Dict, path: &str, report: &mut Report) -> Option<F::Value> {
    let value = F::take(&taken(around, path)?);
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

    fn read(into: &mut F::Value, around: &mut Dict, path: &str, report: &mut Report) {
        if let Some(value) = read::<F>(around, path, report) {
            *into = value;
        }
    }

    fn each(value: &F::Value, path: &str, visit: &mut Visit<'_>) {
        visit(path, Some(F::show(value)), schema::<F>);
    }
}

/// A setting without a default.
impl<F: Form> Setting for Option<F> {
    type Value = Option<F::Value>;

    fn read(into: &mut Self::Value, around: &mut Dict, path: &str, report: &mut Report) {
        *into = read::<F>(around, path, report).or(into.take());
    }

    fn each(value: &Self::Value, path: &str, visit: &mut Visit<'_>) {
        visit(path, value.as_ref().map(F::show), schema::<F>);
    }
}

/// A list of tables. Its members are visited as `path[0].name`; those of an empty list without a
/// value, as `path[].name`.
impl<T: Setting<Value = T> + Default> Setting for Vec<T> {
    type Value = Self;

    fn read(into: &mut Self, around: &mut Dict, path: &str, report: &mut Report) {
        match taken(around, path) {
            Some(Value::Array(_, items)) => {
                let table = |(i, item)| {
                    let (mut table, path) = (T::default(), format!("{path}[{i}]"));
                    let mut around = Dict::from([(last(&path).to_owned(), item)]);
                    T::read(&mut table, &mut around, &path, report);
                    table
                };
                *into = items.into_iter().enumerate().map(table).collect();
            }
            Some(_) => report.add(path, "must be a list of tables"),
            None => {}
        }
    }

    fn each(value: &Self, path: &str, visit: &mut Visit<'_>) {
        for (i, table) in value.iter().enumerate() {
            T::each(table, &format!("{path}[{i}]"), visit);
        }
        if value.is_empty() {
            visit(path, None, Schema::new);
            let mut bare = |path: &str, _: Option<Toml>, schema| visit(path, None, schema);
            T::each(&T::default(), &format!("{path}[]"), &mut bare);
        }
    }
}

/// A secret. One of two settings names the place where it is kept: `<path>_env` or `<path>_file`.
impl Setting for SecretName {
    type Value = Self;

    fn read(into: &mut Self, around: &mut Dict, path: &str, report: &mut Report) {
        let (env, file) = (format!("{path}_env"), format!("{path}_file"));
        VariableName::read(&mut into.env, around, &env, report);
        FileName::read(&mut into.file, around, &file, report);
        if into.env.is_some() && into.file.is_some() {
            let text = format!("is given together with {}; keep one of them", last(&env));
            report.rule(&file, text);
        }
    }

    fn each(value: &Self, path: &str, visit: &mut Visit<'_>) {
        VariableName::each(&value.env, &format!("{path}_env"), visit);
        FileName::each(&value.file, &format!("{path}_file"), visit);
    }
}

/// Returns the path of a setting in the table at `path`.
pub fn below(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

/// Where a setting's value is in the value of its table: under its own name, or where brackets say.
macro_rules! place {
    ($value:ident, $name:ident) => { $value.$name };
    ($value:ident, $name:ident, $($at:ident).+) => { $value.$($at).+ };
}
pub(super) use place;

/// Makes types tables of these settings, which are read into members of a value.
macro_rules! fields {
    ($($table:ty => $value:ty { $($name:ident $([$($at:ident).+])?: $form:ty,)* })*) => {$(
        impl Setting for $table {
            type Value = $value;

            fn read(into: &mut $value, around: &mut Dict, path: &str, report: &mut Report) {
                let mut given = match taken(around, path) {
                    Some(figment::value::Value::Dict(_, given)) => given,
                    Some(_) => return report.add(path, "must be a table"),
                    None => return,
                };
                $({
                    let into = &mut place!(into, $name $(, $($at).+)?);
                    <$form>::read(into, &mut given, &below(path, stringify!($name)), report);
                })*
                no_more::<Self>(&given, into, path, report);
            }

            fn each(value: &$value, path: &str, visit: &mut Visit<'_>) {
                $({
                    let value = &place!(value, $name $(, $($at).+)?);
                    <$form>::each(value, &below(path, stringify!($name)), visit);
                })*
            }
        }
    )*};
}
pub(super) use fields;

/// Declares tables: their settings, forms and defaults.
macro_rules! tables {
    ($($(#[$meta:meta])* $table:ident {
        $($(#[$of_field:meta])* $name:ident: $form:ty = $default:expr,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $table {
            $($(#[$of_field])* pub $name: <$form as Setting>::Value,)*
        }

        impl Default for $table {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        fields! { $table => $table { $($name: $form,)* } }
    )*};
}
pub(super) use tables;

/// Reports what is left of a table after its settings were taken.
pub(super) fn no_more<T: Setting>(left: &Dict, of: &T::Value, path: &str, report: &mut Report) {
    let mut known = Vec::new();
    for name in left.keys() {
        if known.is_empty() {
            T::each(of, "", &mut |path, _, _| {
                known.extend(path.split(['.', '[']).next().map(str::to_owned));
            });
        }
        unknown(name, &known, path, report);
    }
}

/// Returns a whole number that is not negative.
pub(super) fn whole(given: &Value) -> Option<u64> {
    u64::try_from(given.to_i128()?).ok()
}

/// Declares forms, one after the other: what the value becomes, what would be right, the JSON
/// schema, how the value is read, and how it is shown.
macro_rules! forms {
    ($($(#[$doc:meta])* $(where [$($generic:tt)+])? $form:ty => $value:ty:
        $right:expr, $shape:tt, $take:expr, $show:expr;)*) => {$(
        impl$(<$($generic)+>)? $crate::config::form::Form for $form {
            type Value = $value;

            fn right() -> String {
                $right.to_string()
            }

            fn take(given: &figment::value::Value) -> Option<$value> {
                let take: fn(&figment::value::Value) -> Option<$value> = $take;
                take(given)
            }

            fn show(value: &$value) -> toml::Value {
                let show: fn(&$value) -> _ = $show;
                show(value).into()
            }

            fn shape() -> serde_json::Value {
                serde_json::json!($shape)
            }
        }
    )*};
}
pub(super) use forms;

/// Declares forms of texts: what the value becomes, what would be right, how a text is read, and
/// how the value is shown. `or number`: a whole number may be written without quotes.
macro_rules! texts {
    ($($form:ty => $value:ty: $right:expr, $read:expr, $show:expr $(, or $number:ident)?;)*) => {
        $crate::config::form::forms! {$(
            $form => $value: $right, {"type": "string"},
                |given| {
                    let read: fn(&str) -> Option<$value> = $read;
                    $(if let Some($number) = $crate::config::form::whole(given) {
                        return read(&$number.to_string());
                    })?
                    read(given.as_str()?)
                },
                $show;
        )*}
    };
}
pub(super) use texts;

forms! {
    bool => Self: "true or false", {"type": "boolean"}, Value::to_bool, |flag| *flag;
}

/// Forms that are one of a few words.
macro_rules! words {
    ($($word:ty),*) => {
        forms! {$(
            $word => Self: or_list(&Self::ALL.map(|word| format!("\"{}\"", word.as_str()))),
                {"type": "string", "enum": (Self::ALL.map(Self::as_str))},
                |given| Self::ALL.into_iter().find(|word| Some(word.as_str()) == given.as_str()),
                |word| word.as_str();
        )*}
    };
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
