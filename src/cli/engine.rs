//! The shared store of `msp-gateway demo --replicas`: a Valkey or Redis of its own on loopback.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use tokio::net::{TcpListener, TcpStream};

use crate::clock::{Clock, Duration, sleep};
use crate::secrets::Secret;

/// The programs that can do it, the preferred one first.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];
/// How long it may take to accept the first connection.
const START_MAX: Duration = Duration::from_secs(5);
/// Pause between two attempts to connect.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);
/// Its memory. The demo's lists take a few MiB.
const MEMORY: &str = "256mb";

/// Runs the server and ends it when standard input ends. That happens when this process ends in any
/// way, a SIGKILL included, because the other end of the pipe is here. The first lines are the
/// server's settings, up to an empty one.
const WATCHED: &str = "\
settings=
while IFS= read -r line && [ -n \"$line\" ]; do settings=\"$settings$line
\"; done
exec 3<&0
printf %s \"$settings\" | \"$0\" - 3<&- &
server=$!
{ read -r line <&3; kill -KILL $server; } 2>/dev/null &
watcher=$!
exec 3<&-
wait $server
kill -KILL $watcher 2>/dev/null
";

/// A server that runs until this is dropped, or until this process ends.
pub(super) struct SharedEngine {
    /// The shell that runs the server.
    child: Child,
    /// The server runs until this is closed.
    leash: Option<ChildStdin>,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// The password of its default user, so that no other user of this machine can read it.
    pub(super) password: Secret,
    program: PathBuf,
}

impl SharedEngine {
    /// Starts the first of the known programs that is on the path. Its files are in `directory`.
    ///
    /// # Errors
    /// Returns one line that says how to get a server, or why it did not start.
    pub(super) async fn start(directory: &Path, clock: &Clock) -> Result<Self, String> {
        let path = env::var_os("PATH").unwrap_or_default();
        let program = find_program(&path).ok_or_else(|| {
            format!(
                "--replicas needs {} or {} on the path, and neither is there; install one, for \
                 example with: apt-get install redis-server",
                PROGRAMS[0], PROGRAMS[1]
            )
        })?;
        let name = program.display();
        let address = free_port().await.map_err(|why| format!("{name}: {why}"))?;
        let key = super::caller::new_key().ok_or("the system gives no random bytes")?;
        let password = Secret::parse(&key).map_err(|_| "the new password is no password")?;
        let log = directory.join("engine.log");
        let (child, leash) = spawn(&program, address, &key, directory, &log)
            .map_err(|why| format!("{name} cannot be started: {why}"))?;
        let mut this = Self {
            child,
            leash,
            address,
            password,
            program,
        };
        this.until_ready(&log, clock).await?;
        Ok(this)
    }

    /// Waits until it accepts connections.
    async fn until_ready(&mut self, log: &Path, clock: &Clock) -> Result<(), String> {
        let until = clock.now() + START_MAX;
        loop {
            if TcpStream::connect(self.address).await.is_ok() {
                return Ok(());
            }
            let ended = matches!(self.child.try_wait(), Ok(Some(_)) | Err(_));
            if ended || clock.now() >= until {
                let said = fs::read_to_string(log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("nothing");
                return Err(format!(
                    "{} did not start; it said: {last}",
                    self.program.display()
                ));
            }
            sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// Names the program and its address.
    pub(super) fn shown(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        format!("{} at {}, until Ctrl-C", name.display(), self.address)
    }
}

impl Drop for SharedEngine {
    fn drop(&mut self) {
        // The server is killed. It keeps nothing on disk, so nothing is lost.
        drop(self.leash.take());
        // It may have ended already.
        let _ = self.child.wait();
    }
}

/// Returns the first known program in the directories of `path`.
fn find_program(path: &std::ffi::OsStr) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    PROGRAMS.iter().find_map(|name| {
        env::split_paths(path)
            .map(|directory| directory.join(name))
            .find(is_program)
    })
}

/// Returns a loopback address whose port is free now.
async fn free_port() -> std::io::Result<SocketAddr> {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    TcpListener::bind(any).await?.local_addr()
}

/// Starts `program`, and returns the pipe that keeps it running. Its settings go to standard input,
/// because other users of this machine can read its arguments.
fn spawn(
    program: &Path,
    address: SocketAddr,
    password: &str,
    directory: &Path,
    log: &Path,
) -> std::io::Result<(Child, Option<ChildStdin>)> {
    let log = File::create(log)?;
    let mut child = Command::new("sh")
        .args(["-c", WATCHED])
        .arg(program)
        .current_dir(directory)
        // Ctrl-C reaches the whole group of a terminal, and the gateways must leave before it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let settings = format!(
        "bind {}\nport {}\nrequirepass {password}\nsave \"\"\nappendonly no\n\
         maxmemory {MEMORY}\nmaxmemory-policy volatile-ttl\n\n",
        address.ip(),
        address.port()
    );
    let mut leash = child.stdin.take();
    if let Some(input) = &mut leash {
        // A server that ended at once is reported by the wait that follows.
        let _ = input.write_all(settings.as_bytes());
    }
    Ok((child, leash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_program_is_found_where_it_can_be_run() {
        let one = tempfile::tempdir().unwrap();
        let two = tempfile::tempdir().unwrap();
        let path = env::join_paths([one.path(), two.path()]).unwrap();
        let make = |directory: &Path, name: &str, mode: u32| {
            let file = directory.join(name);
            File::create(&file).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        assert_eq!(find_program(&path), None);
        make(one.path(), "valkey-server", 0o600);
        assert_eq!(find_program(&path), None, "it cannot be run");
        let redis = make(one.path(), "redis-server", 0o700);
        assert_eq!(find_program(&path), Some(redis));
        let valkey = make(two.path(), "valkey-server", 0o700);
        assert_eq!(find_program(&path), Some(valkey), "the preferred one");
    }
}
