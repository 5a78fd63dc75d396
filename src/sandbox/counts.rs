//! Counts what reached the sandbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::options::{SimOperation, SimVendor};
use super::scroll::{Claim, SimScrollCounts};

/// Counts of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OperationCounts {
    /// Requests that arrived, whatever happened to them.
    pub requests: u64,
    /// Requests answered to the last byte. Does not count dropped or cut answers, or those still
    /// being sent.
    pub answered: u64,
    /// Answers begun, by status.
    pub by_status: BTreeMap<u16, u64>,
}

/// Concurrent requests of one vendor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VendorCounts {
    /// Requests being answered now.
    pub in_flight: u64,
    /// Maximum of requests being answered at the same time.
    pub in_flight_peak: u64,
    /// Connections closed because the vendor was down. Such requests are counted nowhere else.
    pub closed_while_down: u64,
}

/// All counts since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// By the word of the operation. Every operation is there.
    pub operations: BTreeMap<&'static str, OperationCounts>,
    /// By the word of the vendor. Both vendors are there.
    pub vendors: BTreeMap<&'static str, VendorCounts>,
    /// The scrolls of wiv.
    pub scrolls: SimScrollCounts,
    /// Continuations that arrived while another one of the same scroll was being answered.
    pub scroll_overlaps: u64,
}

impl Counts {
    pub(super) fn empty() -> Self {
        Self {
            operations: SimOperation::ALL
                .map(|operation| (operation.as_str(), OperationCounts::default()))
                .into(),
            vendors: [SimVendor::Wiv, SimVendor::Nable]
                .map(|vendor| (vendor.as_str(), VendorCounts::default()))
                .into(),
            ..Self::default()
        }
    }

    /// Returns the counts of one operation.
    pub fn of(&self, operation: SimOperation) -> OperationCounts {
        self.operations
            .get(operation.as_str())
            .cloned()
            .unwrap_or_default()
    }

    /// Returns how many requests of `operation` arrived.
    pub fn requests(&self, operation: SimOperation) -> u64 {
        self.operations
            .get(operation.as_str())
            .map_or(0, |counts| counts.requests)
    }

    /// Returns how many requests arrived at either vendor, without connections closed while it was
    /// down.
    pub fn total(&self) -> u64 {
        self.operations.values().map(|counts| counts.requests).sum()
    }

    fn operation(&mut self, operation: SimOperation) -> &mut OperationCounts {
        self.operations.entry(operation.as_str()).or_default()
    }

    fn vendor(&mut self, vendor: SimVendor) -> &mut VendorCounts {
        self.vendors.entry(vendor.as_str()).or_default()
    }
}

/// Does the counting.
#[derive(Debug)]
pub(super) struct SimTally {
    counts: Mutex<Counts>,
}

impl SimTally {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::new(Counts::empty()),
        })
    }

    /// Counts a request that arrived. It is in flight until the watch is dropped.
    pub(super) fn arrived(self: &Arc<Self>, vendor: SimVendor, operation: SimOperation) -> Watch {
        let mut counts = self.counts.lock();
        counts.operation(operation).requests += 1;
        let at_once = counts.vendor(vendor);
        at_once.in_flight += 1;
        at_once.in_flight_peak = at_once.in_flight_peak.max(at_once.in_flight);
        Watch {
            tally: Arc::clone(self),
            vendor,
            operation,
            claim: None,
        }
    }

    /// Counts a connection that was closed because `vendor` is down.
    pub(super) fn closed_while_down(&self, vendor: SimVendor) {
        self.counts.lock().vendor(vendor).closed_while_down += 1;
    }

    /// Returns the counts, without those of scrolls.
    pub(super) fn read(&self) -> Counts {
        self.counts.lock().clone()
    }

    /// Resets the counts. Requests in flight remain in flight.
    pub(super) fn reset(&self) {
        let mut counts = self.counts.lock();
        let mut fresh = Counts::empty();
        for (vendor, now) in &counts.vendors {
            let in_flight = now.in_flight;
            let kept = VendorCounts {
                in_flight,
                in_flight_peak: in_flight,
                closed_while_down: 0,
            };
            fresh.vendors.insert(vendor, kept);
        }
        *counts = fresh;
    }
}

/// One request in flight, with its hold on a scroll.
#[derive(Debug)]
pub(super) struct Watch {
    tally: Arc<SimTally>,
    vendor: SimVendor,
    operation: SimOperation,
    claim: Option<Claim>,
}

impl Watch {
    /// Holds `claim` until the request is over.
    pub(super) fn hold(&mut self, claim: Claim) {
        self.claim = Some(claim);
    }

    /// Counts an answer of `status` that begins.
    pub(super) fn answering(&self, status: u16) {
        *self
            .tally
            .counts
            .lock()
            .operation(self.operation)
            .by_status
            .entry(status)
            .or_default() += 1;
    }

    /// Counts the answer as sent to its last byte.
    pub(super) fn answered(self) {
        self.tally.counts.lock().operation(self.operation).answered += 1;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut counts = self.tally.counts.lock();
        let vendor = counts.vendor(self.vendor);
        vendor.in_flight = vendor.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_in_flight_until_it_is_answered_or_dropped() {
        let tally = SimTally::new();
        let first = tally.arrived(SimVendor::Wiv, SimOperation::Search);
        let second = tally.arrived(SimVendor::Wiv, SimOperation::Search);
        first.answering(200);
        first.answered();
        drop(second);
        let counts = tally.read();
        let search = counts.of(SimOperation::Search);
        assert_eq!((search.requests, search.answered), (2, 1));
        assert_eq!(search.by_status, BTreeMap::from([(200, 1)]));
        assert_eq!(
            (
                counts.vendors["wiv"].in_flight,
                counts.vendors["wiv"].in_flight_peak
            ),
            (0, 2)
        );
        assert_eq!(counts.vendors["nable"], VendorCounts::default());
        let _held = tally.arrived(SimVendor::Nable, SimOperation::Billing);
        tally.reset();
        assert_eq!(tally.read().total(), 0);
        assert_eq!(tally.read().vendors["nable"].in_flight_peak, 1);
    }

    #[test]
    fn the_json_names_every_operation() {
        let json = serde_json::to_value(Counts::empty()).unwrap();
        for operation in SimOperation::ALL {
            assert_eq!(json["operations"][operation.as_str()]["requests"], 0);
        }
        assert_eq!(json["scrolls"]["peak_open"], 0);
        assert_eq!(json["scroll_overlaps"], 0);
    }
}
