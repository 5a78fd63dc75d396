//! Connections that ended before anybody looked at the request: no verdict on the vendor.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::calls::{MS, PAGE, SECOND, ask, fault, wiv_rig};
use super::test_vendor::{TestVendor, VendorReply, options, rig, spend};
use msp_gateway::admission::CircuitState;
use msp_gateway::clock::Clock;
use msp_gateway::domain::{Operation, Vendor};
use msp_gateway::stack::outbound;
use msp_gateway::upstream::Fault;
use msp_gateway::upstream::connect::{InMemory, Pipe};

/// What a vendor may do with a request on a connection that it gave up long ago.
fn farewells() -> Vec<(&'static str, VendorReply)> {
    let late = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    vec![
        ("closed", VendorReply::Last(Vec::new())),
        ("closed late", VendorReply::LastIn(Vec::new(), MS * 50)),
        ("408", VendorReply::Last(late.as_bytes().to_vec())),
    ]
}

#[tokio::test(start_paused = true)]
async fn stale_connections_are_no_verdict_on_the_vendor() {
    for (name, farewell) in farewells() {
        let slow = || VendorReply::ok(PAGE).after(SECOND);
        let mut options = options(Vendor::Wiv);
        options.retry.budget_percent = 0;
        let rig = Arc::new(rig(TestVendor::new(move |_| slow()), options, None));
        let eight = |operation| {
            let rig = Arc::clone(&rig);
            async move {
                let asked: Vec<_> = (0..8)
                    .map(|_| {
                        let rig = Arc::clone(&rig);
                        tokio::spawn(async move { ask(&rig, operation, spend()).await })
                    })
                    .collect();
                futures_util::future::join_all(asked).await
            }
        };
        for result in eight(Operation::Search).await {
            result.unwrap().unwrap();
        }
        assert_eq!(rig.vendor.connections(), 8, "{name}");
        rig.vendor.now_does(move |seen| match seen.nth {
            1 => slow(),
            _ => farewell.clone(),
        });
        // All eight kept connections are dead, and nobody knows.
        for operation in [Operation::Search, Operation::Customers] {
            for result in eight(operation).await {
                assert_eq!(result.unwrap().unwrap().body, PAGE, "{name}");
            }
            assert_eq!(rig.gates.circuit.snapshot().state, CircuitState::Closed);
        }
        assert!(
            rig.vendor.count() <= 8 * 5,
            "{name}: {}",
            rig.vendor.count()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_continuation_on_a_stale_connection_is_sent_once_and_blames_nobody() {
    for (name, farewell) in farewells() {
        let rig = wiv_rig(TestVendor::replies([VendorReply::ok(PAGE)]));
        ask(&rig, Operation::Continue, spend()).await.unwrap();
        rig.vendor.now_does(move |seen| match seen.nth {
            1 => VendorReply::ok(PAGE),
            _ => farewell.clone(),
        });
        let sent = rig.vendor.count();
        assert_eq!(
            fault(&rig, Operation::Continue).await,
            Fault::StaleConnection,
            "{name}"
        );
        assert_eq!(rig.vendor.count() - sent, 1, "{name}");
        assert!(!Fault::StaleConnection.was_not_sent());
        for _ in 0..6 {
            ask(&rig, Operation::Continue, spend()).await.unwrap();
            let _ = ask(&rig, Operation::Continue, spend()).await;
        }
        assert_eq!(rig.gates.circuit.snapshot().state, CircuitState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_closes_new_connections_fails() {
    let rig = wiv_rig(TestVendor::replies([VendorReply::Last(Vec::new())]));
    for _ in 0..5 {
        assert_eq!(fault(&rig, Operation::Continue).await, Fault::Reset);
    }
    assert_eq!(rig.gates.circuit.snapshot().state, CircuitState::Open);
    // Some bytes of an answer came over the kept connection: that is a failure, too.
    let rig = wiv_rig(TestVendor::replies([
        VendorReply::ok(PAGE),
        VendorReply::Last(b"HTTP/1.1 200 OK\r\ncontent-".to_vec()),
    ]));
    ask(&rig, Operation::Continue, spend()).await.unwrap();
    assert_eq!(fault(&rig, Operation::Continue).await, Fault::Reset);
    assert_eq!(rig.vendor.count(), 2);
}

/// How a vendor says over HTTP/2 that it did not look at a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum NotHandled {
    GoAway,
    RefusedStream,
}

/// A vendor over HTTP/2 that handles nothing on its first connection, and counts the requests that
/// it saw.
fn http2_vendor(how: NotHandled, seen: Arc<AtomicU32>) -> Http2Pipes {
    let connections = AtomicU32::new(0);
    Http2Pipes(InMemory::new(move || {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let first = connections.fetch_add(1, Ordering::Relaxed) == 0;
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            if first && how == NotHandled::GoAway {
                // SETTINGS; and when the request came, GOAWAY with no stream handled.
                theirs.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                let mut preface = [0; 24];
                theirs.read_exact(&mut preface).await.unwrap();
                loop {
                    let mut head = [0; 9];
                    theirs.read_exact(&mut head).await.unwrap();
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    let mut rest = vec![0; length as usize];
                    theirs.read_exact(&mut rest).await.unwrap();
                    if head[3] == 1 {
                        break;
                    }
                }
                seen.fetch_add(1, Ordering::Relaxed);
                let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
                theirs.write_all(goaway).await.unwrap();
                let _ = theirs.read_to_end(&mut Vec::new()).await;
                return;
            }
            let mut served = h2::server::handshake(theirs).await.unwrap();
            while let Some(Ok((_, mut respond))) = served.accept().await {
                seen.fetch_add(1, Ordering::Relaxed);
                if first {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                    continue;
                }
                let head = http::Response::new(());
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data(PAGE.into(), true).unwrap();
            }
        });
        ours
    }))
}

/// Pipes whose other end speaks HTTP/2.
#[derive(Clone)]
struct Http2Pipes(InMemory);

impl tower::Service<Uri> for Http2Pipes {
    type Response = TokioIo<Http2Pipe>;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), io::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let made = self.0.call(uri);
        Box::pin(async move { Ok(TokioIo::new(Http2Pipe(TokioIo::new(made.await?)))) })
    }
}

struct Http2Pipe(TokioIo<Pipe>);

impl Connection for Http2Pipe {
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl tokio::io::AsyncRead for Http2Pipe {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl tokio::io::AsyncWrite for Http2Pipe {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_vendor_did_not_handle_goes_again_over_http2() {
    for how in [NotHandled::GoAway, NotHandled::RefusedStream] {
        for (operation, good, sent) in [
            (Operation::Search, true, 2),
            (Operation::Invoices, true, 2),
            (Operation::Continue, false, 1),
        ] {
            let seen = Arc::new(AtomicU32::new(0));
            let mut rig = wiv_rig(TestVendor::replies([VendorReply::Hang]));
            rig.options.retry.budget_percent = 0;
            rig.service = outbound(
                &rig.options,
                &rig.gates,
                &Clock::system(),
                &rig.metrics,
                http2_vendor(how, Arc::clone(&seen)),
            );
            let result = ask(&rig, operation, spend()).await;
            assert_eq!(result.is_ok(), good, "{how:?} {operation:?}");
            if let Err(error) = result {
                assert_eq!(error.fault, Fault::StaleConnection, "{how:?}");
            }
            assert_eq!(seen.load(Ordering::Relaxed), sent, "{how:?} {operation:?}");
            assert_eq!(rig.gates.circuit.snapshot().state, CircuitState::Closed);
        }
    }
}
