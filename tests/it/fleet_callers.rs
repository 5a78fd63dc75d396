//! One limit of a caller for a fleet: what several gateways admit together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use msp_gateway::clock::{Clock, Duration, Instant, sleep};
use msp_gateway::sandbox::Sandbox;
use msp_gateway::store::{SharedModel, WhenAway};

use crate::fleet::Link;
use crate::kit::NOW;
use crate::whole::{SETTINGS, Whole, caller, get, secrets, world};

/// Requests a minute of the caller, at all gateways together.
const LIMIT: u32 = 120;
/// A sixth of it may come at once.
const BURST: u32 = LIMIT / 6;
const TICK: Duration = Duration::from_millis(100);

struct Limited {
    gateways: Vec<Whole>,
    cut: Vec<Arc<AtomicBool>>,
    began: Instant,
    /// When a request was admitted, and where.
    admitted: Vec<(Duration, usize)>,
}

impl Limited {
    async fn of(count: usize) -> Self {
        let limits = format!("requests_per_minute = {LIMIT}\nrole = \"operator\"");
        let text = format!("{SETTINGS}{}", caller("one", &limits));
        let clock = Clock::anchored(NOW.parse().unwrap());
        let sandbox = Sandbox::new(world(), clock.clone());
        let engine = Arc::new(SharedModel::new(64 << 20, clock.clone()));
        let cut: Vec<Arc<AtomicBool>> = (0..count).map(|_| Arc::default()).collect();
        let gateways = cut.iter().map(|cut| {
            let link = Link::to(&engine, cut, &Arc::default()).when_away(WhenAway::Open);
            Whole::begin(&text, &secrets(), (&sandbox, &clock), link)
        });
        let gateways = gateways.collect();
        // Each has heard of all others.
        sleep(Duration::from_secs(2)).await;
        Self {
            gateways,
            cut,
            began: Instant::now(),
            admitted: Vec::new(),
        }
    }

    /// One request. Returns what remains for the caller, or `None` where it is refused.
    async fn ask(&mut self, number: usize) -> Option<String> {
        let request = get("/msp/customers", "X-API-Key: k-one\r\n");
        let reply = self.gateways[number].ask(request).await;
        let limit = reply.header("ratelimit").to_owned();
        match reply.status {
            200 => {
                self.admitted.push((self.began.elapsed(), number));
                Some(limit)
            }
            429 => {
                assert!(limit.starts_with("\"burst\";r=0;t="), "{limit}");
                assert_ne!(reply.header("retry-after"), "");
                None
            }
            other => panic!("{other}"),
        }
    }

    /// The caller asks each of these as fast as it may.
    async fn saturate(&mut self, numbers: &[usize], seconds: u64) {
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            for number in numbers {
                while self.ask(*number).await.is_some() {}
            }
            sleep(TICK).await;
        }
    }

    fn since(&self, at: Duration) -> usize {
        self.admitted.iter().filter(|(when, _)| *when >= at).count()
    }
}

#[tokio::test(start_paused = true)]
async fn gateways_admit_together_what_one_of_them_would() {
    let mut fleet = Limited::of(3).await;
    fleet.saturate(&[0, 1, 2], 90).await;
    let took = fleet.began.elapsed().as_secs_f64();
    let one = took * f64::from(LIMIT) / 60.0 + f64::from(BURST);
    let all = fleet.admitted.len() as f64;
    // Half a second of the others' requests too many: one for each, once the burst is spent.
    assert!(all <= one + 4.0, "{all} of {one}");
    assert!(all >= one - 4.0, "{all} of {one}");
    // At the start, each admits a burst before it learns of the others. It is made good.
    let first = fleet.admitted.iter().filter(|(at, _)| at.as_millis() < 500);
    assert!(first.count() <= 3 * BURST as usize);
    let minute = Duration::from_secs(30);
    assert!(
        fleet.since(minute) <= LIMIT as usize + 4,
        "{}",
        fleet.since(minute)
    );
    // Each had its turn.
    for number in 0..3 {
        assert!(fleet.admitted.iter().any(|(_, at)| *at == number));
    }
    let shown = fleet.gateways[0].ask_admin(get("/admin/callers", "")).await;
    let shown = shown.json()["callers"][0]["requests_of_fleet"].clone();
    assert!(shown.as_u64().unwrap() > 20, "{shown}");
}

/// Refreshes that a caller forces have a limit of their own: six a minute here, six at once.
#[tokio::test(start_paused = true)]
async fn gateways_allow_forced_refreshes_together() {
    let fleet = Limited::of(3).await;
    let calls = |fleet: &Limited| fleet.gateways[0].vendor_calls();
    let before = calls(&fleet);
    let forced = get(
        "/msp/customers",
        "X-API-Key: k-one\r\nCache-Control: no-cache\r\n",
    );
    for number in 0..30 {
        let reply = fleet.gateways[number % 3].ask(&forced).await;
        assert_eq!(reply.status, 200);
        sleep(Duration::from_secs(2)).await;
    }
    let made = calls(&fleet) - before;
    // Six, and one in ten seconds. A first answer that nobody has yet is not forced.
    assert!((10..=14).contains(&made), "{made}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_to_another_gateway_takes_its_requests_along() {
    let mut fleet = Limited::of(3).await;
    for number in [0, 1, 2, 1] {
        fleet.saturate(&[number], 20).await;
        // What it did half a second ago may be unknown elsewhere: one request, and one came back.
        let next = (number + 1) % 3;
        let before = fleet.admitted.len();
        while fleet.ask(next).await.is_some() {}
        let more = fleet.admitted.len() - before;
        assert!(more <= 2, "{more} at {next} after {number}");
    }
    // Left alone, it has its whole burst at any of them, and the headers say so everywhere.
    sleep(Duration::from_secs(30)).await;
    assert_eq!(fleet.ask(0).await.unwrap(), "\"burst\";r=19;t=1");
    sleep(Duration::from_millis(600)).await;
    let limit = fleet.ask(1).await.unwrap();
    // One is missing here for the request there, less what came back since.
    assert!(
        limit == "\"burst\";r=19;t=1" || limit == "\"burst\";r=18;t=1",
        "{limit}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_gateway_admits_its_part() {
    let mut fleet = Limited::of(3).await;
    fleet.saturate(&[0, 1, 2], 30).await;
    for cut in &fleet.cut {
        cut.store(true, Ordering::Relaxed);
    }
    sleep(Duration::from_secs(1)).await;
    let (at, before) = (fleet.began.elapsed(), fleet.admitted.len());
    fleet.saturate(&[0, 1, 2], 60).await;
    let alone = fleet.admitted.len() - before;
    assert!((110..=126).contains(&alone), "{alone}");
    for number in 0..3 {
        let here = fleet
            .admitted
            .iter()
            .filter(|(when, of)| *when >= at && *of == number);
        let here = here.count();
        assert!((36..=43).contains(&here), "{here} at {number}");
    }
    // One alone is cut off still: it takes its part beside the others.
    fleet.cut[0].store(false, Ordering::Relaxed);
    fleet.cut[1].store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(3)).await;
    let before = fleet.admitted.len();
    fleet.saturate(&[0, 1, 2], 60).await;
    let all = fleet.admitted.len() - before;
    assert!((150..=185).contains(&all), "{all}");
    // All are back, and nobody is locked out for what was done alone.
    fleet.cut[2].store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(3)).await;
    let before = fleet.admitted.len();
    fleet.saturate(&[0, 1, 2], 60).await;
    let all = fleet.admitted.len() - before;
    assert!((115..=145).contains(&all), "{all}");
}
