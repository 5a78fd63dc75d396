//! What the admin listener asks of the gateway.

use std::sync::{Arc, Weak};

use serde_json::{Map, Value, json};

use super::App;
use super::vendor::Side;
use crate::access::Caller;
use crate::admission::breaker::CircuitState;
use crate::api::admin::{AdminReads, PurgeRequest, PurgeTarget, Purged, Readiness, VendorState};
use crate::api::question::Question;
use crate::cache::Lifetimes;
use crate::clock::Duration;
use crate::domain::{FieldSet, SearchQuery, Vendor};
use crate::exchange::Boxed;
use crate::problem::{Code, Problem};
use crate::reads::{self, Explanation, Lookup, ReadError};
use crate::store::{StoreBar, StoreHealth};

/// Speaks for the gateway. Weak, because the gateway holds the stack that holds this.
pub(super) struct Desk(Weak<App>);

impl Desk {
    pub(super) fn of(app: Weak<App>) -> Self {
        Self(app)
    }
}

impl AdminReads for Desk {
    fn purge(&self, purge: PurgeRequest) -> Boxed<Purged> {
        let Some(app) = self.0.upgrade() else {
            return Box::pin(std::future::ready(Purged::default()));
        };
        let what = match purge.target {
            PurgeTarget::All => reads::Purge::All,
            PurgeTarget::Customer(customer) => reads::Purge::Customer(customer),
            PurgeTarget::Kind(kind) => reads::Purge::Kind(kind),
        };
        let purged = app.reads.purge(&what, purge.soft);
        Box::pin(async move {
            let kept = app.reads.keep_purges().await;
            let reach = match kept {
                true => app.reads.purge_reach().await,
                false => None,
            };
            Purged {
                entries: purged,
                pending: match (kept, app.store.is_shared()) {
                    (true, _) => None,
                    (false, true) => Some("fleet"),
                    (false, false) => Some("store"),
                },
                reach,
            }
        })
    }

    fn resume(&self, vendor: Vendor) -> Result<Option<Duration>, Problem> {
        let app = self.0.upgrade();
        let app = app.ok_or_else(|| Problem::internal("the gateway is gone"))?;
        let Some(side) = app.sides.get(vendor) else {
            return Err(Problem::new(
                Code::VendorUnavailable,
                format!("{} is not configured in this gateway.", vendor.as_str()),
            ));
        };
        Ok(side.gates().governor.resume())
    }

    fn explain(&self, question: &Question, caller: &Arc<Caller>) -> Result<Value, Problem> {
        match self.0.upgrade() {
            Some(app) => app.explain(question, caller),
            None => Err(Problem::internal("the gateway is gone")),
        }
    }

    fn status(&self) -> Value {
        self.0.upgrade().map_or(Value::Null, |app| app.status())
    }

    fn snapshots(&self, limit: usize) -> Value {
        let app = self.0.upgrade();
        app.map_or(Value::Null, |app| app.shown_snapshots(limit))
    }

    fn callers(&self) -> Value {
        self.0
            .upgrade()
            .map_or(Value::Null, |app| app.shown_callers())
    }

    fn settings(&self) -> Value {
        self.0
            .upgrade()
            .map_or(Value::Null, |app| app.in_force.json())
    }

    fn readiness(&self) -> Readiness {
        match self.0.upgrade() {
            Some(app) => app.readiness(),
            None => Readiness {
                ready: false,
                vendors: Vec::new(),
                store: StoreHealth::Off,
            },
        }
    }
}

impl App {
    fn readiness(&self) -> Readiness {
        let sides = self.sides.iter();
        Readiness {
            ready: !self.drain.is_draining() && self.store.bar() != StoreBar::Everything,
            vendors: sides
                .map(|(vendor, side)| (vendor, vendor_state(side)))
                .collect(),
            store: match self.store.bar() {
                // Connected again, perhaps, but purges of the others are not yet in force here.
                StoreBar::Everything => StoreHealth::Away,
                StoreBar::Nothing | StoreBar::VendorCalls => self.store.health(),
            },
        }
    }

    fn status(&self) -> Value {
        let now = self.clock.now();
        let vendors: Map<String, Value> = self
            .sides
            .iter()
            .map(|(vendor, side)| (vendor.as_str().to_owned(), vendor_status(side)))
            .collect();
        let callers: Vec<Value> = self
            .callers
            .load()
            .iter()
            .map(|c| caller_status(c))
            .collect();
        let options = self.snapshots.options.load();
        let slots = self.snapshots.slots.usage();
        let shared = self.store.is_shared();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": now.saturating_duration_since(self.started).as_secs(),
            "draining": self.drain.is_draining(),
            "requests_in_flight": self.in_flight.now(),
            "exports_running": self.exports.now(),
            "followers": self.followers.now(),
            "vendors": vendors,
            "scrolls": {
                "open": slots.running,
                "max": options.open_scrolls_max,
                "at_vendor": slots.standing,
                "at_vendor_max": options.vendor_scrolls_max,
                "searches_waiting": slots.waiting,
            },
            "snapshots": {
                "entries": self.snapshots.count(),
                "bytes": self.snapshots.bytes(),
                "bytes_max": options.snapshot_bytes_max,
            },
            "store": {
                "state": self.store.health().as_str(),
                "when_away": shared.then(|| self.store.when_away().as_str()),
                "refuses": shared.then(|| self.store.bar().as_str()),
                "bytes": self.store.bytes(),
                "replicas": shared.then(|| self.store.replicas()),
                "detached": shared.then(|| self.store.detached()),
            },
            "certificates": self.certificates(),
            "dropped": {
                "log_lines": self.metrics.log_lines_dropped.get(),
                "spans": self.metrics.traces.dropped_so_far(),
            },
            "callers": callers,
            "background": {"vendor_calls": self.metrics.background_calls().count()},
        })
    }

    /// Returns the certificate that each listener shows, with the time until it ends.
    fn certificates(&self) -> Vec<Value> {
        let now = self.clock.wall();
        let listeners = [("public", self.public_tls()), ("admin", self.admin_tls())];
        let with_tls = listeners
            .into_iter()
            .filter_map(|(name, tls)| Some((name, tls?)));
        with_tls
            .map(|(listener, tls)| {
                let ends = tls.current().not_after();
                json!({
                    "listener": listener,
                    "not_after": ends.to_string(),
                    "ends_in_s": ends.duration_since(now).as_secs(),
                })
            })
            .collect()
    }

    fn explain(&self, question: &Question, caller: &Arc<Caller>) -> Result<Value, Problem> {
        let all_rows = |query: &SearchQuery| {
            let explanation = self.reads.cases.explain(caller, query, true)?;
            Ok::<_, ReadError>(explained(&explanation))
        };
        let looked_up = |lookup: &Lookup| {
            let explanation = self.reads.lookups.explain(caller, lookup)?;
            let explanation = explanation.ok_or_else(|| {
                Problem::new(
                    Code::InvalidQuery,
                    "A request with start_page_key is answered from the snapshot of its token. Explain the first page instead.",
                )
            });
            Ok::<_, Problem>(explained(&explanation?))
        };
        Ok(match question {
            Question::Lookup(lookup) => looked_up(lookup)?,
            Question::Search(request) => {
                let search = self.reads.cases.prepare(request.clone());
                looked_up(&Lookup::Search(Arc::new(search)))?
            }
            Question::Nable {
                month, contract, ..
            } => looked_up(&Lookup::of_month(*month, contract.as_ref()))?,
            Question::Export { query, .. } => all_rows(query)?,
            Question::Changes(request) => all_rows(&SearchQuery {
                customer: request.customer.clone(),
                range: request.range,
                ..SearchQuery::default()
            })?,
            Question::Overview(overview) => {
                let (range, month) = self.reads.overview.covered(overview);
                let cases = SearchQuery {
                    range: Some(range),
                    ..SearchQuery::default()
                };
                let billing = caller.billing.then(|| looked_up(&Lookup::Month(month)));
                json!({"parts": {
                    "wiv.customers": looked_up(&Lookup::Customers(FieldSet::ALL))?,
                    "wiv.cases": all_rows(&cases)?,
                    "nable.billing": billing.transpose()?,
                }})
            }
            Question::Events(_) => {
                return Err(Problem::new(
                    Code::InvalidQuery,
                    "A stream of events makes no vendor calls. Explain the targets that it names instead.",
                ));
            }
        })
    }
}

pub(super) fn vendor_state(side: &Option<Side>) -> VendorState {
    let Some(side) = side else {
        return VendorState::Disabled;
    };
    let gates = side.gates();
    let closed = gates.circuit.snapshot().state == CircuitState::Closed;
    let held = gates.governor.snapshot().hold_down.is_some();
    if closed && !held && !gates.credential.is_rejected() {
        VendorState::Ok
    } else {
        VendorState::Degraded
    }
}

fn vendor_status(side: &Option<Side>) -> Value {
    let Some(configured) = side else {
        return json!({"state": VendorState::Disabled.as_str()});
    };
    let gates = configured.gates();
    let pace = gates.governor.snapshot();
    let circuit = gates.circuit.snapshot();
    let queued: Map<String, Value> = pace
        .queued
        .iter()
        .map(|(lane, calls)| (lane.as_str().to_owned(), json!(calls)))
        .collect();
    json!({
        "state": vendor_state(side).as_str(),
        "circuit": circuit.state.as_str(),
        "probe_in_ms": circuit.probe_in.map(|wait| wait.as_millis()),
        "key_rejected": gates.credential.is_rejected(),
        "budget": {
            "requests_per_minute": pace.settings.requests_per_minute,
            "rate_limit": pace.rate_limit,
            "remaining": pace.remaining,
            "concurrency": pace.settings.concurrency,
            "concurrency_limit": pace.concurrency_limit,
            "in_flight": pace.in_flight,
            "queued": queued,
            "hold_down_s": pace.hold_down.map(|wait| wait.as_secs()),
            "background": pace.ramp.map(|(percent, left)| json!({
                "percent": percent,
                "all_in_s": left.as_secs(),
            })),
        },
    })
}

fn caller_status(caller: &Caller) -> Value {
    let (calls, saved) = caller.meter.ledger();
    json!({
        "name": &*caller.name,
        "role": caller.role.as_str(),
        "vendor_calls": calls,
        "vendor_calls_saved": saved,
        "last_used": caller.presence.last_used().map(|at| at.to_string()),
    })
}

fn explained(explanation: &Explanation) -> Value {
    let Lifetimes {
        fresh,
        stale,
        on_error,
    } = explanation.lifetimes;
    json!({
        "identity": explanation.identity,
        "held": explanation.held,
        "negative": explanation.negative,
        "derived_from": explanation.derived_from,
        "under_way": explanation.under_way,
        "standing": explanation.standing.as_str(),
        "age_s": explanation.age.map(|age| age.as_secs()),
        "policy": {
            "grade": explanation.grade,
            "fresh_s": fresh.as_secs(),
            "stale_s": stale.as_secs(),
            "on_error_s": on_error.as_secs(),
        },
        "snapshot": explanation.snapshot.map(|(end, rows)| json!({"end": end, "rows": rows})),
        "lane": explanation.lane.map(|lane| lane.as_str()),
        "call": explanation.call.map(|operation| json!({
            "vendor": operation.vendor().as_str(),
            "operation": operation.as_str(),
        })),
    })
}
