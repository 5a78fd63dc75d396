//! The parties of the comparison: msp-gateway, nginx and Varnish, each on loopback ports in front
//! of the same sandbox.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use msp_gateway::access::CallerKeyHash;
use msp_gateway::app::App;
use msp_gateway::clock::{Clock, Duration, sleep};
use msp_gateway::config::{self, Secrets};
use msp_gateway::domain::Vendor;
use msp_gateway::metrics::Metrics;
use msp_gateway::sandbox::{NABLE_ACCOUNT, NABLE_KEY, WIV_KEY};
use msp_gateway::server::{Drain, Inherited, Listeners};
use msp_gateway::telemetry::LogSink;
use tokio::task::JoinHandle;

/// The caller key, which is sent to all parties. Only the gateway checks it.
pub const CALLER_KEY: &str = "bench-caller-key";
/// How long answers are fresh, in seconds, for everyone: the defaults, a minute as two seconds.
/// After that they are stale for twice as long, while one refresh runs.
pub const CUSTOMERS_S: u64 = 10;
pub const CASES_S: u64 = 2;
/// Six hours: longer than the run.
pub const BILLING_S: u64 = 720;

/// A server that is up.
pub struct Party {
    pub name: &'static str,
    /// Its address. A fleet has several, which get requests in turn.
    pub addresses: Vec<SocketAddr>,
    gateways: Vec<(Drain, JoinHandle<()>)>,
    process: Option<Child>,
}

impl Party {
    /// Ends it.
    pub async fn end(self) {
        for (drain, task) in self.gateways {
            drain.begin();
            drain.cut();
            let _ = task.await;
        }
        if let Some(mut child) = self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The gateway, in this process, over its real listeners.
pub async fn gateway(vendors: SocketAddr, refresh_ahead: bool) -> Result<Party, String> {
    let (address, running) = one_gateway(vendors, refresh_ahead, "").await?;
    Ok(Party {
        name: match refresh_ahead {
            false => "msp-gateway",
            true => "msp-gateway, refresh_ahead on",
        },
        addresses: vec![address],
        gateways: vec![running],
        process: None,
    })
}

/// Two gateways that share a Valkey or Redis of their own.
pub async fn fleet(vendors: SocketAddr, work: &Path) -> Result<Party, String> {
    let engine = free_port()?;
    let mut command = Command::new(engine_program()?);
    let port = engine.port().to_string();
    command.args(["--bind", "127.0.0.1", "--port", &port]);
    command.args(["--save", "", "--appendonly", "no", "--dir"]);
    command.arg(work);
    let mut party = start("two gateways over Valkey", command, engine, work).await?;
    party.addresses.clear();
    let store = format!(
        "[store]\nkind = \"valkey\"\n[store.valkey]\naddresses = [\"{engine}\"]\ntimeout = \"500ms\"\n"
    );
    for _ in 0..2 {
        let (address, running) = one_gateway(vendors, false, &store).await?;
        party.addresses.push(address);
        party.gateways.push(running);
    }
    // Until each gateway knows of the other.
    sleep(Duration::from_secs(2)).await;
    Ok(party)
}

/// The program that `VALKEY_SERVER` names, or the first of two that is on the path.
fn engine_program() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("VALKEY_SERVER") {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    ["valkey-server", "redis-server"]
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            "the fleet needs valkey-server or redis-server on the path, or VALKEY_SERVER; Debian: apt-get install redis-server".to_owned()
        })
}

async fn one_gateway(
    vendors: SocketAddr,
    refresh_ahead: bool,
    store: &str,
) -> Result<(SocketAddr, (Drain, JoinHandle<()>)), String> {
    let lives = |(table, fresh): (&str, u64)| {
        let stale = fresh * 2;
        format!("[{table}]\nfresh = \"{fresh}s\"\nstale = \"{stale}s\"\non_error = \"1h\"\n")
    };
    let kinds = [
        ("customers", CUSTOMERS_S),
        ("cases.open", CASES_S),
        ("cases.recent", CASES_S),
        ("cases.closed", CASES_S),
        ("billing.current", BILLING_S),
        ("billing.closed", BILLING_S),
    ];
    let text = format!(
        r#"
[listen]
public = "127.0.0.1:0"
admin = "127.0.0.1:0"
[limits]
drain_delay = "0s"
drain_grace = "1s"
[cache]
refresh_ahead = {refresh_ahead}
[[callers]]
name = "bench"
key_hash = "{hash}"
customers = ["*"]
[wiv]
base_url = "http://{vendors}"
api_key_env = "UNUSED"
requests_per_minute = 60000
concurrency = 64
[nable]
base_url = "http://{vendors}/ws/rest/V1/PSA_API"
account_id = "{NABLE_ACCOUNT}"
api_key_env = "UNUSED"
requests_per_minute = 60000
concurrency = 64
[pagination]
scroll_idle_max = "1500ms"
scroll_expiry = "10s"
open_scrolls_max = 400
vendor_scrolls_max = 450
{lives}{store}"#,
        hash = CallerKeyHash::of(CALLER_KEY.as_bytes()),
        lives = kinds.map(lives).concat(),
    );
    let settings = config::from_text("bench", &text, []).map_err(|why| why.to_string())?;
    let secrets = Secrets::of_keys(&[
        (Vendor::Wiv, "wiv", WIV_KEY),
        (Vendor::Nable, NABLE_ACCOUNT, NABLE_KEY),
    ]);
    let secrets = secrets.expect("good keys");
    let metrics = Metrics::new().map_err(|why| why.to_string())?;
    let app = App::build(
        &settings,
        &secrets,
        LogSink::off(),
        Clock::system(),
        metrics,
    )
    .map_err(|why| why.to_string())?;
    let listeners = Listeners::bind(&settings.server, Inherited::default())
        .await
        .map_err(|why| why.to_string())?;
    let address = listeners.public_address();
    let drain = app.drain().clone();
    let task = tokio::spawn(async move { Arc::clone(&app).run(listeners).await });
    Ok((address, (drain, task)))
}

/// nginx as an operator would configure it for this: POST cached by its body, one fetch at a time
/// per key, stale answers while it updates in the background, fetches that outlive their callers.
/// Without `searches` it caches no search. Only then are its lists right, because all readers of a
/// cached first page share one cursor.
pub async fn nginx(vendors: SocketAddr, work: &Path, searches: bool) -> Result<Party, String> {
    let name = if searches {
        "nginx"
    } else {
        "nginx, searches not cached"
    };
    let cache_searches = if searches { "" } else { "proxy_cache off;" };
    let address = free_port()?;
    let folder = work.display();
    // The folder is a new one, without files of another run.
    let store = format!("cache-{}", address.port());
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let text = format!(
        r#"
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 128k;
  client_max_body_size 128k;
  proxy_cache_path {folder}/{store} keys_zone=answers:16m max_size=256m;
  upstream vendors {{ server {vendors}; keepalive 64; }}
  server {{
    listen {address};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ignore_client_abort on;
    proxy_cache answers;
    proxy_cache_methods GET HEAD POST;
    proxy_cache_key $request_method$request_uri$request_body;
    proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;
    proxy_cache_lock on;
    proxy_cache_use_stale updating error timeout;
    proxy_cache_background_update on;
    location / {{ {cache_searches} proxy_cache_valid 200 {CASES_S}s; proxy_set_header X-API-Key {WIV_KEY}; proxy_pass http://vendors; }}
    location /msp/ {{ proxy_cache_valid 200 {CUSTOMERS_S}s; proxy_set_header X-API-Key {WIV_KEY}; proxy_pass http://vendors; }}
    location /ws/ {{ proxy_cache_valid 200 {BILLING_S}s; proxy_set_header X-API-Key {NABLE_KEY}; proxy_pass http://vendors; }}
  }}
}}
"#
    );
    let file = work.join("nginx.conf");
    std::fs::write(&file, text).map_err(|why| why.to_string())?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(work).arg("-c").arg(&file);
    command.args(["-g", "daemon off; master_process off;"]);
    start(name, command, address, work).await
}

/// Varnish in the same way. The module `bodyaccess` hashes bodies.
pub async fn varnish(vendors: SocketAddr, work: &Path) -> Result<Party, String> {
    let address = free_port()?;
    let text = format!(
        r#"vcl 4.1;
import std;
import bodyaccess;
backend default {{ .host = "{ip}"; .port = "{port}"; }}
sub vcl_recv {{
  unset req.http.Cookie;
  unset req.http.X-Asked;
  if (req.url ~ "^/ws/") {{ set req.http.X-API-Key = "{NABLE_KEY}"; }}
  else {{ set req.http.X-API-Key = "{WIV_KEY}"; }}
  if (req.method == "POST") {{ std.cache_req_body(128KB); set req.http.X-Asked = "POST"; }}
  return (hash);
}}
sub vcl_hash {{
  hash_data(req.url);
  if (req.http.X-Asked) {{ hash_data(req.http.X-Asked); bodyaccess.hash_req_body(); }}
  return (lookup);
}}
sub vcl_backend_fetch {{
  if (bereq.http.X-Asked) {{ set bereq.method = bereq.http.X-Asked; }}
  return (fetch);
}}
sub vcl_backend_response {{
  unset beresp.http.Cache-Control;
  if (beresp.status != 200) {{ set beresp.uncacheable = true; set beresp.ttl = 0s; }}
  elsif (bereq.url ~ "^/ws/") {{ set beresp.ttl = {BILLING_S}s; set beresp.grace = {billing_stale}s; }}
  elsif (bereq.url ~ "^/msp/") {{ set beresp.ttl = {CUSTOMERS_S}s; set beresp.grace = {customers_stale}s; }}
  else {{ set beresp.ttl = {CASES_S}s; set beresp.grace = {cases_stale}s; }}
  return (deliver);
}}
"#,
        ip = vendors.ip(),
        port = vendors.port(),
        billing_stale = BILLING_S * 2,
        customers_stale = CUSTOMERS_S * 2,
        cases_stale = CASES_S * 2,
    );
    let file = work.join("bench.vcl");
    std::fs::write(&file, text).map_err(|why| why.to_string())?;
    let mut command = Command::new("varnishd");
    command.args(["-F", "-s", "malloc,256m", "-j", "none", "-T", "none"]);
    command.arg("-a").arg(address.to_string());
    command
        .arg("-f")
        .arg(&file)
        .arg("-n")
        .arg(work.join(format!("varnish-{}", address.port())));
    start("Varnish", command, address, work).await
}

async fn start(
    name: &'static str,
    mut command: Command,
    address: SocketAddr,
    work: &Path,
) -> Result<Party, String> {
    let log = work.join(format!("{name}.out"));
    let out = std::fs::File::create(&log).map_err(|why| why.to_string())?;
    let err = out.try_clone().map_err(|why| why.to_string())?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|why| format!("{name} cannot be started: {why}"))?;
    // Up to half a minute, because Varnish compiles its rules first, perhaps beside other runs.
    for _ in 0..300 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(Party {
                name,
                addresses: vec![address],
                gateways: Vec::new(),
                process: Some(child),
            });
        }
        if let Ok(Some(_)) = child.try_wait() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let _ = child.kill();
    let _ = child.wait();
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    Err(format!("{name} did not come up: {}", said.trim()))
}

fn free_port() -> Result<SocketAddr, String> {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|why| why.to_string())
}
