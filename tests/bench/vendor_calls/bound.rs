//! The fewest vendor calls with which every request of a trace could have had an answer no older
//! than `fresh + stale`, if the future were known.
//!
//! Three kinds of questions are bounded apart, because no answer of one kind serves another:
//!
//! - The customer list, and each bill. One call serves every request of the next `fresh + stale`
//!   seconds, so calling at the first request that nothing serves yet is the best that can be done.
//! - The searches of one date range. A *walk* of all customers costs a call for each vendor page
//!   and serves everything: lists, first pages, drill-downs. A first page of all customers, and a
//!   first page of one customer, cost one call and serve their own kind. Dynamic programming over
//!   the moments of the walks finds the cheapest mixture.
//!
//! The bound takes vendor calls for instantaneous and never counts an abandoned scroll, so no
//! gateway can reach it.

use std::collections::BTreeMap;

use msp_gateway::clock::Duration;

use super::trace::{Ask, Event};

/// Rows of a vendor page.
const PAGE_ROWS: usize = 500;

/// What one request needs of a date range's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Every row.
    Whole,
    /// The first page of all customers.
    First,
    /// The first page of this customer.
    Customer(usize),
}

/// How long answers serve, and how many rows a date range has.
pub struct World<'a> {
    pub customers: Duration,
    pub cases: Duration,
    pub billing: Duration,
    /// Rows of all customers in the range of this search body.
    pub rows: &'a dyn Fn(&serde_json::Value) -> usize,
}

/// The bound, by kind of question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    pub customers: u64,
    pub cases: u64,
    pub billing: u64,
}

impl Bound {
    pub fn total(&self) -> u64 {
        self.customers + self.cases + self.billing
    }

    pub fn add(&mut self, more: &Self) {
        self.customers += more.customers;
        self.cases += more.cases;
        self.billing += more.billing;
    }
}

/// The bound of a trace.
pub fn bound(trace: &[Vec<Event>], world: &World<'_>) -> Bound {
    let mut events: Vec<&Event> = trace.iter().flatten().collect();
    events.sort_by_key(|event| event.at);
    let mut customers = Vec::new();
    let mut bills: BTreeMap<(usize, usize), Vec<Duration>> = BTreeMap::new();
    let mut ranges: BTreeMap<String, (usize, Vec<(Duration, Need)>)> = BTreeMap::new();
    for event in events {
        let (body, need) = match &event.ask {
            Ask::Customers(_) => {
                customers.push(event.at);
                continue;
            }
            Ask::Billing { contract, back, .. } => {
                bills.entry((*contract, *back)).or_default().push(event.at);
                continue;
            }
            Ask::List { body, .. } => (body, Need::Whole),
            Ask::Search { customer, body } => (body, customer.map_or(Need::First, Need::Customer)),
        };
        let body: serde_json::Value = serde_json::from_str(body).expect("a search body");
        let range = &body["date_range"];
        let name = format!("{} {}", range["start"], range["end"]);
        let (_, needs) = ranges
            .entry(name)
            .or_insert_with(|| ((world.rows)(range), Vec::new()));
        needs.push((event.at, need));
    }
    let searches = ranges.values();
    Bound {
        customers: intervals(&customers, world.customers),
        billing: bills.values().map(|at| intervals(at, world.billing)).sum(),
        cases: searches
            .map(|(rows, needs)| {
                let pages = rows.div_ceil(PAGE_ROWS).max(1) as u64;
                cheapest(needs, world.cases, pages)
            })
            .sum(),
    }
}

/// The fewest intervals of this length that cover all points, which are sorted.
fn intervals(points: &[Duration], length: Duration) -> u64 {
    let (mut calls, mut until) = (0, None);
    for at in points {
        if until.is_none_or(|until| *at > until) {
            calls += 1;
            until = Some(*at + length);
        }
    }
    calls
}

/// The cheapest way to serve the needs of one date range, which are sorted by time.
///
/// `rest[i]` is the cost of serving the needs from `i` on when nothing that was fetched before
/// serves them. The next walk starts at some need `k`, because starting it later than it is needed
/// serves more. Needs before `k` are served one by one; the walk serves those up to `k`'s time plus
/// `life`.
fn cheapest(needs: &[(Duration, Need)], life: Duration, pages: u64) -> u64 {
    let mut rest = vec![0; needs.len() + 1];
    for i in (0..needs.len()).rev() {
        let mut best = u64::MAX;
        // What is fetched between `i` and the walk: (until when it serves, what it serves).
        let mut held: Vec<(Duration, Need)> = Vec::new();
        let mut spent = 0;
        for k in i..=needs.len() {
            let Some((at, need)) = needs.get(k) else {
                best = best.min(spent);
                break;
            };
            let served = needs.partition_point(|(later, _)| *later <= *at + life);
            best = best.min(spent + pages + rest[served]);
            if *need == Need::Whole && pages > 1 {
                // Nothing but a walk serves it, so the walk cannot start later.
                break;
            }
            let need = if *need == Need::Whole {
                Need::First
            } else {
                *need
            };
            held.retain(|(until, _)| until >= at);
            if !held.iter().any(|(_, serves)| *serves == need) {
                spent += 1;
                held.push((*at + life, need));
            }
            if spent >= best {
                break;
            }
        }
        rest[i] = best;
    }
    rest[0]
}
