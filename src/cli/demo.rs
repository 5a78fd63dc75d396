//! `msp-gateway demo`: simulated vendors and the gateway, with nothing to set up.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::outputs::{LogFormat, Outputs};
use super::{refuse, run, sandbox};
use crate::access::CallerKeyHash;
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Secrets, VendorSecrets};
use crate::domain::{AccountId, Month};
use crate::metrics::Metrics;
use crate::sandbox::{NABLE_ACCOUNT, NABLE_KEY, Options, Sandbox, WIV_KEY};
use crate::secrets::{Secret, VendorKey, VendorKeys};
use crate::server::{Inherited, Listeners};
use crate::telemetry::LogSink;

/// Serves until told to leave; returns the exit code.
pub fn run(public: SocketAddr, admin: SocketAddr, log_format: Option<LogFormat>) -> i32 {
    let clock = Clock::system();
    let metrics = match Metrics::new() {
        Ok(metrics) => metrics,
        Err(error) => return refuse(error),
    };
    let outputs = match Outputs::start(log_format, &metrics, &clock) {
        Ok(outputs) => outputs,
        Err(why) => return refuse(why),
    };
    let served = start(public, admin, &outputs, metrics, clock);
    let code = served.unwrap_or_else(|why| outputs.refuse(why));
    outputs.close();
    code
}

fn start(
    public: SocketAddr,
    admin: SocketAddr,
    outputs: &Outputs,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<i32, String> {
    if !public.ip().is_loopback() || !admin.ip().is_loopback() {
        return Err("the demo serves loopback addresses only; use serve for others".to_owned());
    }
    outputs.take_events("warn")?;
    let runtime = run::runtime().map_err(|why| format!("the runtime cannot be started: {why}"))?;
    let code = runtime.block_on(demo(public, admin, outputs, metrics, clock));
    runtime.shutdown_background();
    code
}

async fn demo(
    public: SocketAddr,
    admin: SocketAddr,
    outputs: &Outputs,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<i32, String> {
    // An occupied port is told with the flag to change it, before anything is started.
    for (address, flag) in [(public, "--public"), (admin, "--admin")] {
        sandbox::bind(address, flag).await?;
    }
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = sandbox::bind(any, "--public").await?;
    let vendors = listener.local_addr().map_err(|error| error.to_string())?;
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
    let text = settings(public, admin, vendors, &caller_key);
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
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let vendors_task = tokio::spawn(Arc::clone(&vendor).serve(listener, async {
        let _ = stopped.await;
    }));
    // Nobody could use the demo without them: the caller key is nowhere else.
    let bound =
        |listeners: &Listeners| outputs.hand_over(&lines.text(listeners, vendors, &caller_key));
    let code = run::until_told(app, &settings.server, Inherited::default(), None, bound).await;
    let _ = stop.send(());
    let _ = vendors_task.await;
    code
}

fn settings(public: SocketAddr, admin: SocketAddr, vendors: SocketAddr, caller: &str) -> String {
    let hash = CallerKeyHash::of(caller.as_bytes());
    format!(
        r#"
[listen]
public = "{public}"
admin = "{admin}"
[limits]
drain_delay = "0s"
drain_grace = "5s"
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
"#
    )
}

/// The simulated vendors' keys are no secrets, so they come from here.
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
        wiv: Some(vendor(WIV_KEY, "wiv")?),
        nable: Some(vendor(NABLE_KEY, NABLE_ACCOUNT)?),
        token_key: None,
        token_key_previous: None,
        certificates: crate::config::Certificates::default(),
        warnings: Vec::new(),
    })
}

/// What the demo prints.
struct Lines {
    contract: Option<String>,
    customer: Option<String>,
    month: Month,
    start: jiff::civil::Date,
    today: jiff::civil::Date,
}

impl Lines {
    fn text(&self, listeners: &Listeners, vendors: SocketAddr, caller_key: &str) -> String {
        let (public, admin) = (listeners.public_address(), listeners.admin_address());
        let contract = self.contract.as_deref().unwrap_or("-");
        let customer = self.customer.as_deref().unwrap_or("-");
        let (month, start, today) = (self.month, self.start, self.today);
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
             \nPaste these; the caller key is made anew at each start:\n\nKEY={caller_key}\n"
        );
        let lines = [
            (
                "customers, two fields",
                format!("curl -si {auth} '{base}/msp/customers?fields=id,name'"),
            ),
            (
                "cases of the last 30 days",
                format!("curl -si {auth} --json {body} {search}"),
            ),
            (
                "the same as a safe, cacheable QUERY",
                format!("curl -si -X QUERY {auth} --json {body} {search}"),
            ),
            (
                "cases of one customer",
                format!("curl -si {auth} --json '{{}}' '{search}?customer_id={customer}'"),
            ),
            (
                "all of them as a stream",
                format!(
                    "curl -sN {auth} '{base}/v1/cases/export?start={start}&end={today}&format=csv' | head -5"
                ),
            ),
            (
                "billable services of a contract",
                format!("curl -si {auth} {base}/v1/billing/{month}/{contract}"),
            ),
            (
                "the month's invoices",
                format!("curl -si {auth} {base}/v1/billing/{month}"),
            ),
            (
                "the same for clients of N-able",
                format!(
                    "curl -si {auth} -X POST {base}/ws/rest/V1/PSA_API/PSABillableServices/-/{month}/{contract}"
                ),
            ),
            (
                "",
                format!(
                    "curl -si {auth} -X POST {base}/ws/rest/V1/PSA_API/InvoicesReady/-/{month}"
                ),
            ),
            (
                "both vendors in one answer",
                format!("curl -si {auth} '{base}/v1/overview?timeframe={month}'"),
            ),
            (
                "what this surface is",
                format!("curl -si {auth} {base}/openapi.json"),
            ),
            (
                "metrics, readiness, status",
                format!("curl -s http://{admin}/metrics"),
            ),
            ("", format!("curl -s http://{admin}/readyz")),
            ("", format!("curl -s http://{admin}/admin/status")),
            (
                "what the vendors were asked",
                format!("curl -s http://{vendors}/__sandbox/counts"),
            ),
            (
                "make N-able fail, then ask for the overview again",
                format!(
                    "curl -s --json '{{\"vendor\":\"nable\",\"down\":true}}' http://{vendors}/__sandbox/faults"
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
