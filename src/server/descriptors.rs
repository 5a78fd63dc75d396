//! File descriptors: each connection takes one, and the system limits their number.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Callers' connections get one in this many descriptors, which is half. The rest is for
/// connections to vendors, the admin listener, files read at a reload, and libraries. Without a
/// descriptor for these, the gateway would fail as a whole.
const SHARE_OF_CALLERS: u64 = 2;

/// Bodies kept as files get one in this many descriptors. The gateway can do without them.
const SHARE_OF_FILES: u64 = 8;

/// Returns how many bodies may be kept as files.
pub fn room_for_files() -> usize {
    let soft = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(soft / SHARE_OF_FILES).unwrap_or(usize::MAX)
}

/// Returns how many of the `wanted` connections there are descriptors for. Raises the soft limit as
/// far as needed and as the hard limit allows.
pub fn room_for(wanted: usize) -> usize {
    let needed = u64::try_from(wanted)
        .unwrap_or(u64::MAX)
        .saturating_mul(SHARE_OF_CALLERS);
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let mut soft = limit.current.unwrap_or(u64::MAX);
    if soft < needed && soft < hard {
        let raised = Rlimit {
            current: Some(needed.min(hard)),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => soft = needed.min(hard),
            Err(why) => tracing::warn!(%why, "the limit on open files could not be raised"),
        }
    }
    let room = room(wanted, soft);
    if room < wanted {
        tracing::warn!(
            setting = "limits.connections_max",
            wanted,
            room,
            open_files = soft,
            "limits.connections_max is lowered to half of the limit on open files"
        );
    }
    room
}

fn room(wanted: usize, soft: u64) -> usize {
    let share = usize::try_from(soft / SHARE_OF_CALLERS).unwrap_or(usize::MAX);
    wanted.min(share).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_get_half_of_the_descriptors() {
        assert_eq!(room(4096, 1_048_576), 4096);
        assert_eq!(room(4096, 8192), 4096);
        assert_eq!(room(4096, 1024), 512);
        assert_eq!(room(4096, 256), 128);
        assert_eq!(room(4096, 1), 1);
        assert_eq!(room(10, u64::MAX), 10);
    }
}
