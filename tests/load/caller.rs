//! Callers that send requests all the time and count failures. They never retry: a request that
//! another client would repeat counts as a failure here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use msp_gateway::clock::{Duration, Instant, sleep, timeout};
use tokio::net::TcpSocket;

/// Time limit for a connection, and for an answer with its body. It is longer than any time limit
/// of a gateway.
const PATIENCE: Duration = Duration::from_secs(35);

/// How requests are sent.
#[derive(Clone)]
pub struct Load {
    /// The address of the gateway.
    pub address: SocketAddr,
    /// The address to connect from. Without it, the system chooses.
    pub from: Option<IpAddr>,
    /// Sent as `X-API-Key`. Empty for none.
    pub key: String,
    /// Connections that send one request after the other.
    pub busy: usize,
    /// Connections that pause up to this long before each request.
    pub pausing: (usize, Duration),
    /// Requests per second of all busy connections together. 0: as fast as they are answered.
    pub rate: u64,
    /// The body of the searches to send, with `@` in place of the request's number. Without it,
    /// requests are sent that memory answers.
    pub search: Option<String>,
}

/// The results.
#[derive(Debug, Default)]
pub struct Tally {
    /// Number of answers with 200 and a complete body.
    pub good: u64,
    /// Number of all others, by what happened.
    pub failed: BTreeMap<String, u64>,
    /// Connections opened.
    pub connections: u64,
    /// Connections that the gateway closed while no request was on them.
    pub closed_idle: u64,
    /// Seconds each good answer took, sorted.
    pub took: Vec<f32>,
    /// Seconds each refusal (503) took, sorted.
    pub refused: Vec<f32>,
    /// Refusals without `Retry-After`.
    pub unadvised: u64,
}

impl Tally {
    /// All failures.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Takes in another one.
    pub fn add(&mut self, other: Self) {
        self.good += other.good;
        self.connections += other.connections;
        self.closed_idle += other.closed_idle;
        self.took.extend(other.took);
        self.refused.extend(other.refused);
        self.unadvised += other.unadvised;
        for (what, count) in other.failed {
            *self.failed.entry(what).or_default() += count;
        }
    }

    /// Sorts the times.
    pub fn sorted(mut self) -> Self {
        self.took.sort_by(f32::total_cmp);
        self.refused.sort_by(f32::total_cmp);
        self
    }
}

/// The time within which this share of them came, in seconds.
pub fn within(sorted: &[f32], share: f64) -> f32 {
    let at = (sorted.len() as f64 * share) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(at.min(last)).copied().unwrap_or(0.0)
}

/// Stops callers, and counts their requests.
#[derive(Clone, Default)]
pub struct Progress {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl Progress {
    /// Each caller ends after the request it is at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Requests that have ended.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Returns whether callers must end.
    pub fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Load {
    /// Sends requests until it is stopped.
    pub async fn run(&self, progress: &Progress) -> Tally {
        let (pausing, pause) = self.pausing;
        let load = Arc::new(self.clone());
        let mut callers = tokio::task::JoinSet::new();
        for nth in 0..self.busy + pausing {
            let pause = if nth < self.busy {
                Duration::ZERO
            } else {
                pause
            };
            callers.spawn(Caller::new(load.clone(), progress.clone(), nth, pause).run());
        }
        let mut all = Tally::default();
        while let Some(tally) = callers.join_next().await {
            match tally {
                Ok(tally) => all.add(tally),
                Err(why) => {
                    let what = format!("the caller itself failed: {why}");
                    all.failed.insert(what, 1);
                }
            }
        }
        all.sorted()
    }
}

/// A connection that is kept.
pub type Line = SendRequest<Full<Bytes>>;

/// The parts of an answer's head that matter here.
struct Answer {
    status: StatusCode,
    advised: bool,
}

/// A caller that sends requests.
pub struct Caller {
    load: Arc<Load>,
    progress: Progress,
    /// Between requests: the longest pause of one that pauses, the time between two of a rate.
    pause: Duration,
    every: Duration,
    asked: usize,
    /// What came of it so far.
    pub tally: Tally,
}

impl Caller {
    /// The first request has the number `nth`.
    pub fn new(load: Arc<Load>, progress: Progress, nth: usize, pause: Duration) -> Self {
        let busy = u64::try_from(load.busy).unwrap_or(1);
        let every = match load.rate {
            0 => Duration::ZERO,
            rate => Duration::from_micros(1_000_000 * busy / rate),
        };
        Self {
            load,
            progress,
            pause,
            every,
            asked: nth,
            tally: Tally::default(),
        }
    }

    async fn run(mut self) -> Tally {
        let mut connection = None;
        let mut due = Instant::now();
        while !self.progress.over() {
            if !self.pause.is_zero() {
                sleep(self.pause.mul_f64(fastrand::f64())).await;
            } else if !self.every.is_zero() {
                due += self.every;
                let wait = due.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    due = Instant::now();
                } else {
                    sleep(wait).await;
                }
            }
            self.ask(&mut connection).await;
        }
        self.tally
    }

    /// Sends one request, on the open connection or a new one. Returns whether the answer was good.
    pub async fn ask(&mut self, connection: &mut Option<Line>) -> bool {
        let begun = Instant::now();
        let answered = timeout(PATIENCE, self.answered(connection)).await;
        let answered = answered.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let took = begun.elapsed().as_secs_f32();
        let failed = match answered {
            Ok(answer) if answer.status == StatusCode::OK => {
                self.tally.good += 1;
                self.tally.took.push(took);
                None
            }
            Ok(answer) => {
                if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                    self.tally.refused.push(took);
                    self.tally.unadvised += u64::from(!answer.advised);
                }
                Some(format!("status {}", answer.status))
            }
            Err(what) => {
                *connection = None;
                Some(what)
            }
        };
        let is_good = failed.is_none();
        if let Some(what) = failed {
            *self.tally.failed.entry(what).or_default() += 1;
        }
        self.progress.asked.fetch_add(1, Ordering::Relaxed);
        is_good
    }

    async fn answered(&mut self, connection: &mut Option<Line>) -> Result<Answer, String> {
        let mut request = self.request();
        self.asked += 1;
        let answer = loop {
            let kept = connection.take();
            let is_new = kept.is_none();
            let mut sender = match kept {
                Some(kept) => kept,
                None => self.connect().await?,
            };
            match sender.try_send_request(request).await {
                Ok(answer) => {
                    *connection = Some(sender);
                    break answer;
                }
                // The connection had been closed before a byte of the request was written. A client
                // notices that first, and opens another connection.
                Err(mut unsent) => match unsent.take_message() {
                    Some(back) if !is_new => {
                        self.tally.closed_idle += 1;
                        request = back;
                    }
                    _ => return Err(format!("no answer: {}", told(unsent.error()))),
                },
            }
        };
        let status = answer.status();
        let closing = answer.headers().get(header::CONNECTION);
        let closing = closing.is_some_and(|value| value == "close");
        let advised = answer.headers().contains_key(header::RETRY_AFTER);
        let body = answer.into_body().collect().await;
        body.map_err(|why| format!("a cut body: {}", told(&why)))?;
        if closing {
            *connection = None;
        }
        Ok(Answer { status, advised })
    }

    async fn connect(&mut self) -> Result<Line, String> {
        self.tally.connections += 1;
        let connecting = async {
            let socket = if self.load.address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            if let Some(from) = self.load.from {
                socket.bind(SocketAddr::new(from, 0))?;
            }
            socket.connect(self.load.address).await
        };
        let stream = connecting
            .await
            .map_err(|why| format!("no connection: {}", why.kind()))?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(|why| format!("no connection: {}", told(&why)))?;
        tokio::spawn(driver);
        Ok(sender)
    }

    /// Returns the search to send. Without one, returns lists, first pages and parts of both in
    /// turn.
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::builder().header(header::HOST, self.load.address.to_string());
        if !self.load.key.is_empty() {
            request = request.header("x-api-key", &self.load.key);
        }
        let built = match (&self.load.search, self.asked % 3) {
            (Some(body), _) => search(request, body.replace('@', &self.asked.to_string())),
            (None, 0) => request.uri("/msp/customers").body(Full::default()),
            (None, 1) => request
                .uri("/msp/customers?fields=id")
                .body(Full::default()),
            _ => search(request, "{\"max_returned_items\":25}".to_owned()),
        };
        built.unwrap_or_default()
    }
}

fn search(request: http::request::Builder, body: String) -> http::Result<Request<Full<Bytes>>> {
    request
        .method("POST")
        .uri("/v2/cases/msp/search")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(body))
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
