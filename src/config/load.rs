//! Loads settings: the defaults, then the file, then the environment. Reports all problems at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use figment::providers::Serialized;
use figment::value::Dict;

use super::check::{self, Settings};
use super::file::File;
use super::form::{Setting as _, or_list};
use super::layer::{self, SOURCE_BYTES_MAX};
use super::report::{PROBLEMS_MAX, Refusal, Report, SettingPlace, SettingProblem};
use super::sources;
use crate::domain::Vendor;
use crate::secrets::{FileProblem, read_file};

/// The file name that means standard input.
const INPUT: &str = "-";
/// The name of standard input in messages.
const INPUT_LABEL: &str = "standard input";

/// Where settings are read from, at the start and at each reload.
#[derive(Clone, Debug)]
pub enum SettingsAt {
    /// A file.
    File(PathBuf),
    /// Standard input, which was read to its end at the start and does not change any more.
    Input(Arc<str>),
}

impl SettingsAt {
    /// Returns the place that a command's `--config` names. `-` is standard input, which is read
    /// now. Blocks until it ends.
    ///
    /// # Errors
    /// If standard input cannot be read, or is no settings file.
    pub fn named(path: &Path) -> Result<Self, Refusal> {
        if path != Path::new(INPUT) {
            return Ok(Self::File(path.to_owned()));
        }
        text_of_input()
            .map(|text| Self::Input(text.into()))
            .map_err(|why| unreadable(INPUT_LABEL, why))
    }

    /// Returns the file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Input(_) => None,
        }
    }

    /// Reads, merges and checks the settings, as [`load`] does.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&self) -> Result<Settings, Refusal> {
        match self {
            Self::File(path) => load(Some(path)),
            Self::Input(text) => load_text(Some((INPUT_LABEL, text))),
        }
    }
}

/// Reads, merges and checks the settings of a file (none: defaults and environment alone).
/// Secrets are read apart from it, by [`Settings::read_secrets`]. Blocks the thread; a file that
/// does not answer is given up.
///
/// # Errors
/// Every problem found, none with a value in it.
pub fn load(path: Option<&Path>) -> Result<Settings, Refusal> {
    let Some(path) = path else {
        return load_text(None);
    };
    let label = path.display().to_string();
    let text = text_of(path).map_err(|why| unreadable(&label, why))?;
    load_text(Some((&label, &text)))
}

fn load_text(text: Option<(&str, &str)>) -> Result<Settings, Refusal> {
    let variables = std::env::vars_os().filter_map(|(name, text)| {
        // A name that is not Unicode is none of ours.
        Some((name.into_string().ok()?, text.into_string().ok()))
    });
    let mut settings = read(text, variables)?;
    let given = std::env::var_os("STATE_DIRECTORY");
    settings.store.or_state_directory(given.as_deref());
    Ok(settings)
}

/// The refusal of a whole file.
fn unreadable(label: &str, text: String) -> Refusal {
    let (place, path) = (SettingPlace::File(label.into(), 0), String::new());
    Refusal {
        problems: vec![SettingProblem { place, path, text }],
    }
}

/// Loads settings from a text and given variables, for the demo and for tests. `label` stands for
/// the file's name in messages.
///
/// # Errors
/// As [`load`].
pub fn from_text(
    label: &str,
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Settings, Refusal> {
    let variables = variables.into_iter().map(|(name, text)| (name, Some(text)));
    read(Some((label, text)), variables)
}

/// Variables that name a proxy for other programs, in capitals or not.
const PROXY_VARIABLES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];

/// A line for each proxy that the environment names although no vendor is called through one: on a
/// machine that needs it, calls would only time out.
fn unused_proxies(variables: &[(String, Option<String>)], settings: &Settings) -> Vec<String> {
    let mut vendors = settings.vendors.present().peekable();
    if vendors.peek().is_none() || vendors.any(|vendor| vendor.options.proxy.is_some()) {
        return Vec::new();
    }
    let is_proxy = |name: &String| PROXY_VARIABLES.contains(&name.to_uppercase().as_str());
    let set = or_list(&Vendor::ALL.map(|vendor| format!("{}.proxy_url", vendor.as_str())));
    variables
        .iter()
        .filter(|(name, text)| is_proxy(name) && text.as_deref() != Some(""))
        .map(|(name, _)| format!("{name} is set in the environment but not used; to call a vendor through a proxy, set {set}"))
        .collect()
}

const TOO_LARGE: &str = "is larger than 1 MiB, the limit for a settings file";

fn text_of_input() -> Result<String, String> {
    use std::io::Read as _;
    let (mut bytes, input) = (Vec::new(), std::io::stdin().lock());
    let read = input
        .take(SOURCE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes);
    read.map_err(|why| format!("cannot be read: {}", why.kind()))?;
    match bytes.len() > SOURCE_BYTES_MAX {
        true => Err(TOO_LARGE.to_owned()),
        false => as_text(&bytes),
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let bytes = read_file(path, SOURCE_BYTES_MAX).map_err(|why| match why {
        FileProblem::Unreadable(std::io::ErrorKind::NotFound) => "there is no such file".to_owned(),
        FileProblem::TooLarge => TOO_LARGE.to_owned(),
        why => why.to_string(),
    })?;
    as_text(&bytes)
}

fn as_text(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    text.map_err(|_| "is not UTF-8 text".to_owned())
}

fn read(
    file: Option<(&str, &str)>,
    variables: impl IntoIterator<Item = (String, Option<String>)>,
) -> Result<Settings, Refusal> {
    let mut report = Report::default();
    let mut merged = Figment::new();
    if let Some((label, text)) = file {
        let label: Arc<str> = label.into();
        report.file = Some(label.clone());
        let layer = layer::from_toml(text, &label, &mut report);
        merged = merged.merge(Serialized::defaults(layer));
        // Nothing of an unreadable file stands, so nothing can be said about the rest.
        report.verdict()?;
    }
    let variables: Vec<_> = variables.into_iter().collect();
    let layer = layer::from_variables(&variables, &mut report);
    merged = merged.merge(Serialized::defaults(layer));
    let given = merged.find_value("").unwrap_or_else(|_| Dict::new().into());
    let (mut file, mut given) = (File::default(), Dict::from([(String::new(), given)]));
    File::read(&mut file, &mut given, "", &mut report);
    // A variable that holds a secret may have any name.
    let named = sources::names(&file, |path| path.ends_with("_env"));
    let strays = layer::strays(&variables).filter(|name| named.iter().all(|known| known != name));
    for name in strays.take(PROBLEMS_MAX) {
        let place = SettingPlace::Variable(layer::shown_variable(name));
        report.add_at(place, "", layer::named_nothing(name));
    }
    let mut settings = check::settings(file, report)?;
    let unused = unused_proxies(&variables, &settings);
    settings.warnings.extend(unused);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_missing_and_binary_files_are_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        for (bytes, want) in [
            (None, "there is no such file"),
            (
                Some(vec![b'#'; SOURCE_BYTES_MAX + 1]),
                "is larger than 1 MiB",
            ),
            (Some(vec![0xff]), "is not UTF-8"),
        ] {
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).unwrap();
            }
            let shown = load(Some(&path)).unwrap_err().to_string();
            assert!(shown.contains(want) && !shown.contains('\n'), "{shown}");
        }
        let shown = load(Some(dir.path())).unwrap_err().to_string();
        assert!(!shown.contains('\n'), "{shown}");
    }
}
