//! What a reload cannot take over, and says so.

use crate::config::{CacheSettings, ChangesSettings, ConsoleSettings, Settings, StoreSettings};
use crate::server::ServerOptions;

/// The settings that are taken at the start and stay.
pub(super) struct FixedSettings {
    server: ServerOptions,
    cache: CacheSettings,
    changes: ChangesSettings,
    console: ConsoleSettings,
    store: StoreSettings,
}

impl FixedSettings {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            server: settings.server.clone(),
            cache: settings.cache,
            changes: settings.changes,
            console: settings.console,
            store: settings.store.clone(),
        }
    }
}

/// Returns whether both listeners can be reached from this machine only.
pub(super) fn is_loopback(server: &ServerOptions) -> bool {
    server.public.ip().is_loopback() && server.admin.ip().is_loopback()
}

/// Adds a line for each setting that is another now and needs a restart.
pub(super) fn needed(fixed: &FixedSettings, now: &Settings, later: &mut Vec<String>) {
    let changed = changes(fixed, now)
        .into_iter()
        .filter(|(_, changed)| *changed);
    later.extend(changed.map(|(setting, _)| format!("{setting}: a change needs a restart")));
}

/// Returns the setting, or the table of settings, that a line about a restart begins with.
pub(super) fn subject(line: &str) -> &str {
    line.split(':').next().unwrap_or(line)
}

/// Returns whether `path` is a setting that `name` means.
pub(super) fn is_part_of(path: &str, name: &str) -> bool {
    path.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Each setting that needs a restart, and whether it is another now.
fn changes(fixed: &FixedSettings, now: &Settings) -> Vec<(&'static str, bool)> {
    // Named in full, so that a new option is either here or known to be taken over.
    let ServerOptions {
        public,
        admin,
        // What is in them is taken over; see `App::apply`.
        public_tls,
        admin_tls,
        header_timeout,
        // These are part of the stack, which a reload rebuilds.
        body_timeout: _,
        request_timeout: _,
        requests_in_flight_max: _,
        exports_max: _,
        followers_max: _,
        admin_hosts: _,
        docs: _,
        idle_timeout,
        write_stall_timeout,
        connections_max,
        connections_per_peer_max,
        drain_delay,
        drain_grace,
    } = &fixed.server;
    let server = &now.server;
    vec![
        ("listen.public", *public != server.public),
        ("listen.admin", *admin != server.admin),
        (
            "listen.public_tls: TLS on or off",
            public_tls.is_some() != server.public_tls.is_some(),
        ),
        (
            "listen.admin_tls: TLS on or off",
            admin_tls.is_some() != server.admin_tls.is_some(),
        ),
        (
            "limits.header_timeout",
            *header_timeout != server.header_timeout,
        ),
        ("limits.idle_timeout", *idle_timeout != server.idle_timeout),
        (
            "limits.write_stall_timeout",
            *write_stall_timeout != server.write_stall_timeout,
        ),
        (
            "limits.connections_max",
            *connections_max != server.connections_max,
        ),
        (
            "limits.connections_per_peer_max",
            *connections_per_peer_max != server.connections_per_peer_max,
        ),
        ("limits.drain_delay", *drain_delay != server.drain_delay),
        ("limits.drain_grace", *drain_grace != server.drain_grace),
        (
            "cache.bytes_max",
            fixed.cache.bytes_max != now.cache.bytes_max,
        ),
        (
            "changes.bytes_max",
            fixed.changes.bytes_max != now.changes.bytes_max,
        ),
        ("console.history_bytes_max", fixed.console != now.console),
        ("store", fixed.store != now.store),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, needs_restart};

    const SHARED: &str = r#"
[listen]
public = "127.0.0.1:0"
admin = "127.0.0.1:0"
[auth]
mode = "open"
[wiv]
base_url = "http://127.0.0.1:7070"
api_key_env = "PATH"
[store]
kind = "valkey"
[store.valkey]
addresses = ["127.0.0.1:6379"]
password_env = "PATH"
"#;

    fn read(text: &str) -> Settings {
        config::from_text("c", text, Vec::new()).unwrap()
    }

    #[test]
    fn each_setting_of_a_shared_store_needs_a_restart() {
        let before = read(SHARED);
        for (setting, line) in [
            ("addresses", "addresses = [\"127.0.0.1:6380\"]"),
            ("tls", "tls = true"),
            ("ca_file", "ca_file = \"ca.pem\""),
            ("username", "username = \"gateway\""),
            ("password_env", "password_env = \"HOME\""),
            ("prefix", "prefix = \"other\""),
            ("timeout", "timeout = \"70ms\""),
            ("lease", "lease = \"7s\""),
            ("replicas_min", "replicas_min = 3"),
            ("when_away", "when_away = \"closed\""),
        ] {
            let begin = format!("{setting} =");
            let kept = SHARED.lines().filter(|text| !text.starts_with(&begin));
            let text = kept.chain([line]).collect::<Vec<_>>().join("\n");
            let mut later = Vec::new();
            needed(&FixedSettings::of(&before), &read(&text), &mut later);
            assert_eq!(later, ["store: a change needs a restart"], "{setting}");
            assert!(needs_restart(&format!("store.valkey.{setting}")));
        }
        let mut later = Vec::new();
        needed(&FixedSettings::of(&before), &read(SHARED), &mut later);
        assert_eq!(later, Vec::<String>::new());
    }
}
