//! A caller's end of a connection in memory: sends bytes, reads answers. Shared with `tests/it`.

use std::io::Read as _;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// The caller's end of a connection.
pub struct Peer {
    pub io: DuplexStream,
    pub buffer: Vec<u8>,
    /// Whether the next reply answers a HEAD request.
    pub head_only: bool,
    /// All bytes ever received, for tests that search them.
    heard: Arc<Mutex<Vec<u8>>>,
}

/// An answer as it arrived.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    /// Returns the body without its content coding.
    pub fn decoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let read = match self.header("content-encoding") {
            "" => return self.body.clone(),
            "zstd" => zstd::Decoder::new(&*self.body)
                .unwrap()
                .read_to_end(&mut out),
            "gzip" => flate2::read::GzDecoder::new(&*self.body).read_to_end(&mut out),
            other => panic!("{other}"),
        };
        read.unwrap();
        out
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.decoded()).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

impl Peer {
    /// Creates a peer. Received bytes are added to `heard`.
    pub fn new(io: DuplexStream, heard: Arc<Mutex<Vec<u8>>>) -> Self {
        Self {
            io,
            buffer: Vec::new(),
            head_only: false,
            heard,
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other end may be closed already, which some tests are about.
        let _ = self.io.write_all(bytes.as_ref()).await;
    }

    /// Reads the head of the next answer. Its body has still to be read.
    pub async fn reply_head(&mut self) -> Option<(u16, HeaderMap)> {
        loop {
            if let Some((status, headers, bytes)) = self.head() {
                self.buffer.drain(..bytes);
                return Some((status, headers));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads the next answer. `None` if the connection ends before one.
    pub async fn reply(&mut self) -> Option<Reply> {
        let (status, headers) = self.reply_head().await?;
        let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        let mut body = Vec::new();
        if self.head_only || status == 304 || status < 200 {
            self.head_only = false;
        } else if let Some(length) = text("content-length") {
            body = self.take(length.parse().unwrap()).await;
        } else if text("transfer-encoding").as_deref() == Some("chunked") {
            loop {
                let line = self.line().await;
                let size = usize::from_str_radix(&line, 16).unwrap();
                body.extend(self.take(size).await);
                if size == 0 {
                    while !self.line().await.is_empty() {}
                    break;
                }
                self.take(2).await;
            }
        }
        Some(Reply {
            status,
            headers,
            body,
        })
    }

    async fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.buffer.len() < bytes {
            assert!(self.more().await, "the body was cut");
        }
        self.buffer.drain(..bytes).collect()
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.take(end + 2).await;
                return String::from_utf8(line[..end].to_vec()).unwrap();
            }
            assert!(self.more().await, "the body was cut");
        }
    }

    /// Returns everything until the connection ends.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    async fn more(&mut self) -> bool {
        let before = self.buffer.len();
        let read = self.io.read_buf(&mut self.buffer).await.unwrap_or(0);
        self.heard.lock().extend_from_slice(&self.buffer[before..]);
        read > 0
    }

    fn head(&self) -> Option<(u16, HeaderMap, usize)> {
        let end = self.buffer.windows(4).position(|w| w == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&self.buffer[..end]).unwrap();
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap()[9..12].parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.trim().parse().unwrap(),
            );
        }
        Some((status, headers, end + 4))
    }
}

pub fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
}

pub fn post(target: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}
