//! One budget for a fleet: several gateways keep to one vendor's limit together.

use msp_gateway::clock::{Duration, Instant, sleep};
use msp_gateway::domain::{ContractId, Month};
use msp_gateway::reads::billing::SoftFailure;
use msp_gateway::sandbox::SimOperation;

use crate::fleet::{FleetRig, Replica};
use crate::kit::{Rig, Setup};

/// Requests a minute at N-able, of all gateways together.
pub const RATE: u32 = 120;
/// A sixth of it may go back to back.
pub const BURST: u32 = RATE / 6;
const PLACES: usize = 4;

/// More questions than can be asked in the time of a test. The vendor grants what the budget may
/// send in a minute, and no request more.
pub fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.world.contracts = 400;
    setup.world.latency = Duration::from_millis(150);
    setup.nable = Box::new(|options| {
        options.requests_per_minute = RATE;
        options.concurrency = PLACES;
    });
    setup
}

/// Asks a question that no other caller asks, one after the other.
pub async fn ask(rig: &Rig, caller: usize, callers: usize, until: Instant) -> u32 {
    let contracts = rig.sandbox.contracts();
    let months = rig.sandbox.months();
    let mut answered = 0;
    for n in (caller..contracts.len() * months.len()).step_by(callers) {
        if Instant::now() >= until {
            break;
        }
        let contract = ContractId::parse(&contracts[n % contracts.len()].id).unwrap();
        let month = Month::parse(&months[n / contracts.len()]).unwrap();
        let (asker, soft) = (rig.everyone(), SoftFailure::PassOn);
        let found = rig.reads.billing.services(&asker, month, &contract, soft);
        answered += u32::from(found.await.is_ok());
    }
    answered
}

/// Calls that arrived, and those in flight at most, of each vendor's own counts.
pub fn counted(replicas: &[Replica]) -> (u64, u64) {
    let counts: Vec<_> = replicas.iter().map(|it| it.rig.sandbox.counts()).collect();
    let calls = counts.iter().map(|it| it.requests(SimOperation::Billing));
    let limited = counts.iter().map(|it| {
        let of = it.of(SimOperation::Billing);
        of.by_status.get(&429).copied().unwrap_or(0)
    });
    (calls.sum(), limited.sum())
}

#[tokio::test(start_paused = true)]
async fn three_gateways_over_one_vendor_never_exceed_its_limit_and_use_it() {
    let fleet = FleetRig::before_one_vendor(3, || {
        let mut setup = setup();
        setup.world.nable_requests_per_minute = Some(RATE + BURST);
        setup
    });
    sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    let until = began + Duration::from_secs(300);
    let callers = (0..30).map(|n| ask(fleet.rig(n % 3), n, 30, until));
    let answered: u32 = futures_util::future::join_all(callers).await.iter().sum();
    // One vendor for all: each counts the same.
    let (calls, limited) = counted(&fleet.replicas[..1]);
    assert_eq!(limited, 0, "429 of {calls}");
    assert!(answered >= 4 * RATE, "{answered} answers");
    let most = began.elapsed().as_secs_f64() / 60.0 * f64::from(RATE) + f64::from(BURST);
    assert!(calls as f64 <= most, "{calls} calls, {most} at most");
    let peak = fleet.rig(0).sandbox.counts().vendors["nable"].in_flight_peak;
    assert!(peak <= PLACES as u64, "{peak} in flight");
}
