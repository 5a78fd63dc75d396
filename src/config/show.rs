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
}

/// Returns settings as TOML, under the heads of their tables.
fn as_toml<'a>(settings: impl Iterator<Item = &'a ShownSetting>) -> String {
    let mut out = String::new();
    let mut last = "";
    for setting in settings {
        let (table, name) = setting.path.rsplit_once('.').unwrap_or(("", &setting.path));
        // Writing to a String cannot fail.
        let _ = match table.split_once('[') {
            _ if table == last => Ok(()),
            Some((list, _)) => writeln!(out, "\n[[{list}]]"),
            None => writeln!(out, "\n[{table}]"),
        };
        last = table;
        let restart = match needs_restart(&setting.path) {
            true => "; restart",
            false => "",
        };
        let _ = writeln!(
            out,
            "{name} = {} # {}{restart}",
            setting.value, setting.origin
        );
    }
    match out.strip_prefix('\n') {
        Some(out) => out.to_owned(),
        None => out,
    }
}

impl Settings {
    /// Returns every setting as TOML in the order of `config.toml`, one a line, each with its
    /// origin and with `; restart` if a change needs one.
    ///
    /// # Errors
    /// If the mirror cannot be written as TOML, which a test excludes.
    pub fn effective(&self) -> Result<String, toml::ser::Error> {
        Ok(as_toml(self.shown()?.iter()))
    }

    /// Returns the settings that differ from their default, and the tables with one.
    ///
    /// # Errors
    /// As [`Self::effective`].
    pub fn changed(&self) -> Result<String, toml::ser::Error> {
        let shown = self.shown()?;
        Ok(as_toml(
            shown.iter().filter(|setting| !setting.is_default()),
        ))
    }

    /// Returns every setting as a list.
    ///
    /// # Errors
    /// As [`Self::effective`].
    pub fn shown(&self) -> Result<Vec<ShownSetting>, toml::ser::Error> {
        let plain = toml::to_string(&self.file)?;
        let mut shown = Vec::new();
        let mut table = String::new();
        let mut counts = std::collections::HashMap::<&str, usize>::new();
        for line in plain.lines() {
            if let Some(name) = line.strip_prefix("[[").and_then(|l| l.strip_suffix("]]")) {
                let count = counts.entry(name).or_default();
                table = format!("{name}[{count}].");
                *count += 1;
            } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                table = format!("{name}.");
            } else if let Some((name, value)) = line.split_once(" = ") {
                let path = format!("{table}{name}");
                shown.push(ShownSetting {
                    value: value.to_owned(),
                    origin: self.origin(&path),
                    path,
                });
            }
        }
        Ok(shown)
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
