//! Tests of TLS: protocols, who is accepted, and which certificate is shown.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
};
use tokio::net::TcpStream;

use super::kit::*;
use super::tls_kit::*;
use msp_gateway::access::{CallerBook, ClientSan};
use msp_gateway::clock::{Duration, Instant};
use msp_gateway::metrics::Metrics;
use msp_gateway::server::{ClientAuth, Ending, Inherited, ServerTransport, Tls, TlsFile, TlsSetup};

/// Sends one request over HTTP/1.1. Returns its status.
async fn ask<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I, headers: &str) -> u16 {
    let request = get("/msp/customers", headers);
    io.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"}") {
        assert!(io.read_buf(&mut text).await.unwrap() > 0);
    }
    let text = String::from_utf8(text).unwrap();
    text[9..12].parse().unwrap()
}

fn handshakes(metrics: &Metrics, outcome: &str) -> u64 {
    let text = metrics.render().unwrap();
    let line = format!("handshakes_total{{listener=\"public\",outcome=\"{outcome}\"}} ");
    let found = text.split_once(&line).unwrap().1;
    found.lines().next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_newest_of_both_is_spoken() {
    let (front, authority) = (Front::new(), Authority::new());
    let tls = listener(&authority, ClientAuth::None, &front.metrics);
    let mut open = Vec::new();
    for version in [&TLS12, &TLS13] {
        for (offered, chosen) in [
            (vec![&b"h2"[..], b"http/1.1"], Some(&b"h2"[..])),
            (vec![b"http/1.1", b"h2"], Some(b"h2")),
            (vec![b"http/1.1"], Some(b"http/1.1")),
            (vec![b"spdy/3", b"http/1.1"], Some(b"http/1.1")),
            (vec![], None),
        ] {
            let caller = TlsCaller {
                protocols: offered,
                versions: vec![version],
                pair: None,
            };
            let connected = connect_as(&caller, &front.connections, &tls, &authority).await;
            let mut stream = connected.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.alpn_protocol(), chosen);
            assert_eq!(session.protocol_version(), Some(version.version));
            if chosen != Some(b"h2") {
                assert_eq!(ask(&mut stream, KEY).await, 200);
            }
            open.push(stream);
        }
    }
    let caller = TlsCaller::speaking(b"spdy/3");
    let refused = connect_as(&caller, &front.connections, &tls, &authority).await;
    assert!(refused.is_err());
    // The server may notice the end of a handshake after the caller.
    while handshakes(&front.metrics, "ok") < 10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(handshakes(&front.metrics, "ok"), 10);
    assert_eq!(handshakes(&front.metrics, "failed"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_handshake_ends_and_what_never_ends_is_cut() {
    let (front, authority) = (Front::new(), Authority::new());
    let tls = listener(&authority, ClientAuth::None, &front.metrics);
    let (mut peer, task) = open(&front.connections, &tls);
    peer.write_all(get("/msp/customers", KEY).as_bytes())
        .await
        .unwrap();
    assert_eq!(task.await.unwrap(), Ending::Done);
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.unwrap();
    // An alert at most, and never an answer.
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");

    let start = Instant::now();
    let (mut peer, task) = open(&front.connections, &tls);
    // The beginning of a handshake that announces more bytes.
    peer.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    assert_eq!(task.await.unwrap(), Ending::Slow);
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11));
    assert!(front.seen.lock().is_empty());
    assert_eq!(handshakes(&front.metrics, "failed"), 1);
    assert_eq!(handshakes(&front.metrics, "timed_out"), 1);
}

/// A connection whose first byte can be read without consuming it, like a socket.
struct Begun {
    io: DuplexStream,
    first: u8,
}

impl ServerTransport for Begun {
    fn has_arrived(&self) -> bool {
        false
    }

    fn poll_first_byte(&self, _: &mut Context<'_>) -> Poll<Option<u8>> {
        Poll::Ready(Some(self.first))
    }
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn plain_http_is_told_that_the_port_speaks_tls() {
    let (front, authority) = (Front::new(), Authority::new());
    let tls = listener(&authority, ClientAuth::None, &front.metrics);
    let large = format!("content-length: 1000000\r\n\r\n{}", " ".repeat(1_000_000));
    let requests = [
        get("/msp/customers", KEY),
        get("/msp/customers", KEY).replace("HTTP/1.1", "HTTP/1.0"),
        post("/v2/cases/msp/search", KEY, "{}"),
        format!("POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{KEY}{large}"),
        "QUERY /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for request in &requests {
        let (near, io) = duplex(64 * 1024);
        let begun = Begun {
            io,
            first: request.as_bytes()[0],
        };
        let (on, tls) = (front.connections.clone(), tls.clone());
        let task = tokio::spawn(async move { on.serve_tls(&tls, begun, None).await });
        let mut peer = Peer::new(near, Arc::default());
        peer.io.write_all(request.as_bytes()).await.unwrap();
        let reply = peer.reply().await.unwrap();
        assert_eq!(reply.problem(), (400, "malformed_request".to_owned()));
        assert!(
            reply.json()["detail"]
                .as_str()
                .unwrap()
                .contains("this port speaks TLS")
        );
        assert_eq!(reply.header("connection"), "close");
        assert_eq!(peer.rest().await, "");
        drop(peer);
        assert_eq!(task.await.unwrap(), Ending::Done);
    }
    assert!(front.seen.lock().is_empty());
    assert_eq!(handshakes(&front.metrics, "failed"), requests.len() as u64);
}

#[tokio::test]
async fn a_handshake_that_was_cut_frees_its_place() {
    let (front, authority) = (Front::new(), Authority::new());
    let tls = listener(&authority, ClientAuth::None, &front.metrics);
    let mut options = super::drain::options();
    options.connections_max = 1;
    options.header_timeout = Duration::from_millis(300);
    let running = super::drain::run_over(&front, options, Inherited::default(), Some(tls)).await;
    // Takes the only place and sends nothing.
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let stream = TcpStream::connect(running.address).await.unwrap();
    let caller = TlsCaller::speaking(b"http/1.1");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(caller.config(&authority)));
    let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(ask(&mut stream, KEY).await, 200);
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert_eq!(handshakes(&front.metrics, "timed_out"), 1);
    drop(stream);
    running.drain.begin();
    running.task.await.unwrap();
}

/// A front whose caller `all` also has two certificate names.
fn front_with_names() -> Front {
    Front::knowing(|metrics, clock| {
        let mut specs = specs();
        specs[0].sans = ["all.internal", "spiffe://corp.example/all"]
            .iter()
            .filter_map(|san| ClientSan::parse(san))
            .collect();
        Arc::new(CallerBook::new(&specs, metrics, clock.clone()))
    })
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_asked_for_as_the_settings_say() {
    let (front, authority, other) = (front_with_names(), Authority::new(), Authority::new());
    let served = async |auth: ClientAuth, pair: Option<Pair>| {
        let tls = listener(&authority, auth, &front.metrics);
        let caller = TlsCaller {
            pair,
            ..TlsCaller::speaking(b"http/1.1")
        };
        let mut stream = connect_as(&caller, &front.connections, &tls, &authority)
            .await
            .ok()?;
        // Over TLS 1.3, a caller notices its refusal only when it reads.
        let request = get("/msp/customers", "");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.ok()?;
        std::str::from_utf8(&first[9..]).unwrap().parse().ok()
    };
    let known = || Some(authority.client(&["all.internal"]));
    let by_uri = || Some(authority.client(&["x.internal", "spiffe://corp.example/all"]));
    let unknown = || Some(authority.client(&["x.internal"]));
    let foreign = || Some(other.client(&["all.internal"]));
    use ClientAuth::{None as Nobody, Optional, Required};
    let mut seen: Vec<Option<u16>> = Vec::new();
    for auth in [Nobody, Optional, Required] {
        for pair in [None, known(), by_uri(), unknown(), foreign()] {
            seen.push(served(auth, pair).await);
        }
    }
    let (ok, nobody, cut) = (Some(200), Some(401), None);
    assert_eq!(seen[..5], [nobody; 5]);
    assert_eq!(seen[5..10], [nobody, ok, ok, nobody, cut]);
    assert_eq!(seen[10..], [cut, ok, ok, nobody, cut]);
}

#[tokio::test(start_paused = true)]
async fn key_and_certificate_must_be_of_one_caller() {
    let (front, authority) = (front_with_names(), Authority::new());
    let tls = listener(&authority, ClientAuth::Optional, &front.metrics);
    let caller = |names: &[&str]| TlsCaller {
        pair: Some(authority.client(names)),
        ..TlsCaller::speaking(b"http/1.1")
    };
    let known = caller(&["all.internal"]);
    let mut stream = connect_as(&known, &front.connections, &tls, &authority)
        .await
        .unwrap();
    assert_eq!(ask(&mut stream, "").await, 200);
    assert_eq!(ask(&mut stream, KEY).await, 200);
    assert_eq!(ask(&mut stream, LIMITED).await, 401);
    assert_eq!(ask(&mut stream, "x-api-key: nobody\r\n").await, 401);
    // A browser shows a certificate for pages of any site, and a key for none.
    let page = "origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n";
    assert_eq!(ask(&mut stream, page).await, 403);
    assert_eq!(ask(&mut stream, &format!("{page}{KEY}")).await, 200);
    // A header cannot replace a certificate.
    let unknown = caller(&["x.internal"]);
    let mut stream = connect_as(&unknown, &front.connections, &tls, &authority)
        .await
        .unwrap();
    let forged = "x-forwarded-client-cert: URI=spiffe://corp.example/all\r\nx-ssl-client-san: all.internal\r\n";
    assert_eq!(ask(&mut stream, forged).await, 401);
    // An unknown certificate does not affect a key.
    assert_eq!(ask(&mut stream, LIMITED).await, 200);
}

#[tokio::test(start_paused = true)]
async fn sessions_are_resumed_only_where_nobody_shows_a_certificate() {
    let (front, authority) = (front_with_names(), Authority::new());
    for version in [&TLS12, &TLS13] {
        for (auth, second) in [
            (ClientAuth::None, HandshakeKind::Resumed),
            (ClientAuth::Optional, HandshakeKind::Full),
            (ClientAuth::Required, HandshakeKind::Full),
        ] {
            let tls = listener(&authority, auth, &front.metrics);
            let caller = TlsCaller {
                protocols: vec![b"http/1.1"],
                versions: vec![version],
                pair: (auth != ClientAuth::None).then(|| authority.client(&["all.internal"])),
            };
            let config = Arc::new(caller.config(&authority));
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let shaken = shake(&front.connections, &tls, config.clone()).await;
                let mut stream = shaken.unwrap();
                // Tickets come with the first answer.
                assert_eq!(ask(&mut stream, KEY).await, 200);
                kinds.push(stream.get_ref().1.handshake_kind().unwrap());
            }
            assert_eq!(kinds, [HandshakeKind::Full, second], "{auth:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_certificate_is_for_new_connections() {
    let (front, authority) = (Front::new(), Authority::new());
    let first = authority.server(NAME, (2020, 2100));
    let second = authority.server(NAME, (2021, 2099));
    let files = Files::of(&first);
    let tls = Tls::new(load(&files).unwrap(), "public", front.metrics.clone());
    let not_after = |metrics: &Metrics| {
        let text = metrics.render().unwrap();
        let name = "not_after_timestamp_seconds{listener=\"public\"} ";
        let value = text.split_once(name).unwrap().1.lines().next().unwrap();
        value.parse::<i64>().unwrap()
    };
    assert_eq!(not_after(&front.metrics), 4_133_894_400);
    let caller = TlsCaller::speaking(b"http/1.1");
    let shown = |stream: &tokio_rustls::client::TlsStream<tokio::io::DuplexStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let mut old = connect_as(&caller, &front.connections, &tls, &authority)
        .await
        .unwrap();
    assert_eq!(shown(&old), first.certificate);
    files.put(&second);
    tls.replace(load(&files).unwrap());
    let mut new = connect_as(&caller, &front.connections, &tls, &authority)
        .await
        .unwrap();
    assert_eq!(shown(&new), second.certificate);
    assert_eq!(ask(&mut old, KEY).await, 200);
    assert_eq!(ask(&mut new, KEY).await, 200);
    assert_eq!(not_after(&front.metrics), 4_102_358_400);
}

#[test]
fn files_that_do_not_fit_are_told_by_name() {
    let authority = Authority::new();
    let (pair, other) = (
        authority.server(NAME, (2020, 2100)),
        authority.server(NAME, (2020, 2100)),
    );
    let (certificate, key) = (pair.certificate_pem.clone(), pair.key.serialize_pem());
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let noise = certificate.replace("MII", "AAA");
    use TlsFile::{Certificate, ClientCa, PrivateKey};
    for (file, name, text, says) in [
        (Certificate, "tls.crt", None, "cannot be read"),
        (
            Certificate,
            "tls.crt",
            Some(String::new()),
            "no certificate",
        ),
        (
            Certificate,
            "tls.crt",
            Some(half(&certificate)),
            "truncated",
        ),
        (
            Certificate,
            "tls.crt",
            Some(noise.clone()),
            "cannot be read",
        ),
        (Certificate, "tls.crt", Some(key.clone()), "no certificate"),
        (Certificate, "tls.crt", Some("x".repeat(1 << 21)), "1 MiB"),
        (PrivateKey, "tls.key", None, "cannot be read"),
        (PrivateKey, "tls.key", Some(String::new()), "no private key"),
        (PrivateKey, "tls.key", Some(half(&key)), "truncated"),
        (
            PrivateKey,
            "tls.key",
            Some(certificate.clone()),
            "no private key",
        ),
        (
            PrivateKey,
            "tls.key",
            Some(key.replace("PRIVATE", "ENCRYPTED PRIVATE")),
            "encrypted",
        ),
        (
            PrivateKey,
            "tls.key",
            Some(other.key.serialize_pem()),
            "does not hold the private key",
        ),
        (ClientCa, "ca.crt", None, "cannot be read"),
        (ClientCa, "ca.crt", Some(String::new()), "no certificate"),
        (ClientCa, "ca.crt", Some(noise), "cannot be read"),
    ] {
        let files = Files::of(&pair);
        files.write("ca.crt", &authority.pem());
        match text {
            Some(text) => files.write(name, &text),
            None => std::fs::remove_file(files.path(name)).unwrap(),
        }
        let problem = TlsSetup::load(&options(&files, ClientAuth::Optional)).unwrap_err();
        assert_eq!(problem.file, file, "{problem:?}");
        assert!(problem.why.contains(says), "{problem:?} {says}");
    }
}

#[test]
fn keys_may_be_written_in_three_ways() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let authority = Authority::new();
    let pem = |label: &str, der: &[u8]| {
        let text = STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let pair = authority.server(NAME, (2020, 2100));
    // PKCS#8 wraps the older form of a key of this curve in 29 bytes.
    let pkcs8 = pair.key.serialize_der();
    for (label, der) in [
        ("PRIVATE KEY", &pkcs8[..]),
        ("EC PRIVATE KEY", &pkcs8[29..]),
    ] {
        let files = Files::of(&pair);
        files.write("tls.key", &pem(label, der));
        assert!(load(&files).is_ok(), "{label}");
    }
    // For an RSA key of 2048 bits, it is 26.
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let signed = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
    let signed = signed.self_signed(&rsa).unwrap();
    let pkcs8 = rsa.serialize_der();
    for (label, der) in [
        ("PRIVATE KEY", &pkcs8[..]),
        ("RSA PRIVATE KEY", &pkcs8[26..]),
    ] {
        let files = Files::of(&pair);
        files.write("tls.crt", &signed.pem());
        files.write("tls.key", &pem(label, der));
        assert!(load(&files).is_ok(), "{label}");
    }
}

#[test]
fn untimely_certificates_are_told() {
    let authority = Authority::new();
    let says = |years| {
        let files = Files::of(&authority.server(NAME, years));
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        load(&files).unwrap().untimely(now)
    };
    assert_eq!(says((2020, 2100)), None);
    assert_eq!(
        says((2020, 2025)).unwrap(),
        "expired at 2025-12-31T00:00:00Z"
    );
    assert_eq!(
        says((2027, 2100)).unwrap(),
        "is not valid before 2027-01-01T00:00:00Z"
    );
}
