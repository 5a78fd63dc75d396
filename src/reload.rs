//! Takes over new settings while requests go on: read, check, build everything, swap. A bad file
//! changes nothing.
//!
//! A [`Reloader`] watches the settings file and the files of keys and certificates. It never reads
//! a file on a thread that serves requests. Each check, each reading and each building is a task of
//! its own on a thread for blocking work.
//!
//! ```text
//! every 200 ms ──▶ marks (stat) ──changed, settled──▶ fingerprint ──changed──▶ reload
//!                    │ no answer within 5 s                          read ▶ check ▶ build ▶ swap
//!                    └──▶ told once, given up, tried again; the settings in force stay
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_blocking};

use crate::app::App;
use crate::clock::{Duration, sleep, timeout};
use crate::config::{Secrets, Settings, SettingsAt};
use crate::secrets::READ_WAIT_MAX;
use crate::telemetry::EventLevel;

/// How often the files are checked without reading them. A rotation by file change takes effect
/// within about a second: one check notices it, and the next one that it is complete.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Files that change at every check are read after this many checks anyway.
const UNSETTLED_MAX: u32 = 10;
/// The files are read after this many checks, which is every five seconds, whatever their metadata.
/// A change within one tick of a file system's clock leaves no trace there.
const LOOKS_PER_READ: u32 = 25;
/// Maximum number of checks that hang at the same time. Each holds a thread, so no other is started
/// then.
const HUNG_MAX: usize = 4;

/// Watches the settings and the files of keys and certificates, and takes over their changes.
pub struct Reloader {
    at: SettingsAt,
    watched: Arc<[PathBuf]>,
    /// Hash of the contents.
    seen: [u8; 32],
    /// The metadata at the last check.
    marks: Vec<Mark>,
    /// Number of checks in a row with changed metadata.
    unsettled: u32,
    /// Number of checks since the files were read.
    unread: u32,
    level: Option<EventLevel>,
    /// Checks that were started and may still run.
    looks: Vec<AbortHandle>,
    /// Maximum time of one check.
    patience: Duration,
    /// Whether the last check was given up and an event has reported it.
    stalled: bool,
}

/// Metadata that shows a change of a file: device, inode, length, and when its content and its
/// entry changed, in seconds and nanoseconds. `None`: there is no file.
type Mark = Option<(u64, u64, u64, [i64; 4])>;

impl Reloader {
    /// Watches `path` and the key files that `settings` name. Checks them once, which blocks the
    /// thread.
    pub fn new(path: &Path, settings: &Settings) -> Self {
        Self::of(SettingsAt::File(path.to_owned()), settings)
    }

    /// Creates a reloader for settings that may come from standard input. Of these it watches only
    /// the files of keys and certificates.
    pub fn of(at: SettingsAt, settings: &Settings) -> Self {
        let watched = watched(&at, settings);
        Self {
            at,
            marks: marks(&watched),
            seen: fingerprint(&watched),
            watched,
            unsettled: 0,
            unread: 0,
            level: None,
            looks: Vec::new(),
            patience: READ_WAIT_MAX,
            stalled: false,
        }
    }

    /// Makes `level` follow `log.level`.
    pub fn with_level(mut self, level: EventLevel) -> Self {
        self.level = Some(level);
        self
    }

    /// Reloads whenever files have changed or a signal asks for it, for ever. Reports the states of
    /// a reload to the service manager with `notify`.
    pub async fn run(mut self, app: Arc<App>, mut asked: mpsc::Receiver<()>, notify: fn(&str)) {
        loop {
            tokio::select! {
                () = self.changed(&app) => {}
                Some(()) = asked.recv() => {}
            }
            notify("RELOADING=1");
            self.reload(&app).await;
            notify("READY=1");
        }
    }

    /// Returns when the content of a watched file has changed and was the same at the next check.
    /// So a file that is still being written, or half of a pair, gets the time of one check.
    pub async fn changed(&mut self, app: &App) {
        loop {
            sleep(LOOK_EVERY).await;
            let Some(marks) = self.look(app, marks).await else {
                continue;
            };
            if !self.is_worth_reading(marks) {
                continue;
            }
            if let Some(found) = self.look(app, fingerprint).await {
                // The metadata may come from a cache, but the contents come from the files.
                self.note_stalled(app, false);
                if found != self.seen {
                    return;
                }
            }
        }
    }

    /// Runs `look` on the watched files on a thread for blocking work. `None` if it does not
    /// return. If this future is dropped, the check continues and counts until it ends.
    async fn look<T: Send + 'static>(
        &mut self,
        app: &App,
        look: impl FnOnce(&[PathBuf]) -> T + Send + 'static,
    ) -> Option<T> {
        self.looks.retain(|look| !look.is_finished());
        if self.looks.len() >= HUNG_MAX {
            return None;
        }
        let watched = self.watched.clone();
        let task = spawn_blocking(move || look(&watched));
        self.looks.push(task.abort_handle());
        let found = timeout(self.patience, task).await.ok().and_then(Result::ok);
        if found.is_none() {
            self.note_stalled(app, true);
        }
        found
    }

    fn note_stalled(&mut self, app: &App, stalled: bool) {
        if std::mem::replace(&mut self.stalled, stalled) == stalled {
            return;
        }
        app.metrics().state.files_stalled.set(i64::from(stalled));
        if stalled {
            tracing::error!(
                within_s = self.patience.as_secs(),
                "files of settings, keys or certificates cannot be read in time; the settings in force stay"
            );
        } else {
            tracing::info!("files of settings, keys and certificates can be read again");
        }
    }

    /// Returns whether the metadata of a check is a reason to read the files.
    fn is_worth_reading(&mut self, marks: Vec<Mark>) -> bool {
        self.unread += 1;
        if self.stalled {
            return true;
        }
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

    /// Takes the settings over. If that fails, changes nothing and logs the reason in one line.
    pub async fn reload(&mut self, app: &Arc<App>) {
        let applied = self.try_reload(app).await;
        app.note_reload(&applied);
        match applied {
            Ok(later) => {
                tracing::info!("settings reloaded");
                for line in later {
                    tracing::warn!(line, "a change was not applied");
                }
            }
            Err(why) => tracing::error!(
                why,
                "the new settings were rejected; the old ones stay in force"
            ),
        }
    }

    async fn try_reload(&mut self, app: &Arc<App>) -> Result<Vec<String>, String> {
        // The hash is taken before the files are read. A change in between is noticed at the next
        // check.
        let Some(seen) = self.look(app, fingerprint).await else {
            // No file has this hash, so the files are taken over once they can be read again.
            self.seen = [0; 32];
            return Err("the watched files cannot be read in time".to_owned());
        };
        self.seen = seen;
        let settings = self.at.file().map(Path::to_owned);
        let no_file = move |files: &[PathBuf]| no_file(files, settings.as_deref());
        if let Some(Some(odd)) = self.look(app, no_file).await {
            return Err(odd);
        }
        let at = self.at.clone();
        let (settings, secrets) = blocking(move || read(&at)).await?;
        let theirs = app.clone();
        let applied = move || {
            let later = theirs.apply(&settings, &secrets);
            later
                .map(|later| (later, settings, secrets.warnings))
                .map_err(|why| one_line(&why))
        };
        let (later, settings, warnings) = blocking(applied).await?;
        if let Some(level) = &self.level {
            // The word was checked as a setting, so this only fails if nothing logs any more.
            if let Err(why) = level.set(settings.log.level.as_str()) {
                tracing::error!(why, "log.level could not be changed");
            }
        }
        for line in settings.warnings.iter().chain(&warnings) {
            tracing::warn!(line, "questionable setting");
        }
        self.watched = watched(&self.at, &settings);
        // The metadata is read before the contents. A change in between shows as new metadata at
        // the next check.
        let looked = |files: &[PathBuf]| (marks(files), fingerprint(files));
        if let Some((marks, seen)) = self.look(app, looked).await {
            (self.marks, self.seen) = (marks, seen);
        }
        Ok(later)
    }
}

/// Runs `work` on a thread for blocking work. It must end by itself.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err("the reload failed; the log names the place".to_owned()))
}

fn one_line(why: &impl ToString) -> String {
    why.to_string().lines().collect::<Vec<_>>().join("; ")
}

/// Reads settings and secrets. Gives up on files that do not respond.
fn read(at: &SettingsAt) -> Result<(Settings, Secrets), String> {
    let settings = at.load().map_err(|why| one_line(&why))?;
    let secrets = settings.read_secrets().map_err(|why| one_line(&why))?;
    Ok((settings, secrets))
}

fn watched(at: &SettingsAt, settings: &Settings) -> Arc<[PathBuf]> {
    let mut files: Vec<_> = at.file().map(Path::to_owned).into_iter().collect();
    files.extend(settings.secret_files());
    files.into()
}

/// Returns whether the path is a file, through links. Reading a pipe would wait for a writer.
fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.is_file())
}

/// Returns an error text for the first path that is not a file. A pipe can be read once, at the
/// start.
fn no_file(files: &[PathBuf], settings: Option<&Path>) -> Option<String> {
    let odd = files.iter().find(|path| path.exists() && !is_file(path))?;
    // A relative path may be a secret that was written where its file belongs.
    let is_settings = settings == Some(odd.as_path());
    let name = match is_settings || odd.is_absolute() {
        true => odd.display().to_string(),
        false => "the file of a key or certificate".to_owned(),
    };
    Some(format!(
        "{name}: is not a regular file; a running gateway reads regular files only"
    ))
}

/// Returns the metadata of the files, through links.
fn marks(files: &[PathBuf]) -> Vec<Mark> {
    use std::os::unix::fs::MetadataExt as _;
    let mark = |file: &PathBuf| {
        let of = std::fs::metadata(file).ok()?;
        let times = [of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()];
        Some((of.dev(), of.ino(), of.size(), times))
    };
    files.iter().map(mark).collect()
}

/// Returns a hash of the files' contents. A file that cannot be read counts as empty. The hash
/// reveals no secret, and never leaves the process.
fn fingerprint(files: &[PathBuf]) -> [u8; 32] {
    /// Maximum bytes of a file that count. Settings and keys are far shorter.
    const BYTES_MAX: u64 = 1 << 21;
    let mut hasher = blake3::Hasher::new();
    for file in files {
        use std::io::Read as _;
        let mut content = zeroize::Zeroizing::new(Vec::new());
        let readable = is_file(file);
        if readable && let Ok(file) = std::fs::File::open(file) {
            let _ = file.take(BYTES_MAX).read_to_end(&mut content);
        }
        hasher.update(&[u8::from(readable)]);
        hasher.update(&(content.len() as u64).to_le_bytes());
        hasher.update(&content);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config;
    use crate::metrics::Metrics;
    use crate::telemetry::LogSink;

    fn app(settings: &Settings) -> Arc<App> {
        let text = "auth.mode = \"open\"\nwiv.api_key_env = \"PATH\"\n";
        let secrets = config::from_text("c", text, [])
            .unwrap()
            .read_secrets()
            .unwrap();
        let metrics = Metrics::new().unwrap();
        App::build(settings, &secrets, LogSink::off(), Clock::system(), metrics).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_without_a_mark_is_found_by_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "[log]\n").unwrap();
        let text = "[auth]\nmode = \"open\"\n[wiv]\napi_key_env = \"UNUSED\"\n";
        let settings = config::from_text("config.toml", text, []).unwrap();
        let app = app(&settings);
        let mut reloader = Reloader::new(&path, &settings);
        std::fs::write(&path, "[cors]\n").unwrap();
        // As after two writes within one tick of the file system's clock.
        reloader.marks = marks(&reloader.watched);
        let begun = crate::clock::Instant::now();
        reloader.changed(&app).await;
        let took = crate::clock::Instant::now().saturating_duration_since(begun);
        assert_eq!(took, LOOK_EVERY * LOOKS_PER_READ);
    }

    #[tokio::test]
    async fn looks_that_hang_are_told_once_given_up_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "auth.mode = \"open\"\nwiv.api_key_env = \"PATH\"\n").unwrap();
        let settings = config::load(Some(&path)).unwrap();
        let app = app(&settings);
        let mut reloader = Reloader::new(&path, &settings);
        reloader.patience = Duration::from_millis(5);
        let stalled = || app.metrics().state.files_stalled.get();
        let mut releases = Vec::new();
        for begun in 0..HUNG_MAX + 2 {
            let (release, held) = std::sync::mpsc::channel::<()>();
            releases.push(release);
            let found = reloader.look(&app, move |_| held.recv().is_ok()).await;
            assert_eq!(found, None);
            assert_eq!(reloader.looks.len(), HUNG_MAX.min(begun + 1));
            assert_eq!(stalled(), 1);
        }
        // The mount is back: the checks return, others are started, and the change is noticed.
        drop(releases);
        reloader.patience = Duration::from_secs(30);
        std::fs::write(&path, "auth.mode = \"open\"\n[log]\nlevel = \"warn\"\n").unwrap();
        reloader.changed(&app).await;
        assert_eq!(stalled(), 0);
    }
}
