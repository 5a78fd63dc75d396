//! `msp-gateway store`: checks or removes what the gateway stores on disk.

use std::path::{Path, PathBuf};

use super::refuse;
use crate::app::store_seal;
use crate::config::{Settings, SettingsAt, StoreKind};
use crate::store::disk::{examine, wipe};

/// Reads every record. Returns the exit code.
pub fn check(path: &Path) -> i32 {
    let (settings, directory) = match placed(path) {
        Ok(placed) => placed,
        Err(why) => return refuse(why),
    };
    let secrets = match settings.read_secrets() {
        Ok(secrets) => secrets,
        Err(refusal) => return refuse(refusal),
    };
    let records = match store_seal(&secrets) {
        Ok(Some(records)) => records,
        Ok(None) => {
            return refuse(
                "no secret is configured to open the store; set pagination.token_key_file or a wiv key",
            );
        }
        Err(error) => return refuse(error),
    };
    match examine(&directory, &records) {
        Ok(None) => print(&format!(
            "{}: there is no store in this directory",
            directory.display()
        )),
        Ok(Some(found)) => print(&format!(
            "{}: intact; {} answers, {} searches, {} sealed bytes; {} records do not open with the secrets in force",
            directory.display(),
            found.answers,
            found.snapshots,
            found.bytes,
            found.closed,
        )),
        Err(why) => refuse(why),
    }
}

/// Removes the store. Returns the exit code.
pub fn remove(path: &Path) -> i32 {
    let directory = match placed(path) {
        Ok((_, directory)) => directory,
        Err(why) => return refuse(why),
    };
    match wipe(&directory) {
        Ok(files) if files.is_empty() => print(&format!(
            "{}: there is no store in this directory",
            directory.display()
        )),
        Ok(files) => {
            let lines: Vec<String> = files
                .iter()
                .map(|file| format!("removed {}", file.display()))
                .collect();
            print(&lines.join("\n"))
        }
        Err(why) => refuse(why),
    }
}

/// Reads the settings and returns them with the store's directory.
fn placed(path: &Path) -> Result<(Settings, PathBuf), String> {
    let settings = SettingsAt::named(path).and_then(|at| at.load());
    let settings = settings.map_err(|refusal| refusal.to_string())?;
    if settings.store.kind == StoreKind::Valkey {
        return Err(
            "the store is in Valkey (store.kind), not in a directory; use the server's own tools"
                .to_owned(),
        );
    }
    match settings.store.directory.clone() {
        Some(directory) => Ok((settings, directory)),
        None => Err("store.directory is empty and STATE_DIRECTORY is not set; set one to the directory that the gateway uses, such as STATE_DIRECTORY=/var/lib/msp-gateway".to_owned()),
    }
}

fn print(text: &str) -> i32 {
    super::print(format!("{text}\n").as_bytes())
}
