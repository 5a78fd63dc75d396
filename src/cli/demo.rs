//! `msp-gateway demo`: simulated vendors and the gateway, with nothing to set up.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::dashboard::Dashboard;
use super::outputs::{LogFormat, Outputs};
use super::{refuse, run, sandbox};
use crate::access::CallerKeyHash;
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Secrets, VendorSecrets};
use crate::domain::{AccountId, Month, PerVendor};
use crate::exchange::site::Origin;
use crate::metrics::Metrics;
use crate::sandbox::{NABLE_ACCOUNT, NABLE_KEY, Options, Sandbox, WIV_KEY};
use crate::secrets::{Secret, VendorKey, VendorKeys};
use crate::server::{Inherited, Listeners};
use crate::telemetry::LogSink;
use crate::traces::TraceHeaders;

/// The dashboard's port, if none was chosen and this one is free.
const DASHBOARD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The addresses of the demo, and the origins whose pages may use it.
pub struct DemoAddresses {
    /// Address for callers.
    pub public: SocketAddr,
    /// Address for operators.
    pub admin: SocketAddr,
    /// Address of the dashboard. `None`: `DASHBOARD`, or any port if that is taken.
    pub dashboard: Option<SocketAddr>,
    /// Further origins whose web pages may send requests.
    pub cors_origins: Vec<Origin>,
}

/// Serves until a signal ends it. Returns the exit code.
pub fn run(places: DemoAddresses, log_format: Option<LogFormat>) -> i32 {
    let clock = Clock::system();
    let metrics = match Metrics::new() {
        Ok(metrics) => metrics,
        Err(error) => return refuse(error),
    };
    let outputs = match Outputs::start(log_format, &metrics, &clock) {
        Ok(outputs) => outputs,
        Err(why) => return refuse(why),
    };
    let served = start(&places, &outputs, metrics, clock);
    let code = served.unwrap_or_else(|why| outputs.refuse(why));
    outputs.close();
    code
}

fn start(
    places: &DemoAddresses,
    outputs: &Outputs,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<i32, String> {
    let listeners = [
        places.public,
        places.admin,
        places.dashboard.unwrap_or(DASHBOARD),
    ];
    if !listeners.iter().all(|address| address.ip().is_loopback()) {
        return Err("the demo serves loopback addresses only; use serve for others".to_owned());
    }
    outputs.take_events("warn")?;
    let runtime = run::runtime().map_err(|why| format!("the runtime cannot be started: {why}"))?;
    let code = runtime.block_on(demo(places, outputs, metrics, clock));
    runtime.shutdown_background();
    code
}

async fn demo(
    places: &DemoAddresses,
    outputs: &Outputs,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<i32, String> {
    let DemoAddresses { public, admin, .. } = *places;
    // An occupied port is reported with the flag to change it, before anything is started.
    for (address, flag) in [(public, "--public"), (admin, "--admin")] {
        sandbox::bind(address, flag).await?;
    }
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = sandbox::bind(any, "--public").await?;
    let vendors = listener.local_addr().map_err(|error| error.to_string())?;
    let (page_listener, page) = dashboard_listener(places.dashboard).await?;
    let today = clock.today(&jiff::tz::TimeZone::UTC);
    let vendor = Sandbox::new(
        Options {
            today,
            ..Options::default()
        },
        clock.clone(),
    );
    let caller_key =
        super::caller::new_key().ok_or("the system gives no random bytes for a caller key")?;
    let scratch = Scratch::new();
    let text = settings(places, page, vendors, &caller_key, scratch.as_ref());
    let settings = config::from_text("demo", &text, []).map_err(|refusal| refusal.to_string())?;
    let secrets = secrets().ok_or("the simulated vendors' keys are no keys")?;
    let app = App::build(&settings, &secrets, LogSink::off(), clock, metrics)
        .map_err(|error| error.to_string())?;
    let lines = Lines {
        contract: vendor.contracts().first().map(|c| c.id.clone()),
        customer: vendor.customers().first().map(|c| c.id.clone()),
        month: Month::last_closed(today),
        start: crate::domain::DateRange::last_days(today, 30).start(),
        today,
        kept: settings.store.directory.clone(),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let vendors_task = tokio::spawn(Arc::clone(&vendor).serve(listener, async {
        let _ = stopped.await;
    }));
    let mut page_task = None;
    // The demo is unusable if these lines cannot be printed, because the caller key is nowhere
    // else.
    let bound = |listeners: &Listeners| {
        let dashboard = Dashboard::new(listeners.public_address(), &caller_key);
        page_task = Some(tokio::spawn(dashboard.serve(page_listener)));
        outputs.hand_over(&lines.text(listeners, page, vendors, &caller_key))
    };
    let code = run::until_told(app, &settings.server, Inherited::default(), None, bound).await;
    if let Some(task) = page_task {
        task.abort();
    }
    let _ = stop.send(());
    let _ = vendors_task.await;
    code
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
        // Fails if the path exists, whoever created it.
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
    places: &DemoAddresses,
    page: SocketAddr,
    vendors: SocketAddr,
    caller: &str,
    scratch: Option<&Scratch>,
) -> String {
    let store = match scratch {
        Some(Scratch(path)) => format!("directory = {}", serde_json::json!(path)),
        None => "kind = \"none\"".to_owned(),
    };
    let DemoAddresses { public, admin, .. } = places;
    let hash = CallerKeyHash::of(caller.as_bytes());
    let mut origins = vec![
        format!("http://{page}"),
        format!("http://localhost:{}", page.port()),
    ];
    origins.extend(places.cors_origins.iter().map(Origin::to_string));
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
requests_per_minute = 600
[nable]
base_url = "http://{vendors}/ws/rest/V1/PSA_API"
account_id = "{NABLE_ACCOUNT}"
api_key_env = "UNUSED"
requests_per_minute = 600
[store]
{store}
"#
    )
}

/// Returns the keys of the simulated vendors. They are not secret, so they are here.
fn secrets() -> Option<Secrets> {
    let vendor = |key: &str, account: &str| {
        Some(VendorSecrets {
            keys: VendorKeys {
                primary: VendorKey::new(Secret::parse(key).ok()?),
                fallback: None,
            },
            account: AccountId::parse(account).ok()?,
        })
    };
    Some(Secrets {
        vendors: PerVendor {
            wiv: Some(vendor(WIV_KEY, "wiv")?),
            nable: Some(vendor(NABLE_KEY, NABLE_ACCOUNT)?),
        },
        token_key: Some(Secret::parse(&super::caller::new_key()?).ok()?),
        token_key_previous: None,
        trace_headers: TraceHeaders::default(),
        valkey_password: None,
        certificates: crate::config::Certificates::default(),
        warnings: Vec::new(),
    })
}

/// The lines that the demo prints.
struct Lines {
    contract: Option<String>,
    customer: Option<String>,
    month: Month,
    start: jiff::civil::Date,
    today: jiff::civil::Date,
    /// The directory of the store.
    kept: Option<PathBuf>,
}

impl Lines {
    fn text(
        &self,
        listeners: &Listeners,
        page: SocketAddr,
        vendors: SocketAddr,
        caller_key: &str,
    ) -> String {
        let (public, admin) = (listeners.public_address(), listeners.admin_address());
        let contract = self.contract.as_deref().unwrap_or("-");
        let customer = self.customer.as_deref().unwrap_or("-");
        let (month, start, today) = (self.month, self.start, self.today);
        let kept = match &self.kept {
            Some(directory) => format!("{} until Ctrl-C", directory.display()),
            None => "memory only".to_owned(),
        };
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
             kept in            {kept}\n\
             \nPaste these; the caller key is made anew at each start:\n\nKEY={caller_key}\n"
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
        out.push_str("\nCtrl-C ends everything.");
        out
    }
}
