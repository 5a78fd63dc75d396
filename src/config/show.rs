//! The settings in force, as TOML, with where each came from.

use std::fmt::Write as _;

use super::check::Settings;
use super::file::File;
use super::form::Setting as _;
use super::report::SettingPlace;
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

/// Returns the paths of all settings that a variable can override: all but members of lists.
pub(super) fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    File::each(&File::default(), "", &mut |path, _, _| {
        if !path.contains('[') {
            paths.push(path.to_owned());
        }
    });
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
    pub fn effective(&self) -> String {
        as_toml(self.shown().iter())
    }

    /// Returns the settings that differ from their default, and the tables with one.
    pub fn changed(&self) -> String {
        as_toml(self.shown().iter().filter(|setting| !setting.is_default()))
    }

    /// Returns every setting that has a value, as a list.
    pub fn shown(&self) -> Vec<ShownSetting> {
        let mut shown = Vec::new();
        File::each(&self.file, "", &mut |path, value, _| {
            shown.extend(value.map(|value| ShownSetting {
                path: path.to_owned(),
                value: value.to_string(),
                origin: self.origin(path),
            }));
        });
        shown
    }

    /// Returns where a setting was given. Members of a list that a variable gave have its place.
    fn origin(&self, path: &str) -> String {
        let exact = self.report.places.contains_key(path);
        match self.report.place(path) {
            SettingPlace::File(file, _) if exact => file.to_string(),
            SettingPlace::Variable(name) if exact || path.contains('[') => name,
            _ => DEFAULT.to_owned(),
        }
    }
}
