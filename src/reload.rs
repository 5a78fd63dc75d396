//! New settings while requests go on: read, check, build whole, swap. A bad file changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::App;
use crate::clock::{Duration, sleep};
use crate::config::{self, Settings};
use crate::telemetry::EventLevel;

/// How often the files are looked at, by what the system says of them without reading them. A rotation
/// by file change takes effect within about a second: one look sees it, the next that it is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Files that change at every look are read after so many all the same.
const UNSETTLED_MAX: u32 = 10;
/// Every so many looks, every five seconds, the files are read whatever the system says of them: a
/// change within one tick of a file system's clock leaves no mark.
const LOOKS_PER_READ: u32 = 25;

/// Watches the settings and the files of keys and certificates, and takes them over when they change.
pub struct Reloader {
    path: PathBuf,
    watched: Vec<PathBuf>,
    /// Hash of the contents.
    seen: [u8; 32],
    /// What the system last said of the files.
    marks: Vec<Mark>,
    /// Looks in a row at which the marks were others than before.
    unsettled: u32,
    /// Looks since the files were read.
    unread: u32,
    level: Option<EventLevel>,
}

/// What tells a changed file without reading it: device, inode, length, and when its content and its
/// entry changed, in seconds and nanoseconds. `None`: not there.
type Mark = Option<(u64, u64, u64, [i64; 4])>;

impl Reloader {
    /// Watches `path` and the key files that `settings` name.
    pub fn new(path: &Path, settings: &Settings) -> Self {
        let watched = watched(path, settings);
        Self {
            path: path.to_owned(),
            marks: marks(&watched),
            seen: fingerprint(&watched),
            watched,
            unsettled: 0,
            unread: 0,
            level: None,
        }
    }

    /// The same, and `level` follows `log.level`.
    pub fn with_level(mut self, level: EventLevel) -> Self {
        self.level = Some(level);
        self
    }

    /// Returns when the content of a watched file has changed, and the next look found it the same: a
    /// file that is still being written, or half of a pair, is given the time of a look.
    pub async fn changed(&mut self) {
        loop {
            sleep(LOOK_EVERY).await;
            if self.is_worth_reading() && fingerprint(&self.watched) != self.seen {
                return;
            }
        }
    }

    /// One look.
    fn is_worth_reading(&mut self) -> bool {
        let marks = marks(&self.watched);
        self.unread += 1;
        if marks != self.marks {
            self.marks = marks;
            self.unsettled += 1;
            if self.unsettled < UNSETTLED_MAX {
                return false;
            }
        } else if self.unsettled == 0 && self.unread < LOOKS_PER_READ {
            return false;
        }
        (self.unsettled, self.unread) = (0, 0);
        true
    }

    /// Takes the settings over, or changes nothing and says why in one log line.
    pub fn reload(&mut self, app: &Arc<App>) {
        // Seen before it is read: a change in between is seen at the next look.
        self.seen = fingerprint(&self.watched);
        let applied = self.try_reload(app);
        app.note_reload(&applied);
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
        if let Some(level) = &self.level {
            // The word was checked as a setting, so this fails only where nothing logs any more.
            if let Err(why) = level.set(settings.log.level.as_str()) {
                tracing::error!(why, "log.level could not be changed");
            }
        }
        for line in settings.warnings.iter().chain(&secrets.warnings) {
            tracing::warn!(line, "questionable setting");
        }
        self.watched = watched(&self.path, &settings);
        // Before the contents: what changes in between is a new mark at the next look.
        self.marks = marks(&self.watched);
        self.seen = fingerprint(&self.watched);
        Ok(later)
    }
}

fn watched(path: &Path, settings: &Settings) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    files.extend(settings.secret_files());
    files
}

/// Of the files, through links.
fn marks(files: &[PathBuf]) -> Vec<Mark> {
    use std::os::unix::fs::MetadataExt as _;
    let mark = |file: &PathBuf| {
        let of = std::fs::metadata(file).ok()?;
        let times = [of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()];
        Some((of.dev(), of.ino(), of.size(), times))
    };
    files.iter().map(mark).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_without_a_mark_is_found_by_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "[log]\n").unwrap();
        let text = "[auth]\nmode = \"open\"\n[wiv]\napi_key_env = \"UNUSED\"\n";
        let settings = config::from_text("config.toml", text, []).unwrap();
        let mut reloader = Reloader::new(&path, &settings);
        std::fs::write(&path, "[cors]\n").unwrap();
        // As after two writes within one tick of the file system's clock.
        reloader.marks = marks(&reloader.watched);
        let begun = crate::clock::Instant::now();
        reloader.changed().await;
        let took = crate::clock::Instant::now().saturating_duration_since(begun);
        assert_eq!(took, LOOK_EVERY * LOOKS_PER_READ);
    }
}
