//! A shared store that lost rows gets them back from the memory of the gateways.

use msp_gateway::clock::{Clock, Duration, Instant, sleep};
use msp_gateway::reads::Purge;
use msp_gateway::store::SharedModel;

use crate::fleet_walks::Fleet;
use crate::kit::{Page, continued, first};

/// An empty server.
fn empty(clock: &Clock) -> SharedModel {
    SharedModel::new(64 << 20, clock.clone())
}

/// Another server takes the place of the one before, and all gateways reconnect.
async fn replace(fleet: &Fleet, by: &SharedModel) {
    let all = 0..fleet.rigs.len();
    all.clone().for_each(|number| fleet.cut(number, true));
    sleep(Duration::from_secs(1)).await;
    fleet.engine.become_copy_of(by);
    all.for_each(|number| fleet.cut(number, false));
}

async fn first_page(fleet: &Fleet, number: usize) -> Page {
    fleet.page(number, &first(40, "")).await.unwrap()
}

fn sum((searches, continues): (u64, u64)) -> u64 {
    searches + continues
}

fn detached(fleet: &Fleet, number: usize) -> u64 {
    fleet.rigs[number].reads.sweep();
    fleet.stores[number].detached()
}

#[tokio::test(start_paused = true)]
async fn rows_that_the_store_lost_come_back_from_the_gateway_that_has_them() {
    // What the server that takes the place has of the search: nothing, its first pages, or all
    // rows without their end.
    for pages in [0, 1, 3, 6] {
        let fleet = Fleet::of(3, 290);
        let clock = fleet.rigs[0].clock.clone();
        let copy = empty(&clock);
        let head = first_page(&fleet, 0).await;
        let mut token = head.token.clone();
        let mut read = 0;
        while let Some(next) = token {
            // Each page of 40 rows needs another vendor page of 50 at most.
            if read == pages && pages > 0 {
                copy.become_copy_of(&fleet.engine);
            }
            let page = fleet.page(0, &continued(&next, None)).await.unwrap();
            (token, read) = (page.token, read + 1);
        }
        let calls = fleet.calls();
        replace(&fleet, &copy).await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(detached(&fleet, 0), 0, "{pages}");
        // It dies, and the others have never held a row of it.
        fleet.cut(0, true);
        let rest = fleet.rest(head.token, |n| 1 + n % 2).await;
        assert_eq!(rest, fleet.list()[40..], "{pages}");
        let again = first_page(&fleet, 1).await;
        assert_eq!(again.rows, head.rows, "{pages}");
        assert_eq!(fleet.calls(), calls, "{pages}: no vendor call more");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_walked_while_the_store_was_away_is_stored_once_it_is_back() {
    let fleet = Fleet::of(2, 290);
    fleet.cut(0, true);
    let head = first_page(&fleet, 0).await;
    fleet.rest(head.token.clone(), |_| 0).await;
    let calls = fleet.calls();
    assert_eq!(detached(&fleet, 0), 1);
    fleet.cut(0, false);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(detached(&fleet, 0), 0);
    let rest = fleet.rest(head.token, |_| 1).await;
    assert_eq!(rest, fleet.list()[40..]);
    assert_eq!(fleet.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_running_walk_goes_on_and_its_kept_rows_are_back_before_its_next_page() {
    let fleet = Fleet::of(2, 290);
    let clock = fleet.rigs[0].clock.clone();
    let head = first_page(&fleet, 0).await;
    // The walk is idle now.
    sleep(Duration::from_secs(2)).await;
    let calls = fleet.calls();
    replace(&fleet, &empty(&clock)).await;
    sleep(Duration::from_secs(2)).await;
    let second = fleet
        .page(1, &continued(head.token.as_ref().unwrap(), Some(5)))
        .await
        .unwrap();
    assert_eq!(second.rows, fleet.list()[40..45]);
    assert_eq!(fleet.calls(), calls, "no vendor call for rows that it had");
    let rest = fleet.rest(second.token, |n| n % 2).await;
    assert_eq!(rest, fleet.list()[45..]);
    assert_eq!(fleet.calls(), (1, 5), "one scroll");
    assert_eq!(fleet.walks(0, "complete"), 1);
}

#[tokio::test(start_paused = true)]
async fn replaced_snapshots_come_back_for_their_tokens_and_the_newest_for_first_pages() {
    // Either gateway may be the first to put its own back.
    for first_back in [0, 1] {
        let fleet = Fleet::of(3, 290);
        let clock = fleet.rigs[0].clock.clone();
        let old = first_page(&fleet, 0).await;
        let list = fleet.list();
        fleet.rest(old.token.clone(), |n| n % 2).await;
        fleet.rigs[0].sandbox.alter(9, 9, 9);
        sleep(Duration::from_secs(125)).await;
        // Another gateway replaces it, and the first one does not learn that.
        fleet.cut(0, true);
        let new = first_page(&fleet, 1).await;
        assert_ne!(new.rows, old.rows);
        fleet.rest(new.token.clone(), |_| 1).await;
        let calls = fleet.calls();
        fleet.cut(1, true);
        sleep(Duration::from_secs(1)).await;
        fleet.engine.become_copy_of(&empty(&clock));
        for number in [first_back, 1 - first_back] {
            fleet.cut(number, false);
            sleep(Duration::from_secs(2)).await;
        }
        fleet.cut(0, true);
        fleet.cut(1, true);
        let rest = fleet.rest(old.token, |_| 2).await;
        assert_eq!(rest, list[40..]);
        let rest = fleet.rest(new.token, |_| 2).await;
        assert_eq!(rest, fleet.list()[40..]);
        let again = first_page(&fleet, 2).await;
        assert_eq!(again.rows, new.rows, "{first_back}");
        assert_eq!(fleet.calls(), calls, "{first_back}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_gateways_that_have_the_same_rows_put_them_back_once() {
    let fleet = Fleet::of(3, 290);
    let clock = fleet.rigs[0].clock.clone();
    let head = first_page(&fleet, 0).await;
    for number in [0, 1] {
        fleet.rest(head.token.clone(), |_| number).await;
    }
    let (calls, before) = (fleet.calls(), fleet.engine.bytes());
    replace(&fleet, &empty(&clock)).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!((detached(&fleet, 0), detached(&fleet, 1)), (0, 0));
    assert_eq!(fleet.engine.bytes(), before, "each row once");
    let rest = fleet.rest(head.token, |_| 2).await;
    assert_eq!(rest, fleet.list()[40..]);
    assert_eq!(fleet.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn rows_that_differ_from_those_in_the_store_stay_in_one_gateway() {
    let fleet = Fleet::of(2, 290);
    let head = first_page(&fleet, 0).await;
    sleep(Duration::from_secs(2)).await;
    let copy = (*fleet.engine).clone();
    let token = || head.token.clone();
    // It reads to the end, and then a copy without those rows takes the server's place.
    let whole = fleet.rest(token(), |_| 0).await;
    assert_eq!(whole, fleet.list()[40..]);
    fleet.cut(0, true);
    fleet.engine.become_copy_of(&copy);
    // The other one takes over. The list has changed.
    fleet.rigs[0].sandbox.alter(0, 5, 5);
    sleep(Duration::from_secs(8)).await;
    fleet.rest_or_refused(token(), 1).await;
    fleet.cut(0, false);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(detached(&fleet, 0), 1);
    // Its own tokens go on with its own rows, and the other gateway mixes none of them in.
    let (rows, _) = fleet.rest_or_expired(token(), 0).await;
    assert_eq!(rows, whole[..rows.len()]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_found_nowhere_waits_for_the_gateway_that_puts_it_back() {
    // How long after the store's return it is asked for, when the gateway with the rows finds the
    // store, and how long a page takes.
    for (after, late, waits) in [
        (600, Some(1_000), 1_000..2_000),
        (600, None, 2_000..2_500),
        (11_000, None, 0..500),
    ] {
        let fleet = Fleet::of(2, 290);
        let clock = fleet.rigs[0].clock.clone();
        let head = first_page(&fleet, 0).await;
        fleet.rest(head.token.clone(), |_| 0).await;
        let calls = sum(fleet.calls());
        fleet.cut(0, true);
        fleet.cut(1, true);
        sleep(Duration::from_secs(1)).await;
        fleet.engine.become_copy_of(&empty(&clock));
        fleet.cut(1, false);
        sleep(Duration::from_millis(after)).await;
        let body = continued(head.token.as_ref().unwrap(), None);
        let back = async {
            if let Some(ms) = late {
                sleep(Duration::from_millis(ms)).await;
                fleet.cut(0, false);
            }
        };
        let began = Instant::now();
        let page = async {
            let page = fleet.page(1, &body).await.unwrap();
            (page, u64::try_from(began.elapsed().as_millis()).unwrap())
        };
        let ((page, took), ()) = tokio::join!(page, back);
        assert_eq!(page.rows, fleet.list()[40..80]);
        assert!(waits.contains(&took), "{took} ms");
        let more = sum(fleet.calls()) - calls;
        assert_eq!(more == 0, late.is_some(), "{more} calls");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_purged_while_a_gateway_was_away_does_not_come_back() {
    for soft in [false, true] {
        let fleet = Fleet::of(3, 290);
        let clock = fleet.rigs[0].clock.clone();
        let head = first_page(&fleet, 0).await;
        fleet.rest(head.token.clone(), |_| 0).await;
        let calls = sum(fleet.calls());
        fleet.cut(0, true);
        sleep(Duration::from_secs(1)).await;
        fleet.engine.become_copy_of(&empty(&clock));
        fleet.rigs[1].reads.purge(&Purge::All, soft);
        assert!(fleet.rigs[1].reads.keep_purges().await);
        fleet.cut(0, false);
        sleep(Duration::from_secs(3)).await;
        let page = first_page(&fleet, 2).await;
        assert_eq!(page.rows, head.rows);
        sleep(Duration::from_secs(2)).await;
        // After a soft purge the rows are served, and read again.
        let read_again = sum(fleet.calls()) > calls;
        assert!(read_again, "{soft}");
        assert_eq!(
            page.answer.note.detail.is_some(),
            soft,
            "{:?}",
            page.answer.note
        );
    }
}
