//! What the console shows of snapshots and callers.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::App;
use crate::access::Caller;
use crate::domain::Audience;
use crate::domain::json::write_members;
use crate::metrics::CallerMeter;
use crate::snapshot::listing::ListedSnapshot;

/// Characters of a search's other members that are shown.
const MEMBERS_CHARS_MAX: usize = 200;
/// Customers of one caller that are named; more are counted.
const CUSTOMERS_MAX: usize = 20;

impl App {
    pub(super) fn shown_snapshots(&self, limit: usize) -> Value {
        let (listed, all) = self.snapshots.list(limit);
        let snapshots: Vec<Value> = listed.iter().map(snapshot).collect();
        json!({
            "snapshots": snapshots,
            "total": all,
            "bytes": self.snapshots.bytes(),
            "bytes_max": self.snapshots.options.load().snapshot_bytes_max,
        })
    }

    pub(super) fn shown_callers(&self) -> Value {
        let book = self.callers.load();
        let callers: Vec<Value> = book.iter().map(|one| caller(one)).collect();
        let background = self.metrics.background_calls().count();
        json!({
            "callers": callers,
            "anonymous": {"asked": asked(&book.anonymous)},
            "background": {"vendor_calls": background},
        })
    }
}

fn snapshot(listed: &ListedSnapshot) -> Value {
    let query = &listed.query;
    let mut members = String::new();
    write_members(&query.extra, &mut members);
    let shown: String = members.chars().take(MEMBERS_CHARS_MAX).collect();
    json!({
        "identity": listed.identity,
        "customer": query.customer.as_ref().map(|customer| customer.as_str()),
        "start": query.range.map(|range| range.start().to_string()),
        "end": query.range.map(|range| range.end().to_string()),
        "other_members": (!shown.is_empty()).then_some(shown),
        "state": listed.end.as_str(),
        "growing": listed.growing,
        "rows": listed.rows,
        "rows_served": listed.served,
        "bytes": listed.bytes,
        "age_s": listed.age.map(|age| age.as_secs()),
        "age_whole_s": listed.age_whole.map(|age| age.as_secs()),
        "standing": listed.standing.as_str(),
        "purged": listed.purged,
        "current": listed.current,
        "refreshing": listed.refreshing,
        "readers": listed.readers,
        "unused_s": listed.unused.as_secs(),
    })
}

fn asked(meter: &CallerMeter) -> Value {
    let [good, refused, failed, left] = meter.asked();
    json!({
        "total": good + refused + failed + left,
        "good": good,
        "refused": refused,
        "failed": failed,
        "left": left,
    })
}

fn caller(caller: &Caller) -> Value {
    let (caused, saved) = caller.meter.ledger();
    let customers = match &caller.audience {
        Audience::All => None,
        Audience::Only(set) => Some(set),
    };
    let named: Option<Vec<&str>> = customers.map(|set| {
        let all = set.iter().map(|customer| customer.as_str());
        all.take(CUSTOMERS_MAX).collect()
    });
    json!({
        "name": &*caller.name,
        "role": caller.role.as_str(),
        "customers": named,
        "customers_total": customers.map(|set| set.iter().count()),
        "billing": caller.billing,
        "asked": asked(&caller.meter),
        "vendor_calls": caused,
        "vendor_calls_saved": saved,
        "requests_in_flight": caller.presence.requests.load(Ordering::Relaxed),
        "exports_running": caller.presence.exports.load(Ordering::Relaxed),
        "followers": caller.presence.followers.load(Ordering::Relaxed),
        "requests_per_minute": caller.throttle.as_ref().map(|throttle| throttle.limit()),
        "requests_of_fleet": caller.throttle.as_ref().and_then(|throttle| throttle.of_fleet()),
        "forced_refreshes_per_minute": caller.forced.limit(),
        "expires": caller.expires().map(|at| at.to_string()),
        "last_used": caller.presence.last_used().map(|at| at.to_string()),
    })
}
