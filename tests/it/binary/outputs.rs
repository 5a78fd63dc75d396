//! Outputs that cannot be written: what each command makes of them, and that nobody waits for them.

use std::fs::OpenOptions;
use std::io::{PipeReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use msp_gateway::sandbox::NABLE_KEY;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{PATIENCE, Vendors, Web, everyone, key, settings, write_key};

/// What stands where an output belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// A disk without room.
    Full,
    /// A pipe whose reader left.
    Left,
    /// A pipe that is full, and nobody reads.
    Stuck,
    /// The test, once the program has ended.
    Reads,
}

/// An output for a program, and the other end where there is one.
fn output(reader: Reader) -> (Stdio, Option<PipeReader>) {
    if reader == Reader::Full {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        return (full.into(), None);
    }
    let (from, to) = std::io::pipe().unwrap();
    if reader == Reader::Stuck {
        let mut fill = &to;
        let flags = fcntl_getfl(fill).unwrap();
        fcntl_setfl(fill, flags | OFlags::NONBLOCK).unwrap();
        while fill.write(&[b'.'; 4096]).is_ok() {}
        while fill.write(b".").is_ok() {}
        fcntl_setfl(fill, flags).unwrap();
    }
    (to.into(), (reader != Reader::Left).then_some(from))
}

/// A program over outputs of the test's own.
struct Program {
    id: Pid,
    ended: Receiver<Option<i32>>,
    /// Kept open as long as it runs.
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
}

impl Program {
    fn start(arguments: &[&str], environment: &[(&str, &str)], to: (Reader, Reader)) -> Self {
        let (out, stdout) = output(to.0);
        let (err, stderr) = output(to.1);
        let mut child = Command::new(env!("CARGO_BIN_EXE_msp-gateway"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        let id = Pid::from_child(&child);
        let (tell, ended) = channel();
        std::thread::spawn(move || tell.send(child.wait().unwrap().code()));
        Self {
            id,
            ended,
            stdout,
            stderr,
        }
    }

    fn terminate(&self) {
        kill_process(self.id, Signal::TERM).unwrap();
    }

    /// Its exit code and what it said on standard error, where the test reads that.
    fn end(mut self) -> (Option<i32>, String) {
        let code = match self.ended.recv_timeout(PATIENCE) {
            Ok(code) => code,
            Err(_) => {
                kill_process(self.id, Signal::KILL).unwrap();
                panic!("does not end");
            }
        };
        let mut said = String::new();
        if let Some(mut reader) = self.stderr.take() {
            reader.read_to_string(&mut said).unwrap();
        }
        drop(self.stdout);
        (code, said)
    }
}

/// An address nobody listens on, for a program whose output cannot be read.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_command_that_prints_and_ends_says_whether_its_answer_was_written() {
    use Reader::{Full, Left, Reads};
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.toml");
    std::fs::write(&good, "wiv.api_key_env = \"K\"\nauth.mode = \"open\"\n").unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "wiv.colour = \"red\"\n").unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let unwritten = "standard output cannot be written: ";
    /// Arguments, where both outputs go, exit code, words on standard error.
    type Case<'a> = (&'a [&'a str], (Reader, Reader), i32, &'a str);
    let cases: [Case<'_>; 14] = [
        (&["check", "--config", good], (Full, Reads), 1, unwritten),
        // `check | head` has read what it wants.
        (&["check", "--config", good], (Left, Reads), 0, ""),
        (&["check", "--config", good], (Reads, Full), 0, ""),
        (&["check", "--config", bad], (Reads, Full), 1, ""),
        (&["check", "--config", bad], (Reads, Left), 1, ""),
        (&["caller", "new", "a"], (Full, Reads), 1, unwritten),
        // The key is lost.
        (&["caller", "new", "a"], (Left, Reads), 1, unwritten),
        (&["caller", "new", "A"], (Reads, Full), 2, ""),
        (&["--help"], (Full, Reads), 1, unwritten),
        (&["--help"], (Left, Reads), 0, ""),
        (&["--nonsense"], (Reads, Full), 2, ""),
        (&["serve", "--config", bad], (Reads, Full), 1, ""),
        (&["serve", "--config", bad], (Reads, Left), 1, ""),
        (&["sandbox", "--listen", "1.2.3.4:1"], (Reads, Full), 1, ""),
    ];
    for (arguments, to, code, words) in cases {
        let program = Program::start(arguments, &[("K", "canary-of-a-key")], to);
        let (ended, said) = program.end();
        assert_eq!(ended, Some(code), "{arguments:?} {to:?}: {said}");
        assert!(said.contains(words), "{arguments:?} {to:?}: {said}");
        assert_eq!(
            said.lines().count(),
            usize::from(!words.is_empty()),
            "{said}"
        );
    }
}

#[test]
fn the_demo_ends_where_its_caller_key_cannot_be_read() {
    let any = "127.0.0.1:0";
    for reader in [Reader::Full, Reader::Left] {
        let arguments = ["demo", "--public", any, "--admin", any];
        let (code, said) = Program::start(&arguments, &[], (reader, Reader::Reads)).end();
        assert_eq!(code, Some(1), "{reader:?}: {said}");
        let why = said.lines().last().unwrap();
        assert!(why.contains("standard output cannot be written"), "{said}");
    }
}

/// How many questions make more lines than a pipe holds, and more bytes.
const QUESTIONS: u32 = 250;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_of_an_output_holds_up_requests_or_the_end() {
    use Reader::{Full, Left, Reads, Stuck};
    let web = Web::new();
    let vendors = Vendors::start(300, &web);
    let dir = tempfile::tempdir().unwrap();
    write_key(&dir.path().join("nable.key"), NABLE_KEY);
    let config = dir.path().join("config.toml");
    let text = settings(&vendors.address, dir.path(), &everyone("alice"));
    std::fs::write(&config, text).unwrap();
    let bearer = format!("Bearer {}", key("alice"));
    let headers: &[(&str, &str)] = &[("authorization", &bearer)];
    for to in [
        (Reads, Stuck),
        (Stuck, Reads),
        (Stuck, Stuck),
        (Left, Left),
        (Full, Full),
    ] {
        vendors.tell("faults", "{\"clear\":true}").await;
        let (public, admin) = (free_address(), free_address());
        let program = Program::start(
            &["serve", "--config", config.to_str().unwrap()],
            &[
                ("WIV_CANARY_KEY", msp_gateway::sandbox::WIV_KEY),
                ("MSP_GATEWAY__LISTEN__PUBLIC", &public),
                ("MSP_GATEWAY__LISTEN__ADMIN", &admin),
                ("MSP_GATEWAY__LIMITS__DRAIN_GRACE", "1s"),
            ],
            to,
        );
        let (public, admin) = (format!("http://{public}"), format!("http://{admin}"));
        let hit = format!("{public}/msp/customers");
        web.until_up(&format!("{admin}/readyz")).await;
        assert_eq!(
            web.send("GET", &hit, headers, "").await.status,
            200,
            "{to:?}"
        );
        vendors
            .tell("faults", "{\"vendor\":\"nable\",\"down\":true}")
            .await;
        for turn in 0..QUESTIONS {
            let month = format!("{}{:02}", 2000 + turn / 12, 1 + turn % 12);
            let failing = format!("{public}/v1/billing/{month}");
            let status = web.send("GET", &failing, headers, "").await.status;
            assert!(status >= 500, "{to:?}: {status}");
            assert_eq!(
                web.send("GET", &hit, headers, "").await.status,
                200,
                "{to:?}"
            );
        }
        assert_eq!(
            web.get(&format!("{admin}/readyz")).await.status,
            200,
            "{to:?}"
        );
        let metrics = web.get(&format!("{admin}/metrics")).await;
        let dropped = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("msp_gateway_log_lines_dropped_total "))
            .map(|count| count.parse::<u32>().unwrap());
        let lost_at_once = matches!(to, (Left | Full, _));
        assert_eq!(
            dropped.unwrap() > 2 * QUESTIONS,
            lost_at_once,
            "{to:?}: {dropped:?}"
        );
        program.terminate();
        let (code, _) = program.end();
        assert_eq!(code, Some(0), "{to:?}");
    }
}
