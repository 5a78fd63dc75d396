//! Starts a real server for one test on loopback, and stops it with the test. `tests/it` uses it
//! too.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The program of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    Valkey,
    Redis,
}

impl ServerKind {
    /// Returns the program. Installs it first if that is possible.
    fn program(self) -> PathBuf {
        match self {
            Self::Redis => "redis-server".into(),
            Self::Valkey => {
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/valkey-server");
                let found = Command::new("bash").arg(script).output().unwrap();
                let told = String::from_utf8_lossy(&found.stderr);
                assert!(found.status.success(), "{told}");
                String::from_utf8(found.stdout).unwrap().trim().into()
            }
        }
    }
}

/// A running server.
pub struct TestServer {
    pub child: Child,
    directory: TempDir,
    kind: ServerKind,
    pub port: u16,
}

impl TestServer {
    /// Starts a server with additional arguments.
    pub fn start(kind: ServerKind, more: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = port.unwrap().port();
        let directory = TempDir::new().unwrap();
        let child = run(kind, port, &directory, more);
        Self {
            child,
            directory,
            kind,
            port,
        }
    }

    /// Ends the server at once, as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the server again on its port, empty.
    pub fn restart(&mut self, more: &[&str]) {
        self.child = run(self.kind, self.port, &self.directory, more);
    }
}

fn run(kind: ServerKind, port: u16, directory: &TempDir, more: &[&str]) -> Child {
    let mut command = Command::new(kind.program());
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--port", &port.to_string(), "--dir"])
        .arg(directory.path())
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{kind:?}: {error}; install Debian's package redis-server"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.any(|line| line.unwrap().contains("Ready to accept connections"));
    assert!(ready, "{kind:?} did not start with {more:?}");
    // The server must be able to keep writing.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // The server may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
