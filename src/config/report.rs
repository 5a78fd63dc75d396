//! The problems of settings: one line each, in the order of the file, without values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Maximum number of reported problems. A file with more is not a settings file.
pub const PROBLEMS_MAX: usize = 50;

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingPlace {
    /// In the file, at this line, counted from 1. Line 0 is the file as a whole.
    File(Arc<str>, usize),
    /// In this environment variable.
    Variable(String),
    /// Nowhere: its default stands.
    Default,
}

impl fmt::Display for SettingPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, 0) => f.write_str(file),
            Self::File(file, line) => write!(f, "{file}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Default => f.write_str("settings"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettingProblem {
    /// Where.
    pub place: SettingPlace,
    /// With which setting; empty for the file as a whole.
    pub path: String,
    /// What, and what would be right.
    pub text: String,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

/// Collects problems; at most one for each setting, because a second one is a consequence.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The file's name in messages.
    pub file: Option<Arc<str>>,
    /// Where each setting was given, by path (`wiv.timeout`, `callers[0].name`).
    pub places: BTreeMap<String, SettingPlace>,
    problems: Vec<SettingProblem>,
    /// Tables in which a setting has a wrong form or an unknown name.
    broken: BTreeSet<String>,
}

/// Returns the table of a setting. Empty at the top level of the file.
fn table_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(table, _)| table)
}

impl Report {
    /// Returns the place of a setting, or of the table it belongs to.
    pub fn place(&self, path: &str) -> SettingPlace {
        let mut rest = path;
        loop {
            if let Some(place) = self.places.get(rest) {
                return place.clone();
            }
            match rest.rfind(['.', '[']) {
                Some(cut) => rest = rest.get(..cut).unwrap_or_default(),
                None => break,
            }
        }
        let file = self.file.clone();
        file.map_or(SettingPlace::Default, |file| SettingPlace::File(file, 0))
    }

    /// Notes a setting that is wrong by itself, unless it or a table around it is known to be.
    pub fn add(&mut self, path: &str, text: impl Into<String>) {
        self.add_at(self.place(path), path, text);
        self.broken.insert(table_of(path).to_owned());
    }

    /// Notes a broken rule between settings, unless one of the same table is wrong by itself: then
    /// this would only be its consequence.
    pub fn rule(&mut self, path: &str, text: impl Into<String>) {
        let table = table_of(path);
        if table.is_empty() || !self.broken.contains(table) {
            self.add_at(self.place(path), path, text);
        }
    }

    /// Adds a problem at a place that is not the setting's own.
    pub fn add_at(&mut self, place: SettingPlace, path: &str, text: impl Into<String>) {
        let around = |known: &str| {
            path.strip_prefix(known)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let known = |p: &SettingProblem| match path {
            "" => p.path.is_empty() && p.place == place,
            _ => !p.path.is_empty() && around(&p.path),
        };
        if self.is_full() || self.problems.iter().any(known) {
            return;
        }
        self.problems.push(SettingProblem {
            place,
            path: path.to_owned(),
            text: text.into(),
        });
    }

    /// Returns whether anything is wrong with a setting of this table.
    pub fn is_about(&self, table: &str) -> bool {
        let mut paths = self.problems.iter().map(|problem| &problem.path);
        paths.any(|path| path.split('.').next() == Some(table))
    }

    /// Returns whether so much is wrong that more would not help.
    pub fn is_full(&self) -> bool {
        self.problems.len() >= PROBLEMS_MAX
    }

    /// Returns all problems in order; `Ok` if there is none.
    ///
    /// # Errors
    /// The refusal that lists them.
    pub fn verdict(&mut self) -> Result<(), Refusal> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort();
        Err(Refusal { problems })
    }
}

/// Notes each rule between the settings of a table that is broken: the setting that is wrong, the
/// condition, and what would be right.
macro_rules! rules {
    ($report:expr, $table:expr; $($setting:literal if $broken:expr => $text:literal;)*) => {
        $(if $broken {
            $report.rule(&$crate::config::form::below($table, $setting), format!($text));
        })*
    };
}
pub(super) use rules;

/// Why settings were refused: one line for each problem, and no value in any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In the order of the file, then the environment.
    pub problems: Vec<SettingProblem>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))?;
        if self.problems.len() == PROBLEMS_MAX {
            f.write_str("\nsettings: there may be more problems; these are the first ones")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
