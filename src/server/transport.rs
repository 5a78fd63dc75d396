//! What a connection can do besides reading and writing.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, recv};
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::cache::FilePart;

/// The transport of a connection.
pub trait ServerTransport {
    /// Returns whether unread bytes have arrived that the runtime may not have noticed yet.
    fn has_arrived(&self) -> bool;

    /// Returns the first byte that the other end has sent, without consuming it. `None` if it
    /// cannot be read like that, or if none will come.
    fn poll_first_byte(&self, _cx: &mut Context<'_>) -> Poll<Option<u8>> {
        Poll::Ready(None)
    }

    /// Sends `before` and then `part`, which the system reads from its file. Returns how many bytes
    /// of both were sent. `None` if the system cannot do that here: the caller must then write
    /// both.
    fn poll_send_file(
        &self,
        _cx: &mut Context<'_>,
        _before: &[u8],
        _part: &FilePart,
    ) -> Option<Poll<io::Result<usize>>> {
        None
    }
}

impl ServerTransport for TcpStream {
    fn has_arrived(&self) -> bool {
        let mut byte = [0; 1];
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(self, &mut byte, look), Ok((_, bytes)) if bytes > 0)
    }

    fn poll_first_byte(&self, cx: &mut Context<'_>) -> Poll<Option<u8>> {
        let mut byte = [0; 1];
        let mut buf = ReadBuf::new(&mut byte);
        let peeked = ready!(self.poll_peek(cx, &mut buf));
        Poll::Ready(peeked.ok().and_then(|_| buf.filled().first().copied()))
    }

    fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        before: &[u8],
        part: &FilePart,
    ) -> Option<Poll<io::Result<usize>>> {
        Some(poll_send_file(self, cx, before, part))
    }
}

/// Decrypted records have already been noticed. What is written is encrypted here.
impl<I: ServerTransport> ServerTransport for tokio_rustls::server::TlsStream<I> {
    fn has_arrived(&self) -> bool {
        self.get_ref().0.has_arrived()
    }
}

/// A pipe in memory wakes its reader at once, and the system does not know it.
impl ServerTransport for tokio::io::DuplexStream {
    fn has_arrived(&self) -> bool {
        false
    }
}

fn poll_send_file(
    to: &TcpStream,
    cx: &mut Context<'_>,
    before: &[u8],
    part: &FilePart,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(to.poll_write_ready(cx))?;
        match to.try_io(Interest::WRITABLE, || send_now(to, before, part)) {
            // The socket is not ready after all. The runtime wakes this task when it is.
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

/// Other systems have no such call.
#[cfg(not(target_os = "linux"))]
fn send_now(_: &TcpStream, _: &[u8], _: &FilePart) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sends as much as the system accepts now.
#[cfg(target_os = "linux")]
fn send_now(to: &TcpStream, before: &[u8], part: &FilePart) -> io::Result<usize> {
    use rustix::fs::sendfile;
    use rustix::io::{Errno, retry_on_intr};
    use rustix::net::{SendFlags, send};

    let mut sent = 0;
    if !before.is_empty() {
        // The part follows, so these bytes need no packet of their own.
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sent = retry_on_intr(|| send(to, before, flags))?;
        if sent < before.len() {
            return Ok(sent);
        }
    }
    let mut offset = part.offset;
    match retry_on_intr(|| sendfile(to, part, Some(&mut offset), part.bytes)) {
        Ok(bytes) => Ok(sent + bytes),
        Err(Errno::AGAIN) if sent > 0 => Ok(sent),
        Err(why) => Err(why.into()),
    }
}
