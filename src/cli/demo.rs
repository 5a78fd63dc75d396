//! `msp-gateway demo`: simulated vendors and the gateway, with nothing to set up.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::dashboard::Dashboard;
use super::engine::SharedEngine;
use super::outputs::{LogFormat, Outputs, with_outputs};
use super::run::Signals;
use super::{FINE, run, sandbox};
use crate::access::CallerKeyHash;
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Secrets};
use crate::domain::{Month, Vendor};
use crate::exchange::site::Origin;
use crate::metrics::Metrics;
use crate::sandbox::{NABLE_ACCOUNT, NABLE_KEY, Options, Sandbox, WIV_KEY};
use crate::secrets::Secret;
use crate::server::{Inherited, Listeners};
use crate::telemetry::LogSink;

/// The dashboard's port, if none was chosen and this one is free.
const DASHBOARD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The addresses of the demo, the origins whose pages may use it, and how many gateways it has.
pub struct DemoOptions {
    /// Address for callers, of the first gateway. The others take any free port.
    pub public: SocketAddr,
    /// Address for operators, of the first gateway.
    pub admin: SocketAddr,
    /// Address of the dashboard. `None`: `DASHBOARD`, or any port if that is taken.
    pub dashboard: Option<SocketAddr>,
    /// Further origins whose web pages may send requests.
    pub cors_origins: Vec<Origin>,
    /// How many gateways. More than one share a store.
    pub replicas: u8,
}

/// Serves until a signal ends it. Returns the exit code.
pub fn run(options: DemoOptions, log_format: Option<LogFormat>) -> i32 {
    with_outputs(log_format, |outputs, metrics, clock| {
        start(&options, outputs, metrics, clock)
    })
}

fn start(
    options: &DemoOptions,
    outputs: &Outputs,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<i32, String> {
    let listeners = [
        options.public,
        options.admin,
        options.dashboard.unwrap_or(DASHBOARD),
    ];
    if !listeners.iter().all(|address| address.ip().is_loopback()) {
        return Err("the demo serves loopback addresses only; use serve for others".to_owned());
    }
    outputs.take_events("warn")?;
    let runtime = run::runtime().map_err(|why| format!("the runtime cannot be started: {why}"))?;
    let code = runtime.block_on(demo(options, outputs, metrics, clock));
    runtime.shutdown_background();
    code
}

async fn demo(
    options: &DemoOptions,
    outputs: &Outputs,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<i32, String> {
    let DemoOptions { public, admin, .. } = *options;
    // An occupied port is reported with the flag to change it, before anything is started.
    for (address, flag) in [(public, "--public"), (admin, "--admin")] {
        sandbox::bind(address, flag).await?;
    }
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = sandbox::bind(any, "--public").await?;
    let vendors = listener.local_addr().map_err(|error| error.to_string())?;
    let (page_listener, page) = dashboard_listener(options.dashboard).await?;
    let today = clock.today(&jiff::tz::TimeZone::UTC);
    let vendor = Sandbox::new(
        Options {
            today,
            ..Options::default()
        },
        clock.clone(),
    );
    let caller_key = super::caller::new_key()
        .ok_or("this machine provides no random numbers for a caller key")?;
    // Dropped in reverse order: the engine ends before its directory goes.
    let scratch = Scratch::new();
    let engine = match (&scratch, options.replicas) {
        (_, 0..=1) => None,
        (Some(Scratch(directory)), _) => Some(SharedEngine::start(directory, &clock).await?),
        (None, _) => return Err("no directory can be made for the shared store".to_owned()),
    };
    let kept = match (&engine, &scratch) {
        (Some(engine), _) => Kept::Shared(engine),
        (None, Some(Scratch(directory))) => Kept::Directory(directory),
        (None, None) => Kept::Nothing,
    };
    let secrets = secrets(engine.as_ref()).ok_or("the simulated vendors' keys are no keys")?;
    let mut apps = Vec::new();
    for replica in 0..options.replicas {
        let (public, admin, metrics) = match replica {
            0 => (public, admin, metrics.clone()),
            _ => (any, any, Metrics::new().map_err(|why| why.to_string())?),
        };
        let text = settings(options, (public, admin), page, vendors, &caller_key, &kept);
        let settings =
            config::from_text("demo", &text, []).map_err(|refusal| refusal.to_string())?;
        let app = App::build(&settings, &secrets, LogSink::off(), clock.clone(), metrics)
            .map_err(|error| error.to_string())?;
        let listeners = Listeners::bind(&settings.server, Inherited::default())
            .await
            .map_err(|error| error.to_string())?;
        apps.push((app, listeners, Signals::take()?));
    }
    let gateways: Vec<Addresses> = apps
        .iter()
        .map(|(_, bound, _)| Addresses {
            public: bound.public_address(),
            admin: bound.admin_address(),
        })
        .collect();
    let first = gateways.first().ok_or("--replicas must be at least 1")?;
    let lines = Lines {
        contract: vendor.contracts().first().map(|c| c.id.clone()),
        customer: vendor.customers().first().map(|c| c.id.clone()),
        month: Month::last_closed(today),
        start: crate::domain::DateRange::last_days(today, 30).start(),
        today,
        kept: kept.shown(),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let vendors_task = tokio::spawn(Arc::clone(&vendor).serve(listener, async {
        let _ = stopped.await;
    }));
    let page_task = tokio::spawn(Dashboard::new(first.public, &caller_key).serve(page_listener));
    // The demo is unusable if these lines cannot be printed, because the caller key is nowhere
    // else.
    outputs.hand_over(&lines.text(first, &gateways, page, vendors, &caller_key))?;
    let running = apps
        .into_iter()
        .map(|(app, listeners, signals)| run::until_told(app, listeners, signals, None));
    futures_util::future::join_all(running).await;
    page_task.abort();
    let _ = stop.send(());
    let _ = vendors_task.await;
    Ok(FINE)
}

/// Where one gateway listens.
struct Addresses {
    public: SocketAddr,
    admin: SocketAddr,
}

/// What keeps the demo's answers.
enum Kept<'a> {
    /// Memory alone.
    Nothing,
    /// A file in a directory.
    Directory(&'a Path),
    /// A server that the gateways share.
    Shared(&'a SharedEngine),
}

impl Kept<'_> {
    fn shown(&self) -> String {
        match self {
            Self::Nothing => "memory only".to_owned(),
            Self::Directory(directory) => format!("{} until Ctrl-C", directory.display()),
            Self::Shared(engine) => engine.shown(),
        }
    }

    /// Returns the lines of `[store]`.
    fn settings(&self) -> String {
        match self {
            Self::Nothing => "kind = \"none\"".to_owned(),
            Self::Directory(path) => format!("directory = {}", serde_json::json!(path)),
            Self::Shared(engine) => format!(
                "kind = \"valkey\"\n[store.valkey]\naddresses = [\"{}\"]\npassword_env = \"UNUSED\"",
                engine.address
            ),
        }
    }
}

/// Returns the dashboard's listener and its address. A chosen port must be free. The usual one may
/// be in use by another program.
async fn dashboard_listener(
    chosen: Option<SocketAddr>,
) -> Result<(TcpListener, SocketAddr), String> {
    let listener = match chosen {
        Some(address) => sandbox::bind(address, "--dashboard").await?,
        None => match sandbox::bind(DASHBOARD, "--dashboard").await {
            Ok(listener) => listener,
            Err(_) => sandbox::bind(SocketAddr::new(DASHBOARD.ip(), 0), "--dashboard").await?,
        },
    };
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    Ok((listener, address))
}

/// A directory for the demo's store. It is removed when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    /// Creates the directory. `None` if that fails: then nothing outlives a restart, as in a
    /// container without a disk.
    fn new() -> Option<Self> {
        let name = format!("msp-gateway-demo-{:016x}", fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        // Fails if the path exists, so no other user can have created it.
        DirBuilder::new().mode(0o700).create(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(
    options: &DemoOptions,
    (public, admin): (SocketAddr, SocketAddr),
    page: SocketAddr,
    vendors: SocketAddr,
    caller: &str,
    kept: &Kept<'_>,
) -> String {
    let store = kept.settings();
    // Of all gateways together: they pay from one budget.
    let rate = 600;
    let hash = CallerKeyHash::of(caller.as_bytes());
    let mut origins = vec![
        format!("http://{page}"),
        format!("http://localhost:{}", page.port()),
    ];
    origins.extend(options.cors_origins.iter().map(Origin::to_string));
    let origins = serde_json::json!(origins);
    format!(
        r#"
[listen]
public = "{public}"
admin = "{admin}"
[limits]
drain_delay = "0s"
drain_grace = "5s"
[cors]
origins = {origins}
[[callers]]
name = "demo"
key_hash = "{hash}"
role = "operator"
customers = ["*"]
[wiv]
base_url = "http://{vendors}"
api_key_env = "UNUSED"
requests_per_minute = {rate}
[nable]
base_url = "http://{vendors}/ws/rest/V1/PSA_API"
account_id = "{NABLE_ACCOUNT}"
api_key_env = "UNUSED"
requests_per_minute = {rate}
[store]
{store}
"#
    )
}

/// Returns the keys of the simulated vendors, which are not secret, and what the gateways share.
fn secrets(engine: Option<&SharedEngine>) -> Option<Secrets> {
    let keys = [
        (Vendor::Wiv, "wiv", WIV_KEY),
        (Vendor::Nable, NABLE_ACCOUNT, NABLE_KEY),
    ];
    Some(Secrets {
        token_key: Some(Secret::parse(&super::caller::new_key()?).ok()?),
        valkey_password: engine.map(|engine| engine.password.clone()),
        ..Secrets::of_keys(&keys)?
    })
}

/// The lines that the demo prints.
struct Lines {
    contract: Option<String>,
    customer: Option<String>,
    month: Month,
    start: jiff::civil::Date,
    today: jiff::civil::Date,
    /// Where the store is.
    kept: String,
}

impl Lines {
    fn text(
        &self,
        first: &Addresses,
        gateways: &[Addresses],
        page: SocketAddr,
        vendors: SocketAddr,
        caller_key: &str,
    ) -> String {
        let Addresses { public, admin } = first;
        let contract = self.contract.as_deref().unwrap_or("-");
        let customer = self.customer.as_deref().unwrap_or("-");
        let (month, start, today) = (self.month, self.start, self.today);
        let kept = &self.kept;
        let mut out = String::new();
        let base = format!("http://{public}");
        let auth = "-H \"Authorization: Bearer $KEY\"";
        let search = format!("{base}/v2/cases/msp/search");
        let body = format!(
            "'{{\"max_returned_items\":25,\"date_range\":{{\"start\":\"{start}\",\"end\":\"{today}\"}}}}'"
        );
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "gateway            {base}\nadmin              http://{admin}\nsimulated vendors  http://{vendors}\n\
             dashboard          http://{page}\nthe API, to read   {base}/docs\n\
             kept in            {kept}"
        );
        for (at, other) in gateways.iter().enumerate().skip(1) {
            let (public, admin) = (other.public, other.admin);
            let _ = writeln!(
                out,
                "gateway {}          http://{public}, admin http://{admin}",
                at + 1
            );
        }
        let _ = writeln!(
            out,
            "\nPaste these; each start makes a new caller key:\n\nKEY={caller_key}\n"
        );
        // These commands work with curl 7.68, without any newer option. Long answers are cut, and
        // every answer ends with a line feed.
        let json = "-H 'Content-Type: application/json' -d";
        let short = "| head -c 900; echo";
        let lines = [
            (
                "customers, two fields",
                format!("curl -si {auth} '{base}/msp/customers?fields=id,name' {short}"),
            ),
            (
                "cases of the last 30 days",
                format!("curl -si {auth} {json} {body} {search} {short}"),
            ),
            (
                "the same as a safe, cacheable QUERY",
                format!("curl -si -X QUERY {auth} {json} {body} {search} {short}"),
            ),
            (
                "cases of one customer",
                format!("curl -si {auth} {json} '{{}}' '{search}?customer_id={customer}' {short}"),
            ),
            (
                "all of them as a stream: how many lines, and how many bytes",
                format!(
                    "curl -sN {auth} '{base}/v1/cases/export?start={start}&end={today}&format=csv' | wc -lc"
                ),
            ),
            (
                "billable services of a contract",
                format!("curl -si {auth} {base}/v1/billing/{month}/{contract} {short}"),
            ),
            (
                "the month's invoices",
                format!("curl -si {auth} {base}/v1/billing/{month} {short}"),
            ),
            (
                "the same for clients of N-able",
                format!(
                    "curl -si {auth} -X POST {base}/ws/rest/V1/PSA_API/PSABillableServices/-/{month}/{contract} {short}"
                ),
            ),
            (
                "",
                format!(
                    "curl -si {auth} -X POST {base}/ws/rest/V1/PSA_API/InvoicesReady/-/{month} {short}"
                ),
            ),
            (
                "both vendors in one answer: how each part of it is",
                format!(
                    "curl -s {auth} '{base}/v1/overview?timeframe={month}' | grep -o '\"parts\":.*'"
                ),
            ),
            (
                "what this surface is; no key is needed",
                format!("curl -s {base}/openapi.json {short}"),
            ),
            ("", format!("curl -s {base}/healthz {short}")),
            (
                "metrics, readiness, status",
                format!(
                    "curl -s http://{admin}/metrics | grep '^msp_gateway_vendor_calls_saved_total'"
                ),
            ),
            ("", format!("curl -s http://{admin}/readyz {short}")),
            ("", format!("curl -s http://{admin}/admin/status {short}")),
            (
                "what the vendors were asked",
                format!("curl -s http://{vendors}/__sandbox/counts {short}"),
            ),
            (
                "make N-able fail, then ask for the overview again",
                format!(
                    "curl -s -d '{{\"vendor\":\"nable\",\"down\":true}}' http://{vendors}/__sandbox/faults {short}"
                ),
            ),
        ];
        for (what, line) in lines {
            if !what.is_empty() {
                let _ = writeln!(out, "# {what}");
            }
            let _ = writeln!(out, "{line}");
        }
        if gateways.len() > 1 {
            out.push_str(&paged_over_all(gateways, vendors, today));
        }
        out.push_str("\nCtrl-C ends everything.");
        out
    }
}

/// Returns lines that page one list over all gateways, and count what the vendor was asked for it.
fn paged_over_all(gateways: &[Addresses], vendors: SocketAddr, today: jiff::civil::Date) -> String {
    let start = crate::domain::DateRange::last_days(today, 60).start();
    let at: Vec<String> = gateways.iter().map(|it| it.public.to_string()).collect();
    let at = at.join(" ");
    let count = format!(
        "curl -s http://{vendors}/__sandbox/counts | grep -o '\"search\":{{\"requests\":[0-9]*'"
    );
    let range =
        format!("\\\"date_range\\\":{{\\\"start\\\":\\\"{start}\\\",\\\"end\\\":\\\"{today}\\\"}}");
    format!(
        "\n# one list over all gateways, a page from each; the vendor is asked for one search\n\
         {count}\n\
         NEXT=; for AT in {at}; do \
         PAGE=$(curl -s -H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json' \
         -d \"{{\\\"max_returned_items\\\":100,{range}$NEXT}}\" http://$AT/v2/cases/msp/search); \
         echo \"$AT: first $(echo \"$PAGE\" | grep -o '\"case_id\":\"[^\"]*\"' | head -n 1)\"; \
         NEXT=\",\\\"start_page_key\\\":{{\\\"scroll_id\\\":\\\"$(echo \"$PAGE\" | \
         grep -o '\"scroll_id\":\"[^\"]*\"' | cut -d'\"' -f4)\\\"}}\"; done\n\
         {count}\n"
    )
}
