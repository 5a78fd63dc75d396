//! TLS to a real server: the right name is served, and what is wrong is one line.

use std::fs;
use std::net::TcpListener;

use msp_gateway::app::open_store;
use msp_gateway::clock::Clock;
use msp_gateway::metrics::Metrics;
use msp_gateway::store::StoreHealth;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::kit::NOW;
use crate::test_server::{ServerKind, TestServer};
use crate::whole::{Events, SETTINGS, caller, secrets, settings};

/// An authority of this name.
fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), Issuer::new(params, key))
}

/// Connects with these settings. Returns the store's health, and why it is away.
async fn connected(address: &str, more: &str) -> (StoreHealth, Vec<String>) {
    let (events, _listening) = Events::listen();
    let valkey = format!(
        "[store]\nkind = \"valkey\"\n[store.valkey]\naddresses = [\"{address}\"]\ntimeout = \"10s\"\n{more}\n"
    );
    let settings = settings(&format!("{SETTINGS}{valkey}{}", caller("one", "")));
    let clock = Clock::anchored(NOW.parse().unwrap());
    let metrics = Metrics::new().unwrap();
    let store = open_store(&settings, &secrets(), &clock, &metrics).unwrap();
    store.warm().await;
    if store.health() == StoreHealth::Ok {
        // Written to the server and read from it.
        assert!(store.keep_purges().await);
    }
    let text = events.text();
    let lines = text
        .lines()
        .map(|line| -> serde_json::Value { serde_json::from_str(line).unwrap() });
    let reasons = lines.filter_map(|line| Some(line["why"].as_str()?.to_owned()));
    (store.health(), reasons.collect())
}

/// Connects, and again where a busy machine needs longer than the limit of a connection.
async fn connected_in_time(address: &str, more: &str) -> (StoreHealth, Vec<String>) {
    for _ in 0..20 {
        let found = connected(address, more).await;
        if !found.1.iter().any(|why| why.ends_with("within a second")) {
            return found;
        }
    }
    panic!("{address} did not answer in twenty tries");
}

#[tokio::test]
async fn a_session_needs_the_right_name_and_a_known_authority() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ours, issuer) = authority("ours");
    let (other, _) = authority("another");
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    let [ours, other] = [file("ours.pem", &ours), file("other.pem", &other)];
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let port = port.unwrap().port();
    let arguments = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("server.pem", &certificate.pem()),
        "--tls-key-file",
        &file("server.key", &key.serialize_pem()),
        "--tls-ca-cert-file",
        &ours,
        "--tls-auth-clients",
        "no",
    ];
    // Valkey from PyPI is built without TLS.
    let server = TestServer::start(ServerKind::Redis, &arguments);
    let (right, wrong) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));
    let trusting = |file: &str| format!("tls = true\nca_file = \"{file}\"");

    let (health, reasons) = connected_in_time(&right, &trusting(&ours)).await;
    assert_eq!((health, reasons), (StoreHealth::Ok, Vec::new()));
    for (address, more, said) in [
        (&wrong, trusting(&ours), "not valid for"),
        (&right, trusting(&other), "UnknownIssuer"),
        (&right, "tls = true".to_owned(), "UnknownIssuer"),
    ] {
        let (health, reasons) = connected_in_time(address, &more).await;
        assert_eq!(health, StoreHealth::Away, "{said}");
        let [reason] = &reasons[..] else {
            panic!("{said}: {reasons:?}")
        };
        let begins = format!("{address} could not set up TLS: invalid peer certificate");
        assert!(
            reason.starts_with(&begins) && reason.contains(said),
            "{reason}"
        );
    }
    // TLS to a port that does not speak it, and the other way round.
    let plain = format!("localhost:{}", server.port);
    for (address, more) in [(&plain, trusting(&ours)), (&right, String::new())] {
        let (health, reasons) = connected(address, &more).await;
        assert_eq!(health, StoreHealth::Away, "{address} {more}");
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        println!("{reasons:?}");
    }
}
