//! The two sources of settings, the file and the environment, as layers that figment merges, and
//! the place of each setting.
//!
//! figment's own readers of TOML and of the environment are not used: their errors print the values
//! they choke on, and the one for the environment guesses types from them.

use std::sync::Arc;

use figment::value::{Dict, Value};
use toml::de::{DeTable, DeValue};

use super::form::below;
use super::report::{Report, SettingPlace};
use super::show::paths;

/// Prefix of the variables that override settings. Two underscores separate the levels.
pub const PREFIX: &str = "MSP_GATEWAY__";
/// Prefix of such variables when underscores are missing.
const FAMILY: &str = "MSP_GATEWAY_";
/// Longest name of a variable that is shown or compared. The longest sensible one has under 60.
const VARIABLE_BYTES_MAX: usize = 128;
/// Maximum edit distance of a name that is suggested.
const TYPING_ERRORS_MAX: usize = 3;
/// Largest file and largest variable, in bytes. The largest sensible file names 10,000 customers.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Levels a setting's path has: `cases.open.fresh` is the deepest.
const LEVELS_MAX: usize = 3;

/// Returns a name as it may be shown: an odd one might be a secret in the wrong place.
pub fn shown(name: &str) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if (1..=40).contains(&name.len()) && name.bytes().all(plain) {
        name
    } else {
        "(a name that is not shown)"
    }
}

/// Returns the place of what begins at this byte of a text.
type PlaceAt<'a> = &'a dyn Fn(usize) -> SettingPlace;

/// Turns parsed TOML into a value, and records the place of each setting in it.
fn converted(given: &DeValue<'_>, path: &str, place: PlaceAt<'_>, report: &mut Report) -> Value {
    match given {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
            // Too large for any setting; a float is refused wherever a whole number is meant.
            .map_or_else(|_| Value::from(f64::MAX), Value::from),
        DeValue::Float(n) => Value::from(n.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(items) => {
            let mut values = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                let path = format!("{path}[{i}]");
                if item.get_ref().is_table() {
                    let place = place(item.span().start);
                    report.places.insert(path.clone(), place);
                }
                values.push(converted(item.get_ref(), &path, place, report));
            }
            Value::from(values)
        }
        DeValue::Table(table) => {
            let mut dict = Dict::new();
            for (name, value) in table {
                let path = below(path, shown(name.get_ref()));
                report.places.insert(path.clone(), place(name.span().start));
                let value = converted(value.get_ref(), &path, place, report);
                dict.insert(name.get_ref().to_string(), value);
            }
            Value::from(dict)
        }
    }
}

/// Reads a file's text.
pub fn from_toml(text: &str, file: &Arc<str>, report: &mut Report) -> Value {
    let ends: Vec<_> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line = |offset| ends.partition_point(|end| *end < offset) + 1;
    let place = |offset| SettingPlace::File(file.clone(), line(offset));
    match DeTable::parse(text) {
        Ok(table) => converted(&DeValue::Table(table.into_inner()), "", &place, report),
        Err(error) => {
            let at = place(error.span().map_or(0, |span| span.start));
            let what = match error.message().starts_with("duplicate key") {
                true => "this key or table was given before",
                false => "this is not TOML (a text needs quotes, a table [brackets])",
            };
            report.add_at(at, "", what);
            Value::from(Dict::new())
        }
    }
}

/// Reads a variable's text: a number, a flag, a list in TOML's form, else a text as it is.
fn variable_value(text: &str, name: &str, path: &str, report: &mut Report) -> Option<Value> {
    let number = text.parse::<i64>().ok();
    match (
        text.parse::<bool>(),
        number.filter(|n| n.to_string() == text),
    ) {
        (Ok(flag), _) => Some(Value::from(flag)),
        (_, Some(n)) => Some(Value::from(n)),
        _ if text.starts_with(['[', '{']) => {
            let place = |_| SettingPlace::Variable(name.to_owned());
            let value = DeValue::parse(text).ok()?;
            Some(converted(value.get_ref(), path, &place, report))
        }
        _ => Some(Value::from(text)),
    }
}

/// Sets a value at a path. Returns `false` if a part of the path is not a table.
fn insert(dict: &mut Dict, path: &[String], value: Value) -> bool {
    match path {
        [] => false,
        [name] => dict.insert(name.clone(), value).is_none(),
        [name, rest @ ..] => {
            let below = dict.entry(name.clone());
            match below.or_insert_with(|| Value::from(Dict::new())) {
                Value::Dict(_, below) => insert(below, rest, value),
                _ => false,
            }
        }
    }
}

/// Returns the variables that begin like ours, with one underscore where a setting has two, and
/// name nothing. What Kubernetes sets for a Service called `msp-gateway` is left out.
pub fn strays(variables: &[(String, Option<String>)]) -> impl Iterator<Item = &str> {
    let ours = |name: &str| name.starts_with(FAMILY) && !name.starts_with(PREFIX);
    variables
        .iter()
        .filter(move |(name, text)| ours(name) && !is_service_link(name, text.as_deref()))
        .map(|(name, _)| name.as_str())
}

fn is_service_link(name: &str, text: Option<&str>) -> bool {
    let protocols = ["tcp", "udp", "sctp"];
    let link = |text: &str| {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        protocols.contains(&scheme)
    };
    let host_or_port = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    let of_a_port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let mut words = rest.split('_');
        let port = words.next().is_some_and(|port| port.parse::<u16>().is_ok());
        let protocol = words.next().unwrap_or("").to_lowercase();
        port && protocols.contains(&&*protocol)
    });
    host_or_port || of_a_port || (name.ends_with("_PORT") && text.is_some_and(link))
}

/// Returns the variable that was probably meant: the nearest one that overrides a setting.
fn nearest_variable(variable: &str) -> Option<String> {
    let plain = |name: &str| {
        let words = name.split('_').filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("_").to_uppercase()
    };
    let meant = plain(variable);
    // Longer names are no typing errors, and the distance costs the product of the lengths.
    if meant.len() > VARIABLE_BYTES_MAX {
        return None;
    }
    let names = paths().into_iter().map(|path| variable_of(&path));
    let (far, name) = names
        .map(|name| (strsim::levenshtein(&meant, &plain(&name)), name))
        .min()?;
    (far <= TYPING_ERRORS_MAX).then_some(name)
}

/// Returns the error text about a variable that names no setting.
pub fn named_nothing(variable: &str) -> String {
    match nearest_variable(variable) {
        Some(name) => format!("names no setting; did you mean {name}?"),
        None => "names no setting; write it like MSP_GATEWAY__LISTEN__PUBLIC".to_owned(),
    }
}

/// The variable that overrides the setting at this path.
fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
}

/// Reads the variables that begin with [`PREFIX`]. A value is `None` where it is not Unicode.
pub fn from_variables(variables: &[(String, Option<String>)], report: &mut Report) -> Dict {
    let ours = |(name, _): &&(String, _)| name.starts_with(PREFIX);
    let mut named: Vec<_> = variables.iter().filter(ours).collect();
    named.sort();
    let mut dict = Dict::new();
    for (name, text) in named {
        if report.is_full() {
            break;
        }
        let place = SettingPlace::Variable(shown_variable(name));
        let rest = name.get(PREFIX.len()..).unwrap_or_default();
        let levels: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        let spelled = rest == rest.to_uppercase() && levels.iter().all(|l| !l.is_empty());
        if levels.len() > LEVELS_MAX || !spelled {
            report.add_at(place, "", named_nothing(name));
            continue;
        }
        let path = levels
            .iter()
            .fold(String::new(), |path, level| below(&path, shown(level)));
        // The file's settings below this path are replaced.
        let members = format!("{path}[");
        report
            .places
            .retain(|known, _| !known.starts_with(&members));
        // A table that only variables name is theirs.
        for (end, _) in path.match_indices('.') {
            let table = path.get(..end).unwrap_or_default().to_owned();
            report.places.entry(table).or_insert_with(|| place.clone());
        }
        report.places.insert(path.clone(), place);
        let value = text
            .as_deref()
            .filter(|text| text.len() <= SOURCE_BYTES_MAX)
            .and_then(|text| variable_value(text, name, &path, report));
        match value {
            None => report.add(
                &path,
                "is too long, not Unicode, or a list that is not written as in TOML",
            ),
            Some(value) => {
                if !insert(&mut dict, &levels, value) {
                    report.add(&path, "contradicts another variable");
                }
            }
        }
    }
    dict
}

/// Returns a variable's name as it may be shown.
pub fn shown_variable(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.len() <= VARIABLE_BYTES_MAX && name.bytes().all(plain) {
        name.to_owned()
    } else {
        format!("{PREFIX}…")
    }
}

/// Reports a name that is none of the settings of the table at `path`.
pub fn unknown(name: &str, known: &[String], path: &str, report: &mut Report) {
    let path = below(path, shown(name));
    let near = match report.place(&path) {
        SettingPlace::Variable(variable) => nearest_variable(&variable),
        _ => None,
    };
    let near = near.or_else(|| nearest(name, known));
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    report.add(&path, format!("unknown setting{near}"));
}

/// The known name that was probably meant.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    // Longer names are no typing errors, and the distance costs the product of the lengths.
    if name.len() > 64 {
        return None;
    }
    let far = |candidate: &&String| strsim::levenshtein(name, candidate);
    let is_near = |candidate: &&String| {
        (far(candidate) <= 2 && far(candidate) < candidate.len())
            || candidate.starts_with(name)
            || name.starts_with(candidate.as_str())
    };
    known.iter().filter(is_near).min_by_key(far).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognised() {
        let known = ["timeout", "api_key_env", "concurrency"].map(str::to_owned);
        assert_eq!(nearest("timout", &known).as_deref(), Some("timeout"));
        assert_eq!(nearest("api_key", &known).as_deref(), Some("api_key_env"));
        assert_eq!(nearest("zzz", &known), None);
        assert_eq!(nearest("", &["a".to_owned()]).as_deref(), Some("a"));
    }
}
