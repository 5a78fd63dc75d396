//! What stands outside the process and hangs: a vendor, a name without an address, callers that
//! read nothing. Hits go on, both listeners answer, and SIGTERM ends in time. `outputs.rs` and
//! `files.rs` hold the same for standard output and error, a full disk, settings, keys and
//! certificates.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::process::{World, everyone, key};

/// Callers who wait for what hangs: more than a vendor has places.
const WAITING: usize = 40;
/// Hits meanwhile.
const HITS: usize = 50;

/// What hangs.
#[derive(Clone, Copy, Debug)]
enum Hanging {
    Wiv,
    Nable,
    /// wiv's name has no address.
    Name,
    /// The system's resolver never answers.
    Resolver,
    /// Callers ask for exports and read nothing of them.
    Callers,
}

impl Hanging {
    /// The request that meets it, number `n` of many.
    fn request(self, n: usize) -> String {
        let (line, body) = match self {
            Self::Wiv | Self::Name | Self::Resolver => (
                "POST /v2/cases/msp/search HTTP/1.1".to_owned(),
                format!("{{\"number\":{n}}}"),
            ),
            Self::Nable => (
                format!("GET /v1/billing/2020{:02}/C{n} HTTP/1.1", 1 + n % 12),
                String::new(),
            ),
            Self::Callers => ("GET /v1/cases/export HTTP/1.1".to_owned(), String::new()),
        };
        format!(
            "{line}\r\nHost: gateway\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            key("alice"),
            body.len()
        )
    }
}

/// A library for `LD_PRELOAD` in which every look-up of a name hangs for ever.
fn mute_resolver(folder: &Path) -> String {
    let (source, library) = (folder.join("mute.c"), folder.join("mute.so"));
    let code = "#include <unistd.h>\nint getaddrinfo(void) { for (;;) pause(); }\n";
    std::fs::write(&source, code).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-fno-builtin", "-o"]);
    let made = compiler.arg(&library).arg(&source).status().unwrap();
    assert!(made.success(), "cc: {made}");
    library.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outside_that_hangs_holds_up_hits_or_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mute = mute_resolver(folder.path());
    for hanging in [
        Hanging::Wiv,
        Hanging::Nable,
        Hanging::Name,
        Hanging::Resolver,
        Hanging::Callers,
    ] {
        let mut environment = vec![("MSP_GATEWAY__LIMITS__DRAIN_GRACE", "1s")];
        if matches!(hanging, Hanging::Name | Hanging::Resolver) {
            environment.push(("MSP_GATEWAY__WIV__BASE_URL", "https://nowhere.invalid"));
        }
        if matches!(hanging, Hanging::Resolver) {
            environment.push(("LD_PRELOAD", &mute));
        }
        let world = World::start(20_000, &everyone("alice"), &environment);
        let month = world.get("alice", "/v1/billing/202601").await.status;
        let list = match hanging {
            Hanging::Name | Hanging::Resolver => "/v1/billing/202601",
            _ => "/msp/customers",
        };
        assert_eq!(
            world.get("alice", list).await.status,
            200,
            "{hanging:?} {month}"
        );
        let operation = match hanging {
            Hanging::Wiv => "search",
            Hanging::Nable => "billing",
            Hanging::Name | Hanging::Resolver | Hanging::Callers => "usage",
        };
        let fault =
            format!("{{\"operation\":\"{operation}\",\"kind\":\"latency\",\"ms\":3600000}}");
        world.vendors.tell("faults", &fault).await;
        let address = world.public.trim_start_matches("http://").to_owned();
        let mut waiting = Vec::new();
        for n in 0..WAITING {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(hanging.request(n).as_bytes()).unwrap();
            waiting.push(stream);
        }
        for _ in 0..HITS {
            assert_eq!(
                world.get("alice", list).await.status,
                200,
                "{hanging:?}: a hit"
            );
        }
        let ready = world.web.get(&format!("{}/readyz", world.admin)).await;
        assert_eq!(ready.status, 200, "{hanging:?}");
        let metrics = world.web.get(&format!("{}/metrics", world.admin)).await;
        assert_eq!(metrics.status, 200, "{hanging:?}");
        world.gateway.signal(Signal::TERM);
        let ended = world.gateway.ended();
        assert_eq!(ended.code, Some(0), "{hanging:?}: {}", ended.stderr);
        drop(waiting);
    }
}
