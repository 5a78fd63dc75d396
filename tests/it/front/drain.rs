//! Tests that leaving loses no request, over real sockets because the socket matters here.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::kit::*;
use msp_gateway::cache::FiledBodies;
use msp_gateway::clock::{Clock, Duration};
use msp_gateway::server::{
    Drain, DrainPhase, Drained, Inherited, Listeners, Server, ServerOptions, Tls,
};

pub fn options() -> ServerOptions {
    ServerOptions {
        public: "127.0.0.1:0".parse().unwrap(),
        admin_hosts: Vec::new(),
        docs: true,
        admin: "127.0.0.1:0".parse().unwrap(),
        public_tls: None,
        admin_tls: None,
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(15),
        request_timeout: REQUEST_TIMEOUT,
        idle_timeout: Duration::from_secs(60),
        write_stall_timeout: Duration::from_secs(15),
        connections_max: 100,
        connections_per_peer_max: 100,
        requests_in_flight_max: IN_FLIGHT_MAX,
        exports_max: IN_FLIGHT_MAX,
        followers_max: IN_FLIGHT_MAX,
        drain_delay: Duration::ZERO,
        drain_grace: Duration::from_secs(20),
    }
}

pub struct Running {
    pub address: std::net::SocketAddr,
    pub drain: Drain,
    pub task: tokio::task::JoinHandle<Drained>,
}

async fn run(front: &Front, options: ServerOptions) -> Running {
    run_over(front, options, Inherited::default(), None).await
}

/// Runs a server over real sockets. With `tls`, its public listener speaks only TLS.
pub async fn run_over(
    front: &Front,
    options: ServerOptions,
    inherited: Inherited,
    tls: Option<Arc<Tls>>,
) -> Running {
    let listeners = Listeners::bind(&options, inherited).await.unwrap();
    let address = listeners.public_address();
    let drain = Drain::default();
    let answering = front.connections.answering.clone();
    let server = Server {
        options,
        clock: Clock::system(),
        metrics: front.metrics.clone(),
        public: answering.clone(),
        admin: answering,
        public_tls: tls,
        admin_tls: None,
        drain: drain.clone(),
        files: FiledBodies::default(),
    };
    Running {
        address,
        drain,
        task: tokio::spawn(server.run(listeners)),
    }
}

async fn send(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = get("/msp/customers", KEY);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn what_is_in_flight_ends_and_then_the_server_does() {
    let (front, release) = Front::holding();
    let running = run(&front, options()).await;
    let mut stream = send(running.address).await;
    while front.seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(front.metrics.connections.get(), 1);
    running.drain.begin();
    running.drain.reached(DrainPhase::Closing).await;
    // The listener closes. No new connection is accepted.
    while TcpStream::connect(running.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.add_permits(1);
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("connection: close"), "{text}");
    drop(stream);
    assert_eq!(running.task.await.unwrap(), Drained { cut: 0 });
    assert_eq!(front.metrics.connections.get(), 0);
}

#[tokio::test]
async fn a_second_signal_cuts() {
    let front = Front::with(|_| Box::pin(std::future::pending()));
    let running = run(&front, options()).await;
    let mut stream = send(running.address).await;
    while front.seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    running.drain.begin();
    running.drain.reached(DrainPhase::Closing).await;
    running.drain.cut();
    assert_eq!(running.task.await.unwrap(), Drained { cut: 1 });
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert_eq!(text, "");
    assert_eq!(front.last_line()["status"], 499);
}

#[tokio::test(start_paused = true)]
async fn keep_alive_callers_are_moved_on_before_the_end() {
    let front = Front::new();
    let mut peer = front.connect();
    peer.send(get("/msp/customers", KEY)).await;
    assert_eq!(peer.reply().await.unwrap().header("connection"), "");
    front.drain.begin();
    // The request is accepted, and the answer tells the caller to reconnect elsewhere.
    peer.send(get("/msp/customers", KEY)).await;
    let reply = peer.reply().await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, "close"));
    assert_eq!(peer.rest().await, "");
    // An idle connection stays open for a moment, in case its request is on its way.
    let mut idle = front.connect();
    idle.send("").await;
    front.drain.advance(DrainPhase::Closing);
    idle.send(get("/msp/customers", KEY)).await;
    assert_eq!(idle.reply().await.unwrap().status, 200);
    assert_eq!(idle.rest().await, "");
}

#[tokio::test]
async fn an_occupied_port_names_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options();
    options.admin = taken.local_addr().unwrap();
    let error = Listeners::bind(&options, Inherited::default())
        .await
        .unwrap_err();
    assert_eq!(error.setting, "listen.admin");
    let text = error.to_string();
    assert!(text.contains("another program already listens"), "{text}");
}

#[tokio::test]
async fn an_inherited_socket_keeps_who_waits_for_the_next() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let inherited = || Inherited::public(held.try_clone().unwrap());
    let front = Front::new();
    let first = run_over(&front, options(), inherited(), None).await;
    assert_eq!(first.address, held.local_addr().unwrap());
    let mut text = String::new();
    let mut served = send(first.address).await;
    while front.seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    first.drain.begin();
    first.drain.reached(DrainPhase::Closing).await;
    // Nobody accepts any more, and no connection is refused.
    let mut waiting = send(first.address).await;
    assert_eq!(first.task.await.unwrap(), Drained { cut: 0 });
    served.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(front.seen.lock().len(), 1);
    let second = run_over(&front, options(), inherited(), None).await;
    second.drain.begin();
    let mut text = String::new();
    waiting.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(second.task.await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn one_peer_leaves_room_for_others() {
    let front = Front::new();
    let mut options = options();
    options.connections_per_peer_max = 2;
    let running = run(&front, options).await;
    let from = async |text: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{text}:0").parse().unwrap()).unwrap();
        socket.connect(running.address).await.unwrap()
    };
    let mut held = vec![from("127.0.0.1").await, from("127.0.0.1").await];
    let mut byte = [0];
    let ended = from("127.0.0.1").await.read(&mut byte).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(front.metrics.connections_refused.get(), 1);
    let mut other = from("127.0.0.2").await;
    other
        .write_all(get("/msp/customers", KEY).as_bytes())
        .await
        .unwrap();
    assert_eq!(other.read(&mut byte).await.unwrap(), 1);
    // A place is free again once its connection has ended.
    drop(held.pop());
    while front.metrics.connections.get() > 2 {
        tokio::task::yield_now().await;
    }
    let mut again = from("127.0.0.1").await;
    again
        .write_all(get("/msp/customers", KEY).as_bytes())
        .await
        .unwrap();
    assert_eq!(again.read(&mut byte).await.unwrap(), 1);
    running.drain.cut();
    running.task.await.unwrap();
}
