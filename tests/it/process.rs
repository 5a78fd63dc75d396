//! Programs under test: started with real sockets on free ports, watched through what they print
//! and answer, and ended by their own id, at the latest when the test drops them.

use std::collections::HashSet;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use msp_gateway::access::CallerKeyHash;
use msp_gateway::clock::{Duration, Instant, timeout};
use msp_gateway::sandbox::{NABLE_ACCOUNT, NABLE_KEY, WIV_KEY};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for anything: far beyond what a busy machine needs, and an end to what hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What every scroll id begins with, in the text that the vendor gives it.
const SCROLL_ID_HEAD: &[u8] = b"\x14include_context_uuid";
/// An answer's body at most.
const BODY_BYTES_MAX: usize = 64 << 20;

/// What a program prints on one of its two outputs.
#[derive(Default)]
struct Printed {
    state: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Printed {
    fn of(mut from: impl Read + Send + 'static) -> Arc<Self> {
        let printed = Arc::new(Self::default());
        let theirs = printed.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 16 * 1024];
            let mut whole = Vec::new();
            loop {
                let count = from.read(&mut chunk).unwrap_or(0);
                whole.extend_from_slice(&chunk[..count]);
                // A letter may be cut in two between chunks.
                let upto = whole
                    .iter()
                    .rposition(|b| *b == b'\n')
                    .map_or(0, |at| at + 1);
                let upto = if count == 0 { whole.len() } else { upto };
                let mut state = theirs.state.lock().unwrap();
                state.0.push_str(&String::from_utf8_lossy(&whole[..upto]));
                whole.drain(..upto);
                state.1 = count == 0;
                drop(state);
                theirs.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        printed
    }

    fn text(&self) -> String {
        self.state.lock().unwrap().0.clone()
    }

    /// Waits until `good` says so, or the output has ended; whether it does.
    fn wait(&self, good: impl Fn(&str, bool) -> bool) -> bool {
        let state = self.state.lock().unwrap();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |(text, ended)| {
                !good(text, *ended) && !*ended
            })
            .unwrap();
        good(&state.0, state.1)
    }
}

/// A running `msp-gateway`.
pub struct Process {
    child: Child,
    stdout: Arc<Printed>,
    stderr: Arc<Printed>,
}

/// How a program ended, and all that it printed.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts the program under test with these arguments and nothing else in its environment.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_msp-gateway"));
        command
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied());
        Self::spawn(command)
    }

    /// Starts any program.
    pub fn spawn(command: Command) -> Self {
        Self::spawn_over(command, Stdio::null())
    }

    /// The same, over this standard input.
    pub fn spawn_over(mut command: Command, stdin: Stdio) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Printed::of(child.stdout.take().unwrap());
        let stderr = Printed::of(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Runs it to its end.
    pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        Self::start(arguments, environment).ended()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until standard output holds `what`.
    pub fn until_stdout(&self, what: &str) {
        let there = self.stdout.wait(|text, _| text.contains(what));
        assert!(there, "no {what:?} in {} {}", self.stdout(), self.stderr());
    }

    /// Waits until standard error holds `what` this many times.
    pub fn until_stderr(&self, what: &str, times: usize) {
        let there = self
            .stderr
            .wait(|text, _| text.matches(what).count() >= times);
        assert!(there, "no {what:?} in {}", self.stderr());
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        for printed in [&self.stdout, &self.stderr] {
            let over = printed.wait(|_, ended| ended);
            assert!(over, "does not end: {} {}", self.stdout(), self.stderr());
        }
        // Its outputs are closed, so it has ended or is about to.
        let code = self.child.wait().unwrap().code();
        Ended {
            code,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // By its own handle, which knows whether it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer as it came over the wire.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
    /// Whether the body came to its proper end.
    pub whole: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|why| panic!("{why}: {} {}", self.status, self.text()))
    }

    /// The problem's code; empty where there is none.
    pub fn code(&self) -> String {
        if self.header("content-type") != "application/problem+json" {
            return String::new();
        }
        self.json()["code"].as_str().unwrap_or("").to_owned()
    }

    /// Status and problem code.
    pub fn outcome(&self) -> (u16, String) {
        (self.status, self.code())
    }
}

/// Sends requests over kept connections.
#[derive(Clone)]
pub struct Web(Client<HttpConnector, Full<Bytes>>);

impl Web {
    pub fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    pub async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let request = request.body(body).unwrap();
        let answered = timeout(PATIENCE, self.0.request(request)).await;
        let response = answered
            .unwrap_or_else(|_| panic!("{url}: no answer in time"))
            .unwrap_or_else(|why| panic!("{url}: {why:?}"));
        let (parts, mut incoming) = response.into_parts();
        let mut body = Vec::new();
        let mut trailers = None;
        let mut whole = true;
        loop {
            let frame = timeout(PATIENCE, incoming.frame()).await;
            match frame.unwrap_or_else(|_| panic!("{url}: the body stalls")) {
                None => break,
                Some(Err(_)) => {
                    whole = false;
                    break;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
            assert!(body.len() <= BODY_BYTES_MAX, "{url}: endless");
        }
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.into(),
            trailers,
            whole,
        }
    }

    pub async fn get(&self, url: &str) -> Answer {
        self.send("GET", url, &[], "").await
    }

    /// Waits until a program that prints nothing answers here.
    pub async fn until_up(&self, url: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.status("GET", url, &[]).await != Some(200) {
            assert!(Instant::now() < deadline, "{url}: nobody answers");
            tokio::task::yield_now().await;
        }
    }

    /// The status of an answer without a body to send; none where the connection is cut first.
    pub async fn status(&self, method: &str, url: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).unwrap();
        let response = timeout(PATIENCE, self.0.request(request)).await;
        let response = response.expect("an end of some kind").ok()?;
        let status = response.status().as_u16();
        response.into_body().collect().await.ok()?;
        Some(status)
    }
}

/// The simulated vendors as a program of their own.
pub struct Vendors {
    /// Ends with this.
    _process: Process,
    /// `host:port`
    pub address: String,
    web: Web,
}

impl Vendors {
    pub fn start(cases: usize, web: &Web) -> Self {
        let process = Process::start(
            &[
                "sandbox",
                "--listen",
                "127.0.0.1:0",
                "--cases",
                &cases.to_string(),
                "--requests-per-minute",
                "0",
            ],
            &[],
        );
        process.until_stdout("control http://");
        let address = after(&process.stdout(), "wiv    http://");
        Self {
            _process: process,
            address,
            web: web.clone(),
        }
    }

    pub async fn ask(&self, route: &str) -> Answer {
        let url = format!("http://{}/__sandbox/{route}", self.address);
        let answer = self.web.get(&url).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    pub async fn tell(&self, route: &str, body: &str) -> Value {
        let url = format!("http://{}/__sandbox/{route}", self.address);
        let answer = self.web.send("POST", &url, &[], body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The exact texts of all cases, in the vendor's order.
    pub async fn cases(&self, query: &str) -> Vec<String> {
        rows_of(self.ask(&format!("cases{query}")).await.text())
    }

    /// How many requests of an operation arrived.
    pub async fn asked(&self, operation: &str) -> u64 {
        self.counts().await["operations"][operation]["requests"]
            .as_u64()
            .unwrap()
    }

    pub async fn counts(&self) -> Value {
        self.ask("counts").await.json()
    }
}

/// The exact texts of the members of a JSON array.
pub fn rows_of(text: &str) -> Vec<String> {
    let rows: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).unwrap();
    rows.iter().map(|row| row.get().to_owned()).collect()
}

/// The word that follows `what`.
pub fn after(text: &str, what: &str) -> String {
    let rest = text
        .split_once(what)
        .unwrap_or_else(|| panic!("no {what:?} in {text}"));
    rest.1.split_whitespace().next().unwrap().to_owned()
}

/// A caller's key; the stanza that admits it is made of the same word.
pub fn key(name: &str) -> String {
    format!("mspgw_canary_of_the_caller_{name}_0123456789")
}

/// A stanza of the settings; `more` are further lines.
pub fn caller(name: &str, more: &str) -> String {
    let hash = CallerKeyHash::of(key(name).as_bytes());
    format!("[[callers]]\nname = \"{name}\"\nkey_hash = \"{hash}\"\n{more}\n")
}

/// Someone who sees everything.
pub fn everyone(name: &str) -> String {
    caller(name, "customers = [\"*\"]")
}

struct Seen {
    method: String,
    target: String,
    status: u16,
    code: String,
    text: String,
}

/// The gateway over the simulated vendors, three programs with this one. Every answer is kept, to
/// be held against what must be true of all of them when the test is over.
pub struct World {
    pub vendors: Vendors,
    pub gateway: Process,
    /// `http://host:port`, or `https://…`
    pub public: String,
    pub admin: String,
    pub dir: tempfile::TempDir,
    pub web: Web,
    seen: Mutex<Vec<Seen>>,
    /// What must stand nowhere.
    pub secrets: Mutex<Vec<String>>,
    /// Pieces of [`PART`] letters that must stand nowhere: for many, and long ones.
    pub parts: Mutex<HashSet<String>>,
}

/// Length of the pieces by which a secret is recognised.
pub const PART: usize = 24;

/// A piece of `parts` in `text`.
fn part_in<'a>(parts: &HashSet<String>, text: &'a str) -> Option<&'a str> {
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    runs.filter(|run| run.len() >= PART)
        .flat_map(|run| (0..=run.len() - PART).map(|at| &run[at..at + PART]))
        .find(|part| parts.contains(*part))
}

impl World {
    /// `stanzas` stand at the end of the settings; `environment` overrides any of them.
    pub fn start(cases: usize, stanzas: &str, environment: &[(&str, &str)]) -> Self {
        let web = Web::new();
        let vendors = Vendors::start(cases, &web);
        let dir = tempfile::tempdir().unwrap();
        write_key(&dir.path().join("nable.key"), NABLE_KEY);
        let config = dir.path().join("config.toml");
        let text = settings(&vendors.address, dir.path(), stanzas);
        std::fs::write(&config, text).unwrap();
        let mut all = vec![("WIV_CANARY_KEY", WIV_KEY)];
        all.extend(environment);
        let gateway = Process::start(&["serve", "--config", config.to_str().unwrap()], &all);
        gateway.until_stdout("admin http://");
        let printed = gateway.stdout();
        use base64::Engine as _;
        let head = base64::engine::general_purpose::URL_SAFE.encode(SCROLL_ID_HEAD);
        Self {
            vendors,
            public: after(&printed, "public "),
            admin: after(&printed, "admin "),
            gateway,
            dir,
            web,
            seen: Mutex::default(),
            secrets: Mutex::new(vec![WIV_KEY.to_owned(), NABLE_KEY.to_owned(), head]),
            parts: Mutex::default(),
        }
    }

    pub fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("config.toml")
    }

    /// Rewrites the settings with other stanzas.
    pub fn configure(&self, stanzas: &str) {
        let text = settings(&self.vendors.address, self.dir.path(), stanzas);
        std::fs::write(self.config(), text).unwrap();
    }

    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let url = format!("{}{target}", self.public);
        let answer = self.web.send(method, &url, headers, body).await;
        let mut text = format!("{:?}", answer.headers);
        text.push_str(&String::from_utf8_lossy(&answer.body));
        // A page is kept for its secrets, and thousands of them would be much; what tells is the
        // rest.
        self.seen.lock().unwrap().push(Seen {
            method: method.to_owned(),
            target: target.to_owned(),
            status: answer.status,
            code: answer.code(),
            text,
        });
        answer
    }

    /// As the caller `name`.
    pub async fn get(&self, name: &str, target: &str) -> Answer {
        let bearer = format!("Bearer {}", key(name));
        self.send("GET", target, &[("authorization", &bearer)], "")
            .await
    }

    pub async fn search(&self, name: &str, query: &str, body: &str) -> Answer {
        let target = format!("/v2/cases/msp/search{query}");
        let key = key(name);
        let headers = [("x-api-key", &*key), ("content-type", "application/json")];
        self.send("POST", &target, &headers, body).await
    }

    /// A page: rows, and the token that goes on.
    pub async fn page(
        &self,
        name: &str,
        body: &str,
    ) -> Result<(Vec<String>, Option<String>), Answer> {
        let answer = self.search(name, "", body).await;
        if answer.status != 200 {
            return Err(answer);
        }
        Ok(page_of(&answer))
    }

    pub async fn metrics(&self) -> String {
        self.web
            .get(&format!("{}/metrics", self.admin))
            .await
            .text()
            .to_owned()
    }

    /// The value of one line of the metrics; 0 where it is absent.
    pub async fn metric(&self, line: &str) -> f64 {
        let start = format!("msp_gateway_{line} ");
        let text = self.metrics().await;
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Asks again and again until `good`.
    pub async fn until_admin(&self, target: &str, good: impl Fn(&Answer) -> bool) -> Answer {
        let url = format!("{}{target}", self.admin);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.web.get(&url).await;
            if good(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{target}: {}", answer.text());
        }
    }

    /// Asks the vendors again and again until `good`.
    pub async fn until_vendors(&self, good: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counts = self.vendors.counts().await;
            if good(&counts) {
                return;
            }
            assert!(Instant::now() < deadline, "{counts}");
        }
    }

    /// What must be true of every test: each answer is declared; no secret stands in any of them,
    /// in the logs, metrics or the status; no caller's key reached the vendors.
    pub async fn hold(&self) {
        let key = self
            .seen
            .lock()
            .unwrap()
            .iter()
            .any(|seen| seen.status != 401);
        assert!(key, "nothing was answered");
        let mut texts: Vec<(String, String)> = Vec::new();
        for target in ["/metrics", "/admin/status", "/readyz"] {
            let answer = self.web.get(&format!("{}{target}", self.admin)).await;
            texts.push((target.to_owned(), answer.text().to_owned()));
        }
        let requests = self.vendors.ask("requests").await.text().to_owned();
        assert!(!requests.contains("mspgw_"), "a caller key at the vendors");
        texts.push(("standard output".to_owned(), self.gateway.stdout()));
        texts.push(("standard error".to_owned(), self.gateway.stderr()));
        for (place, text) in &texts {
            assert!(!text.contains("mspgw_"), "a caller key in {place}");
        }
        let seen = self.seen.lock().unwrap();
        let secrets = self.secrets.lock().unwrap();
        let parts = self.parts.lock().unwrap();
        let answers = seen
            .iter()
            .map(|seen| (&seen.target, &seen.text))
            .chain(texts.iter().map(|(place, text)| (place, text)));
        for (place, text) in answers {
            for secret in &*secrets {
                assert!(!text.contains(secret), "{secret} in {place}: {text}");
            }
            assert_eq!(part_in(&parts, text), None, "in {place}");
        }
    }

    /// Holds every answer to the description that the gateway gives of itself.
    pub async fn hold_to_openapi(&self, name: &str) {
        let document = self.get(name, "/openapi.json").await.json();
        for seen in &*self.seen.lock().unwrap() {
            let path = seen.target.split('?').next().unwrap();
            let Some(item) = described(&document, path) else {
                assert_eq!((seen.status, &*seen.code), (404, "not_found"), "{path}");
                continue;
            };
            // OpenAPI 3.1 has no QUERY; what it may answer stands beside POST.
            let method = match &*seen.method {
                "QUERY" => "post".to_owned(),
                method => method.to_lowercase(),
            };
            // HEAD answers as GET and is not described again.
            let method = if method == "head" { "get" } else { &*method };
            let Some(operation) = item.get(method) else {
                assert_eq!(
                    (seen.status, &*seen.code),
                    (405, "method_not_allowed"),
                    "{path}"
                );
                continue;
            };
            let response = &operation["responses"][seen.status.to_string()];
            let what = format!("{} {path} {} {}", seen.method, seen.status, seen.code);
            assert!(response.is_object(), "not declared: {what}");
            if seen.code.is_empty() {
                continue;
            }
            let codes = operation["x-problem-codes"][seen.status.to_string()].as_array();
            let declared = codes.unwrap().iter().any(|code| *code == *seen.code);
            assert!(declared, "not declared: {what}");
        }
    }
}

/// The description of a path.
fn described<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().find_map(|(pattern, item)| {
        let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return Some(item),
                (Some(w), Some(g)) if w == g || (w.starts_with('{') && !g.is_empty()) => {}
                _ => return None,
            }
        }
    })
}

/// Rows and token, where it is a page.
pub fn page_of_maybe(answer: &Answer) -> Option<(Vec<String>, Option<String>)> {
    (answer.status == 200).then(|| page_of(answer))
}

/// Writes the file of a key as such files should be: for its owner alone.
pub fn write_key(path: &std::path::Path, key: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("{key}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Rows and token of a page.
pub fn page_of(answer: &Answer) -> (Vec<String>, Option<String>) {
    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        data: Vec<&'a serde_json::value::RawValue>,
        next_page_key: Option<Key>,
    }
    #[derive(serde::Deserialize)]
    struct Key {
        scroll_id: String,
    }
    let page: Page<'_> = serde_json::from_slice(&answer.body).unwrap();
    (
        page.data.iter().map(|row| row.get().to_owned()).collect(),
        page.next_page_key.map(|key| key.scroll_id),
    )
}

pub fn settings(vendors: &str, dir: &std::path::Path, stanzas: &str) -> String {
    let nable_key = dir.join("nable.key");
    format!(
        r#"[listen]
public = "127.0.0.1:0"
admin = "127.0.0.1:0"
[limits]
drain_delay = "0s"
[wiv]
base_url = "http://{vendors}"
api_key_env = "WIV_CANARY_KEY"
requests_per_minute = 60000
concurrency = 32
[nable]
base_url = "http://{vendors}/ws/rest/V1/PSA_API"
api_key_file = "{}"
account_id = "{NABLE_ACCOUNT}"
requests_per_minute = 60000
concurrency = 16
[cases.open]
fresh = "10m"
stale = "20m"
on_error = "6h"
[log]
level = "trace"
{stanzas}"#,
        nable_key.display()
    )
}

/// Sends bytes as they are and reads until the other side closes.
pub fn raw(address: &str, text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let address: SocketAddr = address.trim_start_matches("http://").parse().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut out = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut out);
    out
}
