//! The path of every vendor request: from its bytes to the bytes of the answer.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::answer::{Dropped, SimAnswer, SimBody};
use super::faults::{Instead, Plan};
use super::options::{NABLE_KEY, RetryAfter, SimOperation, SimVendor, WIV_KEY};
use super::quota::QuotaReading;
use super::{Sandbox, control, nable, wiv};
use crate::clock::{Duration, Instant, sleep, timeout};

/// Maximum size of a request body. The requests to the vendors are far smaller.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Maximum time for a request body.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Answers one request.
///
/// # Errors
/// Fails if the connection must be closed.
pub(super) async fn answer(
    sandbox: Arc<Sandbox>,
    request: Request<Incoming>,
) -> Result<Response<SimBody>, Dropped> {
    let (parts, body) = request.into_parts();
    if control::is_control(parts.uri.path()) {
        let body = read(body).await?;
        return Ok(control::answer(&sandbox, &parts, body.as_deref()));
    }
    let vendor = match parts.uri.path().strip_prefix(nable::PREFIX) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => SimVendor::Nable,
        _ => SimVendor::Wiv,
    };
    let mut down = sandbox.down.subscribe();
    if down.borrow().contains(&vendor) {
        sandbox.tally.closed_while_down(vendor);
        return Err(Dropped);
    }
    tokio::select! {
        answer = vendor_answer(&sandbox, vendor, parts, body) => answer,
        // A vendor that dies also drops the requests in progress.
        _ = down.wait_for(|down| down.contains(&vendor)) => Err(Dropped),
    }
}

/// Reads the whole body. `None` if it is too large.
async fn read(body: Incoming) -> Result<Option<Bytes>, Dropped> {
    match timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(Some(body.to_bytes())),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Ok(None),
        Ok(Err(_)) | Err(_) => Err(Dropped),
    }
}

/// A request as its vendor parses it.
enum Call {
    Wiv(wiv::WivCall),
    Nable(nable::NableCall),
    TooLarge,
}

impl Call {
    fn operation(&self) -> SimOperation {
        match self {
            Self::Wiv(call) => call.operation(),
            Self::Nable(call) => call.operation(),
            Self::TooLarge => SimOperation::Other,
        }
    }

    fn refusal(&self, vendor: SimVendor, parts: &Parts) -> Option<SimAnswer> {
        match self {
            Self::Wiv(call) => call.refusal(parts),
            Self::Nable(call) => call.refusal(parts),
            Self::TooLarge => Some(SimAnswer::error(vendor, 413, "Request body too large")),
        }
    }

    fn process(
        self,
        sandbox: &Sandbox,
        plan: &Plan,
        now: Instant,
        latency: Duration,
    ) -> wiv::Draft {
        match self {
            Self::Wiv(call) => call.process(sandbox, plan, now, latency),
            Self::Nable(call) => wiv::Draft::Ready(call.process(sandbox)),
            Self::TooLarge => wiv::Draft::Ready(SimAnswer::error(
                SimVendor::Wiv,
                413,
                "Request body too large",
            )),
        }
    }
}

async fn vendor_answer(
    sandbox: &Arc<Sandbox>,
    vendor: SimVendor,
    parts: Parts,
    body: Incoming,
) -> Result<Response<SimBody>, Dropped> {
    let body = read(body).await?;
    let call = match (&body, vendor) {
        (None, _) => Call::TooLarge,
        (Some(body), SimVendor::Wiv) => Call::Wiv(wiv::WivCall::read(sandbox, &parts, body)),
        (Some(body), SimVendor::Nable) => Call::Nable(nable::NableCall::read(&parts, body)),
    };
    let operation = call.operation();
    let mut watch = sandbox.tally.arrived(vendor, operation);
    let now = sandbox.clock.now();
    let at_ms =
        u64::try_from(now.saturating_duration_since(sandbox.since).as_millis()).unwrap_or(u64::MAX);
    let key = match vendor {
        SimVendor::Wiv => WIV_KEY,
        SimVendor::Nable => NABLE_KEY,
    };
    sandbox
        .recorder
        .note(operation, at_ms, &parts, key, &body.unwrap_or_default());
    if let Some(refusal) = call.refusal(vendor, &parts) {
        return Ok(respond(sandbox, vendor, refusal, None, Some(watch)));
    }
    let reading = match vendor {
        SimVendor::Wiv => sandbox.wiv_quota.take(now),
        SimVendor::Nable => sandbox.nable_quota.take(now),
    };
    if let Some(reading) = reading.filter(|reading| !reading.allowed) {
        let refusal = SimAnswer::error(vendor, 429, "Too Many Requests")
            .with("retry-after", retry_after(sandbox, reading));
        return Ok(respond(
            sandbox,
            vendor,
            refusal,
            Some(reading),
            Some(watch),
        ));
    }

    let plan = sandbox.faults.plan(operation);
    if plan.insert > 0 {
        let _ = sandbox.world.insert(plan.insert, None, None);
    }
    let latency = sandbox.options.latency.saturating_add(plan.latency);
    // It is processed at once and answered later. A reader that gives up in between has moved the
    // scroll.
    let draft = match &plan.instead {
        Some(Instead::Drop) => None,
        Some(Instead::Answer(kind)) => Some(wiv::Draft::Ready(SimAnswer::instead(vendor, kind))),
        None => Some(call.process(sandbox, &plan, now, latency)),
    };
    if !latency.is_zero() {
        sleep(latency).await;
    }
    let mut answer = draft.ok_or(Dropped)?.finish(sandbox, &mut watch);
    for kind in &plan.after {
        answer.spoil(vendor, kind)?;
    }
    Ok(respond(sandbox, vendor, answer, reading, Some(watch)))
}

/// Returns the response, with the headers that every answer of the vendor has.
fn respond(
    sandbox: &Sandbox,
    vendor: SimVendor,
    mut answer: SimAnswer,
    reading: Option<QuotaReading>,
    watch: Option<super::counts::Watch>,
) -> Response<SimBody> {
    if let Some(reading) = reading {
        answer.add_headers(reading.headers(sandbox.options.rate_headers));
    }
    // These headers are not for a gateway to pass on.
    answer.add_headers(match vendor {
        SimVendor::Wiv => vec![
            ("server", "gunicorn".to_owned()),
            (
                "set-cookie",
                "AWSALB=sandbox-wiv-affinity; Path=/".to_owned(),
            ),
            ("x-amzn-requestid", "sandbox-wiv-request".to_owned()),
        ],
        SimVendor::Nable => vec![
            ("server", "Jetty".to_owned()),
            ("x-boomi-atom", "sandbox-nable-node".to_owned()),
        ],
    });
    answer.into_response(sandbox.http_date(0), watch)
}

fn retry_after(sandbox: &Sandbox, reading: QuotaReading) -> String {
    match sandbox.options.retry_after {
        RetryAfter::Seconds => reading.reset_s.to_string(),
        RetryAfter::HttpDate => sandbox.http_date(reading.reset_s),
    }
}

/// Returns the first value of the query parameter `name`, decoded.
pub(super) fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    let decoded = |text: &str| {
        let spaced: Cow<'_, str> = if text.contains('+') {
            text.replace('+', " ").into()
        } else {
            text.into()
        };
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_decoded() {
        let value = |query| query_value(Some(query), "customer_id");
        assert_eq!(value("customer_id=org_1"), Some("org_1".to_owned()));
        assert_eq!(
            value("a=b&customer%5Fid=%C3%A9+x&customer_id=2"),
            Some("é x".to_owned())
        );
        assert_eq!(value("customer_id"), Some(String::new()));
        assert_eq!(value("other=1"), None);
        assert_eq!(query_value(None, "x"), None);
    }
}
