//! The origins of a party's vendor calls: their operation, the lane that the gateway logged, and
//! for searches the customer and the number of days.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::Date;
use msp_gateway::sandbox::{Recorded, Sandbox, SimOperation};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// How many calls of each (operation, lane) the gateway logged.
pub type Lanes = BTreeMap<(String, String), u64>;

/// Counts the gateway's own line for each vendor call.
#[derive(Clone, Default)]
pub struct CallLog(Arc<Mutex<Lanes>>);

#[derive(Default)]
struct Words {
    operation: Option<String>,
    lane: Option<String>,
    is_call: bool,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "operation" => self.operation = Some(value.to_owned()),
            "lane" => self.lane = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.is_call |= field.name() == "message" && format!("{value:?}") == "vendor call";
    }
}

impl<S: tracing::Subscriber> Layer<S> for CallLog {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        if let (true, Some(operation), Some(lane)) = (words.is_call, words.operation, words.lane) {
            *self.0.lock().entry((operation, lane)).or_default() += 1;
        }
    }
}

impl CallLog {
    /// Reads every event of this process from now on.
    pub fn install() -> Result<Self, String> {
        let log = Self::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::set_global_default(subscriber).map_err(|why| why.to_string())?;
        Ok(log)
    }

    /// Returns the counts since the last call.
    pub fn take(&self) -> Lanes {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Returns how many of the last 1,000 calls were first searches, by customer and number of days.
pub fn searches(sandbox: &Sandbox) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for call in sandbox.requests() {
        if call.operation == SimOperation::Search.as_str() {
            *found.entry(described(&call)).or_default() += 1;
        }
    }
    found
}

fn described(call: &Recorded) -> String {
    let body: serde_json::Value = serde_json::from_str(&call.body).unwrap_or_default();
    let day = |name: &str| body["date_range"][name].as_str()?.parse::<Date>().ok();
    let whose = if call.target.contains("customer_id=") {
        "one customer"
    } else {
        "all customers"
    };
    match (day("start"), day("end")) {
        (Some(start), Some(end)) => {
            let days = (end - start).get_days();
            format!("{whose}, {days} days")
        }
        _ => format!("{whose}, all time"),
    }
}
