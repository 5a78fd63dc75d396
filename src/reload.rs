//! New settings while requests go on: read, check, build whole, swap. A bad file changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::App;
use crate::clock::{Duration, sleep};
use crate::config::{self, Settings};

/// How often the files are looked at. A rotation by file change takes effect within this time.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Watches the settings and the files of keys, and takes them over when they change.
pub struct Reloader {
    path: PathBuf,
    watched: Vec<PathBuf>,
    seen: [u8; 32],
}

impl Reloader {
    /// Watches `path` and the key files that `settings` name.
    pub fn new(path: &Path, settings: &Settings) -> Self {
        let watched = watched(path, settings);
        Self {
            path: path.to_owned(),
            seen: fingerprint(&watched),
            watched,
        }
    }

    /// Returns when the content of a watched file has changed.
    pub async fn changed(&mut self) {
        loop {
            sleep(LOOK_EVERY).await;
            if fingerprint(&self.watched) != self.seen {
                return;
            }
        }
    }

    /// Takes the settings over, or changes nothing and says why in one log line.
    pub fn reload(&mut self, app: &Arc<App>) {
        // Seen before it is read: a change in between is seen at the next look.
        self.seen = fingerprint(&self.watched);
        let applied = self.try_reload(app);
        app.metrics().config_reload(applied.is_ok());
        match applied {
            Ok(later) => {
                tracing::info!("settings reloaded");
                for line in later {
                    tracing::warn!(line, "not taken over");
                }
            }
            Err(why) => tracing::error!(why, "settings refused, the old ones stay"),
        }
    }

    fn try_reload(&mut self, app: &Arc<App>) -> Result<Vec<String>, String> {
        let one_line = |text: String| text.lines().collect::<Vec<_>>().join("; ");
        let settings = config::load(Some(&self.path)).map_err(|r| one_line(r.to_string()))?;
        let secrets = settings
            .read_secrets()
            .map_err(|r| one_line(r.to_string()))?;
        let later = app
            .apply(&settings, &secrets)
            .map_err(|e| one_line(e.to_string()))?;
        for line in settings.warnings.iter().chain(&secrets.warnings) {
            tracing::warn!(line, "questionable setting");
        }
        self.watched = watched(&self.path, &settings);
        self.seen = fingerprint(&self.watched);
        Ok(later)
    }
}

fn watched(path: &Path, settings: &Settings) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    files.extend(settings.secret_files());
    files
}

/// Of the files' contents; a file that cannot be read counts as empty. Holds no secret: it is a hash
/// that never leaves the process.
fn fingerprint(files: &[PathBuf]) -> [u8; 32] {
    /// Longest part of a file that counts; settings and keys are far shorter.
    const BYTES_MAX: u64 = 1 << 21;
    let mut hasher = blake3::Hasher::new();
    for file in files {
        use std::io::Read as _;
        let mut content = zeroize::Zeroizing::new(Vec::new());
        if let Ok(file) = std::fs::File::open(file) {
            let _ = file.take(BYTES_MAX).read_to_end(&mut content);
        }
        hasher.update(&(content.len() as u64).to_le_bytes());
        hasher.update(&content);
    }
    *hasher.finalize().as_bytes()
}
