//! Tests of the bytes of answers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn raw(kit: &Kit, request: &str) -> tokio::io::DuplexStream {
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(Arc::clone(&kit.sandbox).serve_io(far));
    near.write_all(request.as_bytes()).await.unwrap();
    near
}

#[tokio::test(start_paused = true)]
async fn a_stall_ends_when_the_reader_leaves() {
    let kit = kit(small());
    for kind in [
        FaultKind::StallBody { ms: None },
        FaultKind::Latency { ms: 600_000 },
    ] {
        kit.sandbox.fault(SimFault::on_any(kind).times(1));
        let request =
            format!("GET /msp/customers HTTP/1.1\r\nhost: x\r\nx-api-key: {WIV_KEY}\r\n\r\n");
        let near = raw(&kit, &request).await;
        crate::clock::sleep(Duration::from_secs(1)).await;
        assert_eq!(kit.sandbox.counts().vendors["wiv"].in_flight, 1);
        let before = kit.sandbox.clock.now();
        drop(near);
        crate::clock::sleep(Duration::from_millis(1)).await;
        assert_eq!(kit.sandbox.counts().vendors["wiv"].in_flight, 0);
        assert_eq!(kit.sandbox.clock.now() - before, Duration::from_millis(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connection_sends_not_one_byte() {
    let kit = kit(small());
    for kind in [FaultKind::DropBefore, FaultKind::DropAfter] {
        kit.sandbox.fault(SimFault::on_any(kind).times(1));
        let request =
            format!("GET /msp/customers HTTP/1.1\r\nhost: x\r\nx-api-key: {WIV_KEY}\r\n\r\n");
        let mut bytes = Vec::new();
        raw(&kit, &request)
            .await
            .read_to_end(&mut bytes)
            .await
            .unwrap();
        assert!(bytes.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn silent_and_slow_peers_are_not_kept() {
    let kit = kit(small());
    let before = kit.sandbox.clock.now();
    let mut bytes = Vec::new();
    raw(&kit, "GET /msp/customers HTTP/1.1\r\nhost:")
        .await
        .read_to_end(&mut bytes)
        .await
        .unwrap();
    assert!(kit.sandbox.clock.now() - before <= HEAD_TIME_MAX);
    let before = kit.sandbox.clock.now();
    let request = "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{";
    raw(&kit, request)
        .await
        .read_to_end(&mut bytes)
        .await
        .unwrap();
    assert_eq!(kit.sandbox.clock.now() - before, Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn one_connection_carries_many_requests() {
    let kit = kit(small());
    let mut sender = kit.connect().await;
    for _ in 0..20 {
        sender.ready().await.unwrap();
        let response = sender
            .send_request(wiv_request(Method::GET, "/msp/customers", ""))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(
        kit.sandbox.counts().of(SimOperation::Customers).answered,
        20
    );
}

#[tokio::test]
async fn a_listener_is_served_until_shutdown() {
    let kit = kit(small());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(Arc::clone(&kit.sandbox).serve(listener, async {
        let _ = stopped.await;
    }));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /__sandbox/counts HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    stop.send(()).unwrap();
    serving.await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
