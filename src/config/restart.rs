//! The settings that are read only at the start.

/// The settings that a reload does not take over, each a setting or a whole table. `config.toml`
/// marks them, `check` and the console show them, and a test changes every setting and compares
/// what the gateway says of it with this list.
pub const NEEDS_RESTART: [&str; 17] = [
    "listen.public",
    "listen.admin",
    "limits.header_timeout",
    "limits.idle_timeout",
    "limits.write_stall_timeout",
    "limits.connections_max",
    "limits.connections_per_peer_max",
    "limits.drain_delay",
    "limits.drain_grace",
    "cache.bytes_max",
    "console.history_bytes_max",
    "changes.bytes_max",
    "store",
    // The account behind a vendor's keys is part of what is remembered.
    "wiv.credential",
    "nable.account_id",
    "nable.account_id_env",
    "nable.account_id_file",
];

/// Returns whether a change of the setting at this path needs a restart.
pub fn needs_restart(path: &str) -> bool {
    NEEDS_RESTART.iter().any(|name| {
        path.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}
