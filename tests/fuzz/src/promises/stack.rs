//! The whole inbound stack: any bytes on a connection of the public listener, over the sandbox
//! vendors, in paused time. No panic and no 500; no vendor key leaves; what is refused costs no
//! vendor call.

use std::cell::RefCell;

use msp_gateway::sandbox;
use tokio::runtime::Runtime;

use crate::whole::{SETTINGS, Whole, assert_no_vendor_key, caller, secrets, world};

/// Connections that one gateway sees: enough to meet a filled cache, few enough to stay the same.
const CONNECTIONS_MAX: usize = 64;

struct Stage {
    runtime: Runtime,
    whole: Whole,
    connections: usize,
    lines: usize,
    /// Nothing but refusals so far.
    innocent: bool,
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let world = sandbox::Options {
            cases: 30,
            ..world()
        };
        let callers = caller("all", "role = \"operator\"")
            + &caller(
                "few",
                "customers = [\"org_1\"]\nrequests_per_minute = 100000",
            );
        let whole = {
            let _inside = runtime.enter();
            Whole::with(&format!("{SETTINGS}{callers}"), &secrets(), world)
        };
        Self {
            runtime,
            whole,
            connections: 0,
            lines: 0,
            innocent: true,
        }
    }

    fn connection(&mut self, bytes: &[u8]) {
        let whole = &self.whole;
        let said = self.runtime.block_on(async {
            let mut peer = whole.connect();
            peer.send(bytes).await;
            // Half-closed, it would count as a caller who has left; so time ends it.
            peer.rest().await
        });
        self.connections += 1;
        assert_eq!(whole.metrics.panics.get(), 0);
        let lines = whole.log.lines();
        for line in lines.iter().skip(self.lines) {
            let told: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
            let status = told["status"].as_u64().expect("a status");
            // The vendors are healthy and the budgets wide, so nothing is anybody's fault but the
            // caller's.
            let asked_for = told["code"] == "not_cached";
            assert!((200..500).contains(&status) || asked_for, "{line}");
            let calls = told["vendor_calls"].as_u64().expect("a count");
            let refused = matches!(status, 400 | 401 | 403 | 405 | 408 | 411..=417 | 431 | 499)
                && told["code"] != "vendor_rejected_request";
            assert!(!refused || calls == 0, "{line}");
            self.innocent &= refused || told["code"] == "not_found";
        }
        assert!(!self.innocent || whole.vendor_calls() == 0, "{lines:?}");
        let given = String::from_utf8_lossy(bytes);
        // A request that holds a vendor's key may get it echoed.
        if !given.contains("sandbox-") {
            assert_no_vendor_key(&said, "an answer");
            let new: String = lines.iter().skip(self.lines).map(String::as_str).collect();
            assert_no_vendor_key(&new, "the access log");
        }
        self.lines = lines.len();
    }
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

pub fn hold(bytes: &[u8]) {
    STAGE.with_borrow_mut(|stage| {
        let mut on = stage.take().unwrap_or_else(Stage::new);
        on.connection(bytes);
        // A stage on which something broke is not used again: it was taken off.
        if on.connections < CONNECTIONS_MAX {
            *stage = Some(on);
        }
    });
}
