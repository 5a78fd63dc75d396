//! The fewest vendor calls with which every request of a trace could have had an answer no older
//! than `fresh + stale`, if the future were known.
//!
//! Three kinds of questions are bounded apart, because no answer of one kind serves another:
//!
//! - The customer list, and each bill. One call serves every request of the next `fresh + stale`
//!   seconds. So it is optimal to call at the first request that no earlier call serves.
//! - The searches of one date range. A *walk* of all customers costs a call for each vendor page
//!   and serves everything: lists, first pages, drill-downs. A first page of all customers, and a
//!   first page of one customer, cost one call and serve their own kind. Dynamic programming over
//!   the moments of the walks finds the cheapest mixture.
//!
//! The bound assumes that vendor calls take no time, and never counts an abandoned scroll. So no
//! gateway can reach it. It holds for gateways that cut a customer from complete lists only, and no
//! date range from another one.

use std::collections::BTreeMap;

use msp_gateway::clock::Duration;

use super::trace::{Ask, Event};

/// Rows of a vendor page.
const PAGE_ROWS: usize = 500;

/// The rows of a date range that one request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Every row.
    Whole,
    /// The first page of all customers.
    First,
    /// The first page of this customer.
    Customer(usize),
}

/// How long answers may be served, and how many rows a date range has.
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
        // What is fetched between `i` and the walk: (until when it may be served, which need it
        // serves).
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
                // Only a walk serves it, so the walk cannot start later.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What a call fetches: the first page of all customers, the first page of one, or every row by
    /// a walk.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Fetch {
        Walk,
        Page(Need),
    }

    /// The cheapest way, found by trying every set of calls at the time of every need.
    fn cheapest_of_all(needs: &[(Duration, Need)], life: Duration, pages: u64) -> u64 {
        fn try_all(
            needs: &[(Duration, Need)],
            held: &[(Duration, Fetch)],
            fetches: &[Fetch],
            life: Duration,
            pages: u64,
        ) -> u64 {
            let Some(((now, need), later)) = needs.split_first() else {
                return 0;
            };
            let mut best = u64::MAX;
            for set in 0..1_usize << fetches.len() {
                let chosen = fetches.iter().enumerate();
                let chosen = chosen.filter(|(at, _)| set >> at & 1 == 1);
                let (mut held, mut cost) = (held.to_vec(), 0);
                for (_, fetch) in chosen {
                    held.push((*now + life, *fetch));
                    cost += match fetch {
                        Fetch::Walk => pages,
                        Fetch::Page(_) => 1,
                    };
                }
                if cost >= best {
                    continue;
                }
                held.retain(|(until, _)| until >= now);
                // The only page of a list is all of it.
                let all = Fetch::Page(Need::First);
                let serves = |fetch| {
                    fetch == Fetch::Walk
                        || fetch == Fetch::Page(*need)
                        || pages == 1 && fetch == all
                };
                if held.iter().any(|(_, fetch)| serves(*fetch)) {
                    let rest = try_all(later, &held, fetches, life, pages);
                    best = best.min(cost + rest);
                }
            }
            best
        }
        let pages_of = [Need::First, Need::Customer(0), Need::Customer(1)];
        let fetches = [&[Fetch::Walk][..], &pages_of.map(Fetch::Page)].concat();
        try_all(needs, &[], &fetches, life, pages)
    }

    #[test]
    fn no_set_of_calls_is_cheaper() {
        let all = [
            Need::Whole,
            Need::First,
            Need::Customer(0),
            Need::Customer(1),
        ];
        let mut rng = fastrand::Rng::with_seed(7);
        let mut mixtures = 0;
        for _ in 0..300 {
            let (mut now, pages) = (0, rng.u64(1..5));
            let draw = |_| {
                // Two needs may come at the same time.
                now += rng.u64(0..4);
                (at(now), all[rng.usize(..all.len())])
            };
            let needs: Vec<_> = (0..4).map(draw).collect();
            let life = at(rng.u64(0..8));
            let found = cheapest(&needs, life, pages);
            let right = cheapest_of_all(&needs, life, pages);
            assert_eq!(found, right, "{needs:?} {life:?} {pages}");
            let points: Vec<_> = needs.iter().map(|(at, _)| *at).collect();
            mixtures += u64::from(found < intervals(&points, life) * pages);
        }
        // So for most draws, walks alone were not the cheapest way.
        assert!(mixtures > 50, "{mixtures}");
    }

    #[test]
    fn an_answer_serves_to_the_end_of_its_life() {
        let needs = |at: &[u64]| {
            at.iter()
                .map(|at| Duration::from_secs(*at))
                .collect::<Vec<_>>()
        };
        assert_eq!(intervals(&needs(&[0, 3, 6]), at(6)), 1);
        assert_eq!(intervals(&needs(&[0, 3, 6, 7, 13]), at(6)), 2);
        assert_eq!(intervals(&needs(&[]), at(6)), 0);
    }
}
