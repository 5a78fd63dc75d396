//! Sockets that outlive the program, and a system that gives few of them.

#[path = "../../load/caller.rs"]
mod caller;

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use msp_gateway::clock::{Duration, Instant};
use msp_gateway::sandbox::{NABLE_KEY, WIV_KEY};
use rustix::process::Signal;

use crate::process::{
    Ended, PATIENCE, Process, Vendors, Web, after, everyone, key, settings, write_key,
};

/// Restarts under load; the long form is `tests/load/restarts`.
const RESTARTS: usize = 3;
/// Requests between two of them.
const BETWEEN: u64 = 400;

/// The shell that puts a socket where a service manager does, and steps out of the way.
const PASS: &str = "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";

/// Simulated vendors and settings for a gateway that is started again and again.
struct Stage {
    vendors: Vendors,
    web: Web,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let web = Web::new();
        let vendors = Vendors::start(600, &web);
        let dir = tempfile::tempdir().unwrap();
        write_key(&dir.path().join("nable.key"), NABLE_KEY);
        let text = settings(&vendors.address, dir.path(), &everyone("alice"));
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        Self { vendors, web, dir }
    }

    /// Runs the program in a shell that does this first, with this as standard input.
    fn gateway(&self, shell: &str, input: Stdio, environment: &[(&str, &str)]) -> Process {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", shell, env!("CARGO_BIN_EXE_msp-gateway")])
            .args(["serve", "--config"])
            .arg(self.dir.path().join("config.toml"))
            .env_clear()
            .env("WIV_CANARY_KEY", WIV_KEY)
            .env("MSP_GATEWAY__LOG__LEVEL", "info")
            .envs(environment.iter().copied());
        Process::spawn_over(command, input)
    }

    /// A gateway over this socket, passed under this name.
    fn over(&self, socket: impl Into<OwnedFd>, name: &str) -> Process {
        let names = [
            ("LISTEN_FDS", "1"),
            ("LISTEN_FDNAMES", name),
            ("MSP_GATEWAY__LIMITS__DRAIN_DELAY", "1s"),
        ];
        self.gateway(PASS, Stdio::from(socket.into()), &names)
    }

    fn refused(&self, socket: impl Into<OwnedFd>, name: &str) -> String {
        let Ended { code, stderr, .. } = self.over(socket, name).ended();
        // Events may come before it.
        let plain = stderr.lines().filter(|line| !line.starts_with('{'));
        assert_eq!((code, plain.count()), (Some(1), 1), "{stderr}");
        stderr
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_fail_no_request() {
    let stage = Stage::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || {
        let gateway = stage.over(held.try_clone().unwrap(), "public");
        gateway.until_stdout("admin http://");
        gateway
    };
    let mut gateway = start();
    let address = held.local_addr().unwrap();
    assert_eq!(
        after(&gateway.stdout(), "public http://"),
        address.to_string()
    );
    let load = caller::Load {
        address,
        from: None,
        key: key("alice"),
        busy: 12,
        pausing: (12, Duration::from_millis(1_500)),
        rate: 0,
        search: None,
    };
    let progress = caller::Progress::default();
    let loading = {
        let progress = progress.clone();
        tokio::spawn(async move { load.run(&progress).await })
    };
    let more = async |requests: u64| {
        let (goal, deadline) = (progress.asked() + requests, Instant::now() + PATIENCE);
        while progress.asked() < goal {
            // Something to wait for; it is not this gateway's.
            stage.vendors.counts().await;
            assert!(Instant::now() < deadline, "the load does not get on");
        }
    };
    for _ in 0..RESTARTS {
        more(BETWEEN).await;
        gateway.signal(Signal::TERM);
        let ended = gateway.ended();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        gateway = start();
    }
    more(BETWEEN).await;
    progress.stop();
    let tally = loading.await.unwrap();
    let slowest = caller::within(&tally.took, 1.0);
    assert_eq!(
        tally.failures(),
        0,
        "{:?} (slowest {slowest} s)",
        tally.failed
    );
    assert!(
        tally.good >= BETWEEN * (RESTARTS as u64 + 1),
        "{}",
        tally.good
    );
    // Each restart moved everybody.
    assert!(
        tally.connections >= 24 * RESTARTS as u64,
        "{}",
        tally.connections
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_before_the_gateway_waits_at_the_socket() {
    use std::io::{Read as _, Write as _};
    let stage = Stage::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut early = TcpStream::connect(held.local_addr().unwrap()).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    early
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let gateway = stage.over(held.try_clone().unwrap(), "admin");
    gateway.until_stdout("admin http://");
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The other listener was bound as ever.
    let public = after(&gateway.stdout(), "public http://");
    let answer = stage
        .web
        .get(&format!("http://{public}/msp/customers"))
        .await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        after(&gateway.stdout(), "admin http://"),
        held.local_addr().unwrap().to_string()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_sockets_are_refused_in_one_line() {
    let stage = Stage::new();
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(stage.dir.path().join("s")).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open(stage.dir.path().join("config.toml")).unwrap();
    for (said, words) in [
        (
            stage.refused(unix, "public"),
            "listen.public: the inherited socket is not a TCP socket",
        ),
        (
            stage.refused(udp, "admin"),
            "listen.admin: the inherited socket is not a TCP socket",
        ),
        (
            stage.refused(file, "public"),
            "listen.public: the inherited socket is not a TCP socket",
        ),
        (
            stage.refused(tcp(), "msp-gateway.socket"),
            "LISTEN_FDNAMES: must name each",
        ),
        (
            stage.refused(tcp(), "public:admin"),
            "LISTEN_FDNAMES: must name each",
        ),
        (
            stage.refused(TcpListener::bind("0.0.0.0:0").unwrap(), "admin"),
            "listen.admin: is 127.0.0.1:0, but the inherited socket listens on 0.0.0.0:",
        ),
    ] {
        assert!(said.contains(words), "{said}");
    }
    let listening = tcp();
    let talking = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let said = stage.refused(talking, "public");
    assert!(
        said.contains("the inherited socket is not listening"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_few_descriptors_operators_still_get_in() {
    const FILES: usize = 256;
    let stage = Stage::new();
    let shell = format!("ulimit -n {FILES}; exec \"$0\" \"$@\"");
    let gateway = stage.gateway(&shell, Stdio::null(), &[]);
    gateway.until_stdout("admin http://");
    gateway.until_stderr("limits.connections_max is lowered", 1);
    let public = after(&gateway.stdout(), "public http://");
    let admin = after(&gateway.stdout(), "admin http://");
    let crowd: Vec<_> = (0..FILES + 100)
        .map(|_| TcpStream::connect(&public).unwrap())
        .collect();
    let connections = async || {
        let metrics = stage.web.get(&format!("http://{admin}/metrics")).await;
        let line = "msp_gateway_connections ";
        let count = metrics.text().lines().find_map(|l| l.strip_prefix(line));
        count.unwrap().parse::<usize>().unwrap()
    };
    let until = async |wanted: usize| {
        let deadline = Instant::now() + PATIENCE;
        while connections().await != wanted {
            assert!(Instant::now() < deadline, "{}", connections().await);
        }
    };
    until(FILES / 2).await;
    let alive = stage.web.get(&format!("http://{admin}/healthz")).await;
    assert_eq!(alive.status, 200);
    drop(crowd);
    until(0).await;
    let bearer = format!("Bearer {}", key("alice"));
    let url = format!("http://{public}/msp/customers");
    let answer = stage
        .web
        .send("GET", &url, &[("authorization", &bearer)], "")
        .await;
    assert_eq!(answer.status, 200);
    assert!(
        !gateway.stderr().contains("cannot accept"),
        "{}",
        gateway.stderr()
    );
}
