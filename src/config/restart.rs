//! The settings that are read only at the start.

use crate::domain::Vendor;

/// The settings that a reload does not take over, each a setting or a whole table. [`ACCOUNT`] are
/// further ones. `config.toml` marks them, `check` and the console show them, and a test changes
/// every setting and compares what the gateway says of it with this list.
pub(super) const NEEDS_RESTART: [&str; 13] = [
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
];

/// The settings in each vendor's table that name the account behind its keys. The account is part
/// of what is remembered.
const ACCOUNT: [&str; 4] = [
    "credential",
    "account_id",
    "account_id_env",
    "account_id_file",
];

/// Returns whether a change of the setting at this path needs a restart.
pub fn needs_restart(path: &str) -> bool {
    let listed = NEEDS_RESTART.iter().any(|name| {
        path.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    let names_account = |(table, setting): (&str, &str)| {
        ACCOUNT.contains(&setting) && Vendor::ALL.iter().any(|vendor| vendor.as_str() == table)
    };
    listed || path.split_once('.').is_some_and(names_account)
}
