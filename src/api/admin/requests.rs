//! `GET /admin/requests` and `GET /admin/requests/{request_id}`: the recent requests, and the story
//! of one of them.

use serde_json::{Map, Value, json};

use crate::admission::{Lane, StageTimes, StoryStage, StoryTold};
use crate::api::query_string::{Params, wrong};
use crate::cache::{CacheNote, Detail, Forward};
use crate::clock::{Clock, Duration, Instant};
use crate::domain::{CacheOutcome, Operation, Route};
use crate::history::{FinishedRequest, RequestFilter, RequestRing, StatusFilter};
use crate::problem::{Code, Problem};

const PARAMS: [&str; 6] = [
    "caller",
    "route",
    "status",
    "outcome",
    "slower_than",
    "limit",
];
/// Number of requests in one answer: without a `limit`, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// Returns the requests that the query string selects.
pub(super) fn list(
    query: Option<&str>,
    ring: &RequestRing,
    clock: &Clock,
) -> Result<Value, Problem> {
    let (filter, limit) = read(query)?;
    let (found, matched) = ring.find(&filter, limit);
    let now = Now::of(clock);
    let requests: Vec<Value> = found.iter().map(|one| summary(one, &now).into()).collect();
    Ok(json!({"requests": requests, "matched": matched, "kept_max": ring.capacity()}))
}

/// Returns the story of one request.
pub(super) fn one(
    query: Option<&str>,
    id: &str,
    ring: &RequestRing,
    clock: &Clock,
) -> Result<Value, Problem> {
    Params::parse(query, &[])?;
    if id.len() != 32 || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Problem::invalid_query(
            "This is not a request id. A request id has 32 hexadecimal digits, as in X-Request-Id.",
        ));
    }
    let request = ring.get(id.as_bytes()).ok_or_else(|| {
        let detail =
            "The gateway does not keep this request: newer ones have replaced it, or another replica answered it.";
        Problem::new(Code::NotFound, detail)
    })?;
    Ok(story(&request, &Now::of(clock)).into())
}

fn read(query: Option<&str>) -> Result<(RequestFilter, usize), Problem> {
    let params = Params::parse(query, &PARAMS)?;
    let route = params.get("route").map(|word| {
        let found = Route::ALL.into_iter().find(|route| route.as_str() == word);
        found.ok_or_else(|| {
            wrong(
                "route",
                format!("must be one of {}", words(Route::ALL.map(Route::as_str))),
            )
        })
    });
    let outcome = params.get("outcome").map(|word| {
        let found = CacheOutcome::ALL
            .into_iter()
            .find(|one| one.as_str() == word);
        match (found, word) {
            (Some(outcome), _) => Ok(Some(outcome)),
            (None, "none") => Ok(None),
            (None, _) => {
                let all = words(CacheOutcome::ALL.map(CacheOutcome::as_str));
                Err(wrong("outcome", format!("must be one of {all}, none")))
            }
        }
    });
    let limit = match params.get("limit") {
        None => LIMIT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| wrong("limit", format!("must be 1 to {LIMIT_MAX}")))?,
    };
    let filter = RequestFilter {
        caller: params.get("caller").map(str::to_owned),
        route: route.transpose()?,
        status: params.get("status").map(status).transpose()?,
        outcome: outcome.transpose()?,
        slower_than: params.get("slower_than").map(time).transpose()?,
    };
    Ok((filter, limit))
}

fn words<const N: usize>(words: [&str; N]) -> String {
    words.join(", ")
}

fn status(text: &str) -> Result<StatusFilter, Problem> {
    let class = text.strip_suffix("xx").and_then(|class| class.parse().ok());
    let exactly = text
        .parse()
        .ok()
        .filter(|status| (100..600).contains(status));
    match (class, exactly) {
        (Some(class @ 1..=5), _) => Ok(StatusFilter::Class(class)),
        (_, Some(status)) => Ok(StatusFilter::Exactly(status)),
        _ => Err(wrong(
            "status",
            "must be a status such as 503, or a class such as 5xx",
        )),
    }
}

/// Parses `250ms`, `1s`, `1.5s` or `2m`.
fn time(text: &str) -> Result<Duration, Problem> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = text.strip_suffix(unit).and_then(|n| n.parse::<f64>().ok());
    let unit_s = match unit {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        _ => None,
    };
    let seconds = number.zip(unit_s).map(|(number, unit_s)| number * unit_s);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| *time <= Duration::from_secs(3600))
        .ok_or_else(|| {
            wrong(
                "slower_than",
                "must be a time such as 250ms or 1s, at most an hour",
            )
        })
}

/// Converts moments to times of day.
struct Now {
    at: Instant,
    wall: jiff::Timestamp,
}

impl Now {
    fn of(clock: &Clock) -> Self {
        Self {
            at: clock.now(),
            wall: clock.wall(),
        }
    }

    fn text(&self, at: Instant) -> String {
        let ago = self.at.saturating_duration_since(at);
        let ago = jiff::SignedDuration::try_from(ago).unwrap_or(jiff::SignedDuration::MAX);
        let at = self
            .wall
            .saturating_sub(ago)
            .unwrap_or(jiff::Timestamp::MIN);
        format!("{at:.3}")
    }
}

/// Returns a duration in milliseconds with three decimals.
fn ms(time: Duration) -> Value {
    let micros = time.as_secs_f64() * 1e6;
    json!(micros.round() / 1e3)
}

fn summary(request: &FinishedRequest, now: &Now) -> Map<String, Value> {
    let id = std::str::from_utf8(&request.id).unwrap_or("");
    let path = request.path.as_deref().or(request.route.fixed_path());
    let vendor_calls = request.payer.as_ref().map_or(0, |payer| payer.calls());
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    put("request_id", id.into());
    put("time", now.text(request.arrived).into());
    put(
        "caller",
        request.caller.as_deref().unwrap_or("anonymous").into(),
    );
    put("peer", request.peer.map(|peer| peer.to_string()).into());
    put("route", request.route.as_str().into());
    put("method", request.method.as_str().into());
    put("path", path.into());
    put("status", request.status.into());
    put("code", request.code.into());
    put(
        "outcome",
        request.outcome.map_or("none", CacheOutcome::as_str).into(),
    );
    put("duration_ms", ms(request.took));
    put("vendor_calls", vendor_calls.into());
    put("bytes", request.sent_bytes.into());
    put("whole", request.whole.into());
    out
}

fn story(request: &FinishedRequest, now: &Now) -> Map<String, Value> {
    let told = request
        .payer
        .as_ref()
        .map_or_else(StoryTold::default, |payer| payer.story.told());
    let spent = told.spent(request.arrived, request.took);
    // A request that shares another one's vendor call only waits for that call.
    let shares = request.note.as_ref().is_some_and(|note| note.collapsed);
    let (shared, own) = match shares {
        true => (spent.own, Duration::ZERO),
        false => (Duration::ZERO, spent.own),
    };
    let stages: Vec<Value> = told
        .stages
        .iter()
        .map(|one| stage(one, request.arrived))
        .collect();
    let mut out = summary(request, now);
    let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    put("cache", request.note.as_ref().map(note).into());
    put("why", why(request, &told).into());
    put(
        "times_ms",
        json!({
            "total": ms(request.took),
            "slot_wait": ms(spent.slot),
            "budget_wait": ms(spent.budget),
            "retry_pause": ms(spent.pause),
            "vendor": ms(spent.vendor),
            "shared_wait": ms(shared),
            "own": ms(own),
            "sending": ms(request.lasted.saturating_sub(request.took)),
        }),
    );
    put("stages", stages.into());
    put("stages_more", told.more.into());
    out
}

/// Renders a stage. Its times count from the request's arrival.
fn stage(of: &StageTimes, arrived: Instant) -> Value {
    let begun = ms(of.begun.saturating_duration_since(arrived));
    let took = ms(of.took);
    let asked = |stage, operation: Operation, lane: Lane, outcome, status| {
        json!({
            "stage": stage,
            "vendor": operation.vendor().as_str(),
            "operation": operation.as_str(),
            "lane": lane.as_str(),
            "outcome": outcome,
            "status": status,
            "begun_ms": begun,
            "took_ms": took,
        })
    };
    match of.stage {
        StoryStage::Pause => json!({"stage": "retry_pause", "begun_ms": begun, "took_ms": took}),
        StoryStage::Slot => json!({"stage": "slot_wait", "begun_ms": begun, "took_ms": took}),
        StoryStage::Budget(lane) => {
            json!({"stage": "budget_wait", "lane": lane.as_str(), "begun_ms": begun, "took_ms": took})
        }
        StoryStage::Call {
            operation,
            lane,
            outcome,
            status,
        } => asked("vendor_call", operation, lane, outcome, status),
        StoryStage::Refused {
            operation,
            lane,
            outcome,
        } => asked("not_sent", operation, lane, outcome, None::<u16>),
    }
}

fn note(note: &CacheNote) -> Value {
    json!({
        "outcome": note.outcome.as_str(),
        "forward": note.forward.map(Forward::as_str),
        "detail": note.detail.map(Detail::as_str),
        "stored": note.stored,
        "collapsed": note.collapsed,
        "ttl_s": note.ttl_s,
    })
}

/// Returns why memory answered as it did, in a sentence.
fn why(request: &FinishedRequest, told: &StoryTold) -> Option<&'static str> {
    let Some(note) = &request.note else {
        let refused = told
            .stages
            .iter()
            .any(|one| matches!(one.stage, StoryStage::Refused { .. }));
        return match request.outcome {
            Some(CacheOutcome::Error) if refused => {
                Some("Nothing usable was cached, and the vendor could not be called.")
            }
            Some(CacheOutcome::Error) => {
                Some("Nothing usable was cached, and the vendor gave no answer.")
            }
            Some(CacheOutcome::Negative) => Some(
                "The vendor answered a moment ago that this does not exist, and that answer is cached.",
            ),
            _ => None,
        };
    };
    Some(match (note.forward, note.detail) {
        (_, Some(Detail::StaleWhileRevalidate)) => {
            "The cached answer was stale. It was served at once, while one refresh runs."
        }
        (_, Some(Detail::StaleOnError)) => {
            "The vendor gave no newer answer in time, so an older answer was served."
        }
        (_, Some(Detail::StaleNoBudget)) => {
            "No vendor budget was left, so an older answer was served."
        }
        (_, Some(Detail::AllowanceExhausted)) => {
            "The caller asked for a newer answer, but its allowance for that was used up."
        }
        (_, Some(Detail::SoftFailure)) => "The vendor answered 200 without the requested data.",
        (_, Some(Detail::Snapshot)) => {
            "The page comes from the snapshot that its token belongs to."
        }
        (None, Some(Detail::Projected)) => "The fields were selected from the cached full list.",
        (None, Some(Detail::Derived)) => {
            "The rows were selected from a cached search for all customers."
        }
        (None, Some(Detail::Store)) => {
            "The answer was in the store but not in memory, so the vendor was not called."
        }
        (None, None) => "The cached answer was fresh.",
        (Some(_), _) if note.collapsed => {
            "Another request was already fetching the same answer, so this one waited for it."
        }
        (Some(Forward::UriMiss), _) => "Nothing was cached, so the vendor was called.",
        (Some(Forward::Stale), _) => "The cached answer was too old, so the vendor was called.",
        (Some(Forward::Request), _) => {
            "The caller asked for a newer answer than the cached one, so the vendor was called."
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_strictly() {
        let (filter, limit) = read(Some(
            "caller=dash&route=case_search&status=5xx&outcome=none&slower_than=1.5s&limit=7",
        ))
        .unwrap();
        assert_eq!(limit, 7);
        assert_eq!(
            filter,
            RequestFilter {
                caller: Some("dash".to_owned()),
                route: Some(Route::CaseSearch),
                status: Some(StatusFilter::Class(5)),
                outcome: Some(None),
                slower_than: Some(Duration::from_millis(1500)),
            }
        );
        assert_eq!(read(None).unwrap(), (RequestFilter::default(), LIMIT));
        for (bad, right) in [
            (
                "status=6xx",
                "must be a status such as 503, or a class such as 5xx",
            ),
            ("status=99", "must be a status"),
            ("status=abc", "must be a status"),
            ("route=nope", "must be one of customers, case_search"),
            ("outcome=warm", "must be one of hit, stale, miss"),
            ("slower_than=fast", "must be a time such as 250ms"),
            ("slower_than=5", "must be a time such as 250ms"),
            ("slower_than=-5s", "must be a time"),
            ("slower_than=1e9s", "must be a time"),
            ("slower_than=999m", "at most an hour"),
            ("limit=0", "must be 1 to 1000"),
            ("limit=1001", "must be 1 to 1000"),
            ("limit=x", "must be 1 to 1000"),
            (
                "since=1",
                "its parameters are caller, route, status, outcome, slower_than, limit",
            ),
            ("limit=1&limit=2", "appears twice"),
        ] {
            let problem = read(Some(bad)).unwrap_err();
            assert_eq!(problem.code(), Code::InvalidQuery, "{bad}");
            assert!(
                problem.detail().contains(right),
                "{bad}: {}",
                problem.detail()
            );
        }
    }
}
