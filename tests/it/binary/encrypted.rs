//! The running program over TLS and HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use msp_gateway::clock::timeout;
use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Authority, Files, NAME, TlsCaller};
use crate::process::{PATIENCE, World, everyone, key};

/// Streams in flight when the signal comes; a connection may have a hundred.
const STREAMS: usize = 60;

/// Where the gateway listens, and how to speak to it.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Target {
    /// A connection on which nothing was said yet.
    pub async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(NAME).unwrap();
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(name, stream).await
    }
}

/// The running gateway with a certificate; callers speak HTTP/2.
pub struct Encrypted {
    pub world: World,
    pub target: Target,
    pub files: Files,
}

impl Encrypted {
    pub fn start(environment: &[(&str, &str)]) -> Self {
        let authority = Authority::new();
        let files = Files::of(&authority.server(NAME, (2020, 2100)));
        let (certificate, private_key) = (files.path("tls.crt"), files.path("tls.key"));
        let mut all = vec![
            (
                "MSP_GATEWAY__LISTEN__PUBLIC_TLS__CERTIFICATE_FILE",
                certificate.to_str().unwrap(),
            ),
            (
                "MSP_GATEWAY__LISTEN__PUBLIC_TLS__PRIVATE_KEY_FILE",
                private_key.to_str().unwrap(),
            ),
            ("MSP_GATEWAY__LOG__LEVEL", "warn"),
        ];
        all.extend(environment);
        let world = World::start(600, &everyone("alice"), &all);
        let address = world.public.strip_prefix("https://").unwrap();
        let target = Target {
            address: address.parse().unwrap(),
            config: Arc::new(TlsCaller::speaking(b"h2").config(&authority)),
        };
        Self {
            world,
            target,
            files,
        }
    }

    /// Resident memory of the gateway.
    pub fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.world.gateway.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The status of a request for customers over a connection of its own.
    pub async fn customers(&self) -> u16 {
        let stream = self.target.connect().await.unwrap();
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .uri(format!("https://{NAME}/msp/customers"))
            .header("x-api-key", key("alice"))
            .body(())
            .unwrap();
        let (answer, _) = requests.send_request(request, true).unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap();
        answer.unwrap().status().as_u16()
    }

    /// Until no request is in flight.
    pub async fn until_quiet(&self) {
        self.world
            .until_admin("/admin/status", |answer| {
                answer.json()["requests_in_flight"] == 0
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_streams_end_and_says_goaway() {
    let delay = [("MSP_GATEWAY__LIMITS__DRAIN_DELAY", "200ms")];
    let Encrypted { world, target, .. } = Encrypted::start(&delay);
    let slow = "{\"operation\":\"customers\",\"kind\":\"latency\",\"ms\":1500}";
    world.vendors.tell("faults", slow).await;
    let stream = target.connect().await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut answers = JoinSet::new();
    for _ in 0..STREAMS {
        let request = Request::builder()
            .uri(format!("https://{NAME}/msp/customers"))
            .header("x-api-key", key("alice"))
            .body(())
            .unwrap();
        requests = requests.ready().await.unwrap();
        let (answer, _) = requests.send_request(request, true).unwrap();
        answers.spawn(async move {
            let answer = answer.await.unwrap();
            let status = answer.status().as_u16();
            let (mut body, mut bytes) = (answer.into_body(), 0);
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                bytes += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            (status, bytes)
        });
    }
    world
        .until_admin("/admin/status", |answer| {
            answer.json()["requests_in_flight"] == STREAMS
        })
        .await;
    world.gateway.signal(Signal::TERM);
    world
        .until_admin("/readyz", |answer| answer.status == 503)
        .await;
    let answers = timeout(PATIENCE, answers.join_all()).await.unwrap();
    assert!(
        answers
            .iter()
            .all(|(status, bytes)| *status == 200 && *bytes > 0),
        "{answers:?}"
    );
    // The connection's end was announced: not cut, and no error.
    timeout(PATIENCE, connection)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(requests.ready().await.is_err());
    let ended = world.gateway.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
