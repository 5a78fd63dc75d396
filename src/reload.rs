//! New settings while requests go on: read, check, build whole, swap. A bad file changes nothing.
//!
//! A [`Reloader`] looks at the settings file and at the files of keys and certificates. Nothing here
//! reads a file on a thread that serves requests: each look, each reading and each building is a task
//! of its own on a thread for blocking work.
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
use crate::config::{self, Secrets, Settings};
use crate::secrets::READ_WAIT_MAX;
use crate::telemetry::EventLevel;

/// How often the files are looked at, by what the system says of them without reading them. A rotation
/// by file change takes effect within about a second: one look sees it, the next that it is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Files that change at every look are read after so many all the same.
const UNSETTLED_MAX: u32 = 10;
/// Every so many looks, every five seconds, the files are read whatever the system says of them: a
/// change within one tick of a file system's clock leaves no mark.
const LOOKS_PER_READ: u32 = 25;
/// Looks that may hang at once. While so many do, no other is begun: each holds a thread.
const HUNG_MAX: usize = 4;

/// Watches the settings and the files of keys and certificates, and takes them over when they change.
pub struct Reloader {
    path: PathBuf,
    watched: Arc<[PathBuf]>,
    /// Hash of the contents.
    seen: [u8; 32],
    /// What the system last said of the files.
    marks: Vec<Mark>,
    /// Looks in a row at which the marks were others than before.
    unsettled: u32,
    /// Looks since the files were read.
    unread: u32,
    level: Option<EventLevel>,
    /// Looks that have begun and perhaps not ended.
    looks: Vec<AbortHandle>,
    /// How long one look may take.
    patience: Duration,
    /// The last look was given up, and an event has said so.
    stalled: bool,
}

/// What tells a changed file without reading it: device, inode, length, and when its content and its
/// entry changed, in seconds and nanoseconds. `None`: not there.
type Mark = Option<(u64, u64, u64, [i64; 4])>;

impl Reloader {
    /// Watches `path` and the key files that `settings` name. Looks at them once; blocks the thread.
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
            looks: Vec::new(),
            patience: READ_WAIT_MAX,
            stalled: false,
        }
    }

    /// Returns the same, and `level` follows `log.level`.
    pub fn with_level(mut self, level: EventLevel) -> Self {
        self.level = Some(level);
        self
    }

    /// Reloads whenever files have changed or somebody asks for it, without an end. Tells the states
    /// of a service manager to `notify`.
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

    /// Returns when the content of a watched file has changed, and the next look found it the same: a
    /// file that is still being written, or half of a pair, is given the time of a look.
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
                // Marks may come from memory, contents come from the files.
                self.note_stalled(app, false);
                if found != self.seen {
                    return;
                }
            }
        }
    }

    /// Has `look` look at the watched files on a thread for blocking work. `None`: it does not end.
    /// Dropped, it leaves a look behind that counts until it ends.
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
                "files of settings, keys or certificates do not answer; the settings in force stay"
            );
        } else {
            tracing::info!("files of settings, keys and certificates answer again");
        }
    }

    /// Whether the marks of one look are reason to read the files.
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

    /// Takes the settings over, or changes nothing and says why in one log line.
    pub async fn reload(&mut self, app: &Arc<App>) {
        let applied = self.try_reload(app).await;
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

    async fn try_reload(&mut self, app: &Arc<App>) -> Result<Vec<String>, String> {
        // Seen before they are read: a change in between is seen at the next look.
        let Some(seen) = self.look(app, fingerprint).await else {
            // No file has this hash, so they are taken over once they answer again.
            self.seen = [0; 32];
            return Err("the files that are watched do not answer".to_owned());
        };
        self.seen = seen;
        if let Some(Some(odd)) = self.look(app, no_file).await {
            return Err(odd);
        }
        let path = self.path.clone();
        let (settings, secrets) = blocking(move || read(&path)).await?;
        let theirs = app.clone();
        let applied = move || {
            let later = theirs.apply(&settings, &secrets);
            later
                .map(|later| (later, settings, secrets.warnings))
                .map_err(|why| one_line(&why))
        };
        let (later, settings, warnings) = blocking(applied).await?;
        if let Some(level) = &self.level {
            // The word was checked as a setting, so this fails only where nothing logs any more.
            if let Err(why) = level.set(settings.log.level.as_str()) {
                tracing::error!(why, "log.level could not be changed");
            }
        }
        for line in settings.warnings.iter().chain(&warnings) {
            tracing::warn!(line, "questionable setting");
        }
        self.watched = watched(&self.path, &settings);
        // Before the contents: what changes in between is a new mark at the next look.
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

/// Settings and secrets. Files that do not answer are given up.
fn read(path: &Path) -> Result<(Settings, Secrets), String> {
    let settings = config::load(Some(path)).map_err(|why| one_line(&why))?;
    let secrets = settings.read_secrets().map_err(|why| one_line(&why))?;
    Ok((settings, secrets))
}

fn watched(path: &Path, settings: &Settings) -> Arc<[PathBuf]> {
    let mut files = vec![path.to_owned()];
    files.extend(settings.secret_files());
    files.into()
}

/// Whether there is a file to read, through links. A pipe would wait for a writer.
fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.is_file())
}

/// Says of the first path at which there is something else than a file that it is none. A pipe can be
/// read once, at the start.
fn no_file(files: &[PathBuf]) -> Option<String> {
    let odd = files.iter().find(|path| path.exists() && !is_file(path))?;
    // A relative one may be a secret that was written where its file belongs.
    let settings = files.first() == Some(odd);
    let name = match settings || odd.is_absolute() {
        true => odd.display().to_string(),
        false => "a file of a key or certificate".to_owned(),
    };
    Some(format!(
        "{name}: is no regular file; while the gateway runs, others are not read"
    ))
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
        // The mount is there again: the looks end, others are begun, and the change is seen.
        drop(releases);
        reloader.patience = Duration::from_secs(30);
        std::fs::write(&path, "auth.mode = \"open\"\n[log]\nlevel = \"warn\"\n").unwrap();
        reloader.changed(&app).await;
        assert_eq!(stalled(), 0);
    }
}
