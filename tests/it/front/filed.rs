//! Tests of bodies that the system sends from files, over real sockets because pipes cannot send
//! files.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use msp_gateway::cache::{FilePart, FiledBodies};
use msp_gateway::clock::{Clock, Duration};
use msp_gateway::exchange::AnswerBody;
use msp_gateway::server::{Connections, Drain, Ending, Patience, ServerTransport};

/// A socket that counts the bytes sent from files.
struct Counting {
    io: TcpStream,
    from_files: Arc<AtomicUsize>,
}

impl ServerTransport for Counting {
    fn has_arrived(&self) -> bool {
        self.io.has_arrived()
    }

    fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        before: &[u8],
        part: &FilePart,
    ) -> Option<Poll<io::Result<usize>>> {
        let polled = self.io.poll_send_file(cx, before, part);
        if let Some(Poll::Ready(Ok(bytes))) = &polled {
            let bytes = bytes.saturating_sub(before.len());
            self.from_files.fetch_add(bytes, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Makes one connection to a server that answers everything with `body`. Returns the client's end
/// and the bytes sent from files so far. Its buffers hold a few packets, so that the body is sent
/// in many pieces.
async fn asked(
    body: Bytes,
    files: FiledBodies,
) -> (TcpStream, Arc<AtomicUsize>, tokio::task::JoinHandle<Ending>) {
    let connections = Connections {
        answering: Arc::new(move |_| {
            let body = AnswerBody::full(body.clone());
            Box::pin(async move { Ok::<_, Infallible>(Response::new(body)) })
        }),
        patience: Patience {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write_stall: Duration::from_secs(15),
        },
        clock: Clock::system(),
        drain: Drain::default(),
        files,
    };
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(16 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(1).unwrap();
    let asking = TcpSocket::new_v4().unwrap();
    asking.set_recv_buffer_size(16 << 10).unwrap();
    let asking = asking
        .connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (io, _) = listener.accept().await.unwrap();
    let from_files = Arc::new(AtomicUsize::new(0));
    let io = Counting {
        io,
        from_files: from_files.clone(),
    };
    let served = tokio::spawn(connections.serve(io, None));
    (asking, from_files, served)
}

async fn head(from: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

const BYTES: usize = 3_000_001;

/// Makes a body of which no two parts look the same.
fn large() -> Bytes {
    (0..BYTES)
        .map(|at| (at / 251 + at % 251) as u8)
        .collect::<Vec<u8>>()
        .into()
}

#[tokio::test]
async fn a_filed_body_arrives_whole_behind_its_head_and_is_not_written() {
    let (files, plain) = (FiledBodies::default(), large());
    let filed = files.file(&plain).unwrap();
    let (mut asking, from_files, served) = asked(filed, files.clone()).await;
    // Two requests at once: the second head is sent behind the first body.
    let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    asking
        .write_all(request.repeat(2).as_bytes())
        .await
        .unwrap();
    for _ in 0..2 {
        let head = head(&mut asking).await;
        assert!(
            head.contains(&format!("content-length: {BYTES}\r\n")),
            "{head}"
        );
        let mut body = vec![0; BYTES];
        asking.read_exact(&mut body).await.unwrap();
        assert!(body == plain);
    }
    let sent = from_files.load(Ordering::Relaxed);
    // The last bytes of a body are too few for a file.
    assert!(
        sent > 2 * (BYTES - (64 << 10)) && sent <= 2 * BYTES,
        "{sent}"
    );
    drop(asking);
    assert_eq!(served.await.unwrap(), Ending::Done);
    assert_eq!(files.count(), 0);
}

#[tokio::test]
async fn a_body_without_a_file_is_written() {
    let (mut asking, from_files, _served) = asked(large(), FiledBodies::default()).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    asking.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    asking.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&large()));
    assert_eq!(from_files.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_reader_that_leaves_amid_a_filed_body_ends_its_connection() {
    let (files, plain) = (FiledBodies::default(), large());
    let filed = files.file(&plain).unwrap();
    let (mut asking, _, served) = asked(filed, files.clone()).await;
    asking
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut some = vec![0; 100_000];
    asking.read_exact(&mut some).await.unwrap();
    drop(asking);
    served.await.unwrap();
    assert_eq!(files.count(), 0);
}
