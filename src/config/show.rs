//! The settings in force, as TOML, with where each came from.

use std::fmt::Write as _;

use super::check::Settings;
use super::file::File;
use super::report::{SettingPlace, place_of};
use super::restart::needs_restart;

/// One setting in force. Of secrets only the names of their variables and files are shown, of key
/// hashes the first digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSetting {
    /// `wiv.timeout`, `callers[0].name`.
    pub path: String,
    /// The value as it would be written in the file.
    pub value: String,
    /// The file, the variable, or `default`.
    pub origin: String,
}

/// Returns the paths of all settings that a variable can override, but for members of lists.
pub(super) fn paths() -> Vec<String> {
    fn collect(table: &toml::Table, before: &str, into: &mut Vec<String>) {
        for (name, value) in table {
            match value {
                toml::Value::Table(below) => collect(below, &format!("{before}{name}."), into),
                _ => into.push(format!("{before}{name}")),
            }
        }
    }
    // A setting without a default is in no default value.
    let mut paths = vec!["nable.account_id".to_owned()];
    let table = toml::Table::try_from(File::default()).unwrap_or_default();
    collect(&table, "", &mut paths);
    paths
}

/// The origin of a setting that was given nowhere.
const DEFAULT: &str = "default";

impl ShownSetting {
    /// Returns whether it was given nowhere.
    pub fn is_default(&self) -> bool {
        self.origin == DEFAULT
    }

    /// Returns the value as JSON; as a text where TOML has what JSON has not.
    pub fn json(&self) -> serde_json::Value {
        let table: Result<toml::Table, _> = toml::from_str(&format!("value = {}", self.value));
        let value = table.ok().and_then(|mut table| table.remove("value"));
        value
            .and_then(|value| serde_json::to_value(value).ok())
            .unwrap_or_else(|| self.value.clone().into())
    }

    fn default_of(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            value: String::new(),
            origin: DEFAULT.to_owned(),
        }
    }
}

/// A line of the settings as TOML.
enum ShownLine<'a> {
    Setting(ShownSetting),
    /// A table's head, or empty.
    Other(&'a str),
}

impl Settings {
    /// Returns every setting in the order of `config.toml`, one a line, its origin behind it, and
    /// `; restart` where a change needs one; see [`ShownSetting`].
    ///
    /// # Errors
    /// If the mirror cannot be written as TOML, which a test excludes.
    pub fn effective(&self) -> Result<String, toml::ser::Error> {
        self.as_toml(|_| true)
    }

    /// Returns the settings that differ from their default; a table of which nothing is left is
    /// left out.
    ///
    /// # Errors
    /// As [`Self::effective`].
    pub fn changed(&self) -> Result<String, toml::ser::Error> {
        self.as_toml(|setting| setting.origin != DEFAULT)
    }

    fn as_toml(&self, which: impl Fn(&ShownSetting) -> bool) -> Result<String, toml::ser::Error> {
        let plain = toml::to_string(&self.file)?;
        let mut out = String::with_capacity(plain.len() * 2);
        // The head of a table waits for its first setting.
        let mut waiting = String::new();
        let all = which(&ShownSetting::default_of(""));
        self.lines(&plain, |line| {
            // Writing to a String cannot fail.
            let _ = match line {
                ShownLine::Setting(setting) if which(&setting) => {
                    out.push_str(&std::mem::take(&mut waiting));
                    let name = setting.path.rsplit('.').next().unwrap_or(&setting.path);
                    let mark = if needs_restart(&setting.path) {
                        "; restart"
                    } else {
                        ""
                    };
                    writeln!(out, "{name} = {} # {}{mark}", setting.value, setting.origin)
                }
                ShownLine::Setting(_) => Ok(()),
                ShownLine::Other(line) if all => writeln!(out, "{line}"),
                ShownLine::Other("") => Ok(()),
                ShownLine::Other(line) => {
                    waiting = if out.is_empty() {
                        String::new()
                    } else {
                        "\n".to_owned()
                    };
                    writeln!(waiting, "{line}")
                }
            };
        });
        Ok(out)
    }

    /// Returns every setting as a list.
    ///
    /// # Errors
    /// As [`Self::effective`].
    pub fn shown(&self) -> Result<Vec<ShownSetting>, toml::ser::Error> {
        let plain = toml::to_string(&self.file)?;
        let mut shown = Vec::new();
        self.lines(&plain, |line| {
            if let ShownLine::Setting(setting) = line {
                shown.push(setting);
            }
        });
        Ok(shown)
    }

    fn lines<'a>(&self, plain: &'a str, mut each: impl FnMut(ShownLine<'a>)) {
        let mut table = String::new();
        let mut counts = std::collections::HashMap::<String, usize>::new();
        for line in plain.lines() {
            if let Some(name) = line.strip_prefix("[[").and_then(|l| l.strip_suffix("]]")) {
                let count = counts.entry(name.to_owned()).or_default();
                table = format!("{name}[{count}]");
                *count += 1;
            } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                name.clone_into(&mut table);
            } else if let Some((name, value)) = line.split_once(" = ") {
                let path = match table.as_str() {
                    "" => name.to_owned(),
                    _ => format!("{table}.{name}"),
                };
                each(ShownLine::Setting(ShownSetting {
                    value: value.to_owned(),
                    origin: self.origin(&path),
                    path,
                }));
                continue;
            }
            each(ShownLine::Other(line));
        }
    }

    /// Where a setting was given.
    fn origin(&self, path: &str) -> String {
        match self.places.get(path) {
            Some(SettingPlace::File(file, _)) => file.to_string(),
            Some(place @ SettingPlace::Variable(_)) => place.to_string(),
            Some(SettingPlace::Default) => DEFAULT.to_owned(),
            // Members of a list that a variable gave have its place.
            None => match place_of(path, &self.places, None) {
                place @ SettingPlace::Variable(_) if path.contains('[') => place.to_string(),
                _ => DEFAULT.to_owned(),
            },
        }
    }
}
