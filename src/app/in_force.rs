//! The settings in force as operators see them, and the outcome of the last reload.

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::restart::{is_part_of, subject};
use crate::config::{ShownSetting, needs_restart};

/// Maximum length of the reason of a refused reload, in bytes. A file with fifty problems has a
/// line for each.
const WHY_BYTES_MAX: usize = 16 * 1024;

/// The settings as they are shown.
pub(super) struct InForce {
    state: Mutex<ShownState>,
}

struct ShownState {
    settings: Vec<InForceSetting>,
    last_reload: Option<LastReload>,
}

struct InForceSetting {
    shown: ShownSetting,
    /// The value in the file, if it waits for a restart.
    waiting: Option<String>,
}

struct LastReload {
    at: Timestamp,
    /// The settings that were not taken over, or the reason why none was.
    ended: Result<Vec<String>, String>,
}

impl InForce {
    pub(super) fn new(settings: Vec<ShownSetting>) -> Self {
        let state = ShownState {
            settings: in_force(settings),
            last_reload: None,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Takes over the settings of a reload. Those named in `later` stay as they were and wait.
    pub(super) fn replace(&self, settings: Vec<ShownSetting>, later: &[String]) {
        let mut state = self.state.lock();
        let waits = |path: &str| later.iter().any(|line| is_part_of(path, subject(line)));
        let mut new = in_force(settings);
        for setting in new.iter_mut().filter(|s| waits(&s.shown.path)) {
            let mut old = state.settings.iter();
            let Some(old) = old.find(|old| old.shown.path == setting.shown.path) else {
                continue;
            };
            if old.shown.value != setting.shown.value {
                let now = std::mem::replace(&mut setting.shown, old.shown.clone());
                setting.waiting = Some(now.value);
            }
        }
        state.settings = new;
    }

    /// Records the outcome of a reload: the settings that were not taken over, or the reason why
    /// none was.
    pub(super) fn reloaded(&self, at: Timestamp, ended: &Result<Vec<String>, String>) {
        let ended = ended.clone().map_err(|why| {
            let mut end = why.len().min(WHY_BYTES_MAX);
            while !why.is_char_boundary(end) {
                end -= 1;
            }
            why.get(..end).unwrap_or_default().to_owned()
        });
        self.state.lock().last_reload = Some(LastReload { at, ended });
    }

    pub(super) fn json(&self) -> Value {
        let state = self.state.lock();
        let settings: Vec<Value> = state
            .settings
            .iter()
            .map(|InForceSetting { shown, waiting }| {
                json!({
                    "setting": shown.path,
                    "value": shown.value,
                    "source": shown.origin,
                    "needs_restart": needs_restart(&shown.path),
                    "waiting": waiting,
                })
            })
            .collect();
        let last_reload = state.last_reload.as_ref().map(|LastReload { at, ended }| {
            json!({
                "time": format!("{at:.3}"),
                "outcome": if ended.is_ok() { "applied" } else { "refused" },
                "why": ended.as_ref().err(),
                "not_taken": ended.as_ref().ok(),
            })
        });
        json!({"settings": settings, "last_reload": last_reload})
    }
}

fn in_force(settings: Vec<ShownSetting>) -> Vec<InForceSetting> {
    let one = |shown| InForceSetting {
        shown,
        waiting: None,
    };
    settings.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(path: &str, value: &str) -> ShownSetting {
        ShownSetting {
            path: path.to_owned(),
            value: value.to_owned(),
            origin: "default".to_owned(),
        }
    }

    #[test]
    fn what_waits_for_a_restart_is_shown_beside_what_is_in_force() {
        let before = vec![
            setting("wiv.timeout", "1"),
            setting("store.kind", "1"),
            setting("stores", "1"),
        ];
        let in_force = InForce::new(before);
        assert_eq!(in_force.json()["last_reload"], Value::Null);
        let now = vec![
            setting("wiv.timeout", "2"),
            setting("store.kind", "2"),
            setting("stores", "2"),
        ];
        let later = vec!["store: a change needs a restart".to_owned()];
        in_force.replace(now, &later);
        in_force.reloaded(Timestamp::UNIX_EPOCH, &Ok(later));
        let shown = in_force.json();
        let of = |at: usize| {
            let one = &shown["settings"][at];
            (
                one["value"].as_str(),
                one["waiting"].as_str(),
                one["needs_restart"].as_bool(),
            )
        };
        assert_eq!(of(0), (Some("2"), None, Some(false)));
        assert_eq!(of(1), (Some("1"), Some("2"), Some(true)));
        assert_eq!(of(2), (Some("2"), None, Some(false)));
        assert_eq!(shown["last_reload"]["outcome"], "applied");
        in_force.reloaded(Timestamp::UNIX_EPOCH, &Err("ü".repeat(WHY_BYTES_MAX)));
        let shown = in_force.json();
        assert_eq!(shown["last_reload"]["outcome"], "refused");
        assert_eq!(
            shown["last_reload"]["why"].as_str().map(str::len),
            Some(WHY_BYTES_MAX)
        );
    }
}
