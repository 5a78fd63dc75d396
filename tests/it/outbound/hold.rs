//! Waits that vendors ask for: how long they are obeyed, and how they end before their time.

use super::calls::{PAGE, SECOND, ask, wiv_rig};
use super::test_vendor::{Rig, TestVendor, VendorReply, options, rig, spend};
use msp_gateway::clock::{Duration, sleep};
use msp_gateway::domain::{Operation, Shortage, Vendor};
use msp_gateway::upstream::Fault;

const ABSURD: [(&str, u16, &str); 5] = [
    ("seconds", 429, "retry-after: 30000\r\n"),
    (
        "a date",
        429,
        "retry-after: Tue, 06 Nov 2085 08:49:37 GMT\r\n",
    ),
    (
        "reset of a 429",
        429,
        "ratelimit: \"default\";r=0;t=999999999\r\n",
    ),
    (
        "reset of a 200",
        200,
        "ratelimit: \"default\";r=0;t=999999999\r\n",
    ),
    (
        "older names",
        200,
        "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 9999999999\r\n",
    ),
];

async fn held(status: u16, extra: &str, learns: bool) -> Rig {
    let mut options = options(Vendor::Wiv);
    options.learn_down_to = learns.then_some(6);
    let vendor = TestVendor::replies([VendorReply::status(status, extra, PAGE)]);
    let rig = rig(vendor, options, None);
    let _ = ask(&rig, Operation::Search, spend()).await;
    rig
}

async fn short(rig: &Rig) -> Option<Shortage> {
    let error = ask(rig, Operation::Search, spend()).await.err()?;
    assert_eq!(error.fault, Fault::BudgetExhausted);
    assert!(error.retry_after.unwrap() <= Duration::from_secs(600));
    error.short
}

#[tokio::test(start_paused = true)]
async fn an_absurd_wait_is_cut_and_tried_now_and_then() {
    for learns in [false, true] {
        for (name, status, extra) in ABSURD {
            let rig = held(status, extra, learns).await;
            let hold = rig.gates.governor.snapshot().hold_down.unwrap();
            assert_eq!(hold, Duration::from_secs(600), "{name}");
            assert_eq!(short(&rig).await, Some(Shortage::VendorHoldDown), "{name}");
            // The vendor still means it: one call a minute finds out, and the rest are refused.
            for minute in 1..=5 {
                sleep(SECOND * 61).await;
                rig.vendor
                    .now_does(|_| VendorReply::status(429, "retry-after: 30000\r\n", "{}"));
                let sent = rig.vendor.count();
                for _ in 0..5 {
                    let _ = ask(&rig, Operation::Search, spend()).await;
                }
                assert_eq!(rig.vendor.count() - sent, 1, "{name} {minute}");
            }
            // It answers again: so does the gateway, well before the ten minutes are over.
            rig.vendor.now_does(|_| VendorReply::ok(PAGE));
            sleep(SECOND * 61).await;
            for _ in 0..3 {
                let answer = ask(&rig, Operation::Search, spend()).await;
                assert!(answer.is_ok(), "{name} {:?}", answer.err());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn short_waits_see_no_probe() {
    let rig = held(429, "retry-after: 50\r\n", false).await;
    for _ in 0..49 {
        assert_eq!(short(&rig).await, Some(Shortage::VendorHoldDown));
        sleep(SECOND).await;
    }
    assert_eq!(rig.vendor.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_a_wait_at_once() {
    for learns in [false, true] {
        for (name, status, extra) in ABSURD {
            let rig = held(status, extra, learns).await;
            rig.vendor.now_does(|_| VendorReply::ok(PAGE));
            assert!(short(&rig).await.is_some(), "{name}");
            let left = rig.gates.governor.resume().unwrap();
            assert!(left > SECOND * 500, "{name}");
            assert_eq!(rig.gates.governor.resume(), None, "{name}");
            for _ in 0..3 {
                ask(&rig, Operation::Search, spend()).await.unwrap();
            }
        }
    }
    let rig = wiv_rig(TestVendor::replies([VendorReply::ok(PAGE)]));
    assert_eq!(rig.gates.governor.resume(), None);
}

#[tokio::test(start_paused = true)]
async fn a_failing_vendors_retry_after_is_cut_too() {
    let reply = VendorReply::status(503, "retry-after: 30000\r\n", "");
    let rig = wiv_rig(TestVendor::replies([reply]));
    let error = ask(&rig, Operation::Continue, spend()).await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(600)));
}
