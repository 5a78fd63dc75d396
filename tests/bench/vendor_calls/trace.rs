//! A stretch of a dashboard day, drawn from a seed: the requests of each caller, their times and
//! spellings.

use msp_gateway::clock::Duration;

/// Dashboards of one replica.
const CALLERS_PER_REPLICA: usize = 30;
/// Replicas whose callers share one gateway.
const REPLICAS: usize = 2;
/// Pauses between two questions of one caller, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 150..1_500;
/// How long an impatient caller waits.
pub const IMPATIENT: Duration = Duration::from_millis(20);

/// What one request asks.
#[derive(Clone, Debug)]
pub enum Ask {
    /// The customer list with these fields.
    Customers(&'static str),
    /// A first page.
    Search {
        customer: Option<usize>,
        body: String,
    },
    /// A whole search, page by page, in one of the spellings.
    List {
        body: String,
        size: u64,
        spelling: usize,
    },
    /// Billable services of a contract: which, how many months ago, and the body sent along.
    Billing {
        contract: usize,
        back: usize,
        body: &'static str,
    },
}

/// One request of a caller.
#[derive(Clone, Debug)]
pub struct Event {
    /// From the start.
    pub at: Duration,
    pub ask: Ask,
    /// Leaves before the answer.
    pub impatient: bool,
}

/// Field sets as different panels write them.
const FIELDS: [&str; 10] = [
    "",
    "?fields=id,name",
    "?fields=name,id",
    "?fields=id,name,users_number",
    "?fields=id,cost_impact",
    "?fields=id,name,cost_impact,realized_savings",
    "?fields=name,id,realized_savings,cost_impact",
    "?fields=id,active_workflows,failed_runs,successful_runs",
    "?fields=id,integrations",
    "?fields=id,name,num_of_integrations,integration_types",
];
const SIZES: [u64; 6] = [10, 25, 50, 100, 250, 500];
/// Ways in which programs write the same JSON.
pub const SPELLINGS: usize = 4;

/// A search body in one of the spellings.
fn search(size: u64, range: &Option<(String, String)>, spelling: usize) -> String {
    match (range, spelling % SPELLINGS) {
        (None, 0 | 1) => format!(r#"{{"max_returned_items":{size}}}"#),
        (None, 2) => format!(r#"{{"max_returned_items": {size}}}"#),
        (None, _) => format!("{{\n  \"max_returned_items\": {size}\n}}"),
        (Some((start, end)), 0) => format!(
            r#"{{"date_range":{{"start":"{start}","end":"{end}"}},"max_returned_items":{size}}}"#
        ),
        (Some((start, end)), 1) => format!(
            r#"{{"max_returned_items":{size},"date_range":{{"start":"{start}","end":"{end}"}}}}"#
        ),
        (Some((start, end)), 2) => format!(
            r#"{{"date_range": {{"end": "{end}", "start": "{start}"}}, "max_returned_items": {size}}}"#
        ),
        (Some((start, end)), _) => format!(
            "{{\n  \"max_returned_items\": {size},\n  \"date_range\": {{\n    \"start\": \"{start}\",\n    \"end\": \"{end}\"\n  }}\n}}"
        ),
    }
}

/// Each caller's events in order of time.
pub fn draw(seed: u64, length: Duration, today: jiff::civil::Date) -> Vec<Vec<Event>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let range = |days: i64| {
        let start = today.saturating_sub(jiff::Span::new().days(days));
        Some((start.to_string(), today.to_string()))
    };
    // Most panels show the last month, some the last week; the quarter and everything are rarer.
    let ranges = [30, 30, 30, 30, 30, 7, 7, 7].map(range);
    let ranges = [&ranges[..], &[range(90), None]].concat();
    (0..CALLERS_PER_REPLICA * REPLICAS)
        .map(|_| {
            // A program writes JSON in one way, and a dashboard has its page size.
            let spelling = rng.usize(..SPELLINGS);
            let own_size = SIZES[rng.usize(..SIZES.len())];
            let mut at = Duration::from_millis(rng.u64(PAUSE_MS));
            let mut events = Vec::new();
            while at < length {
                let size = if rng.u8(..4) == 0 {
                    SIZES[rng.usize(..SIZES.len())]
                } else {
                    own_size
                };
                let range = &ranges[rng.usize(..ranges.len())];
                let ask = match rng.u8(..100) {
                    0..25 => Ask::Customers(FIELDS[rng.usize(..FIELDS.len())]),
                    25..58 => Ask::Search {
                        customer: None,
                        body: search(size, range, spelling),
                    },
                    58..80 => Ask::Search {
                        // The larger customers are looked at more often.
                        customer: Some(rng.usize(..20).min(rng.usize(..20))),
                        body: search(size, range, spelling),
                    },
                    80..85 => Ask::List {
                        body: search(size.max(50), &ranges[0], spelling),
                        size: size.max(50),
                        spelling,
                    },
                    _ => Ask::Billing {
                        contract: rng.usize(..12).min(rng.usize(..12)),
                        back: 1 + rng.usize(..3).min(rng.usize(..3)),
                        body: ["", "{}"][rng.usize(..2)],
                    },
                };
                let impatient = !matches!(ask, Ask::List { .. }) && rng.u8(..100) < 8;
                events.push(Event { at, ask, impatient });
                at += Duration::from_millis(rng.u64(PAUSE_MS));
            }
            events
        })
        .collect()
}
