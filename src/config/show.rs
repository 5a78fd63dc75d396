//! The settings in force, as TOML, with where each came from.

use std::fmt::Write as _;

use super::check::Settings;
use super::report::{Place, place_of};

impl Settings {
    /// Every setting in the order of `config.toml`, one a line, its origin behind it. Of secrets
    /// only the names of their variables and files are shown, of key hashes the first digits.
    ///
    /// # Errors
    /// If the mirror cannot be written as TOML, which a test excludes.
    pub fn effective(&self) -> Result<String, toml::ser::Error> {
        let plain = toml::to_string(&self.file)?;
        let mut out = String::with_capacity(plain.len() * 2);
        let mut table = String::new();
        let mut counts = std::collections::HashMap::<String, usize>::new();
        for line in plain.lines() {
            if let Some(name) = line.strip_prefix("[[").and_then(|l| l.strip_suffix("]]")) {
                let count = counts.entry(name.to_owned()).or_default();
                table = format!("{name}[{count}]");
                *count += 1;
            } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                name.clone_into(&mut table);
            } else if let Some((name, _)) = line.split_once(" = ") {
                let path = match table.as_str() {
                    "" => name.to_owned(),
                    _ => format!("{table}.{name}"),
                };
                let origin = self.origin(&path);
                // Writing to a String cannot fail.
                let _ = writeln!(out, "{line} # {origin}");
                continue;
            }
            out.push_str(line);
            out.push('\n');
        }
        Ok(out)
    }

    /// Where a setting was given.
    fn origin(&self, path: &str) -> String {
        match self.places.get(path) {
            Some(Place::File(file, _)) => file.to_string(),
            Some(place @ Place::Variable(_)) => place.to_string(),
            Some(Place::Default) => "default".to_owned(),
            // Members of a list that a variable gave have its place.
            None => match place_of(path, &self.places, None) {
                place @ Place::Variable(_) if path.contains('[') => place.to_string(),
                _ => "default".to_owned(),
            },
        }
    }
}
