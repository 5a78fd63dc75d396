//! What a snapshot gives, promises and remembers, at each stage of its growth.

use bytes::Bytes;

use super::cut::VIEWS_MAX;
use super::*;
use crate::cache::Subject;
use crate::clock::sleep;
use crate::domain::{AccountId, Audience, CustomerId, Shortage};
use crate::upstream::RawRows;

const SECOND: Duration = Duration::from_secs(1);
const LIFETIMES: Lifetimes = Lifetimes {
    fresh: Duration::from_secs(1000),
    stale: Duration::from_secs(100),
    on_error: Duration::from_secs(200),
};

fn charged_to(total: &Arc<AtomicU64>) -> Arc<Snapshot> {
    let query = Arc::new(SearchQuery::default());
    let key = CacheKey::new(AccountId::of_disabled(), Subject::Search(query.clone()));
    Snapshot::new(key, query, LIFETIMES, total.clone(), Clock::system())
}

fn snapshot() -> Arc<Snapshot> {
    charged_to(&Arc::default())
}

/// The case of this number, of the customer c0, c1 or c2 in turn.
fn row(number: usize) -> String {
    format!(
        r#"{{"case_id":{number},"customer_id":"c{}","case_type":"t{}"}}"#,
        number % 3,
        number % 2
    )
}

/// Adds rows up to this number in all.
fn grow(snapshot: &Snapshot, upto: usize) {
    let mut state = snapshot.lock();
    for number in state.rows.len()..upto {
        let text = row(number);
        let page = RawRows {
            ends: vec![text.len() as u32],
            text: text.into(),
            places: Vec::new(),
        };
        state.rows.append(page, |_| true);
    }
    state.told = upto.max(state.told);
}

fn end(snapshot: &Snapshot, end: End) {
    snapshot.lock().end = end;
}

fn all() -> View {
    View::new(None, Audience::All)
}

fn of(customer: &str) -> View {
    View::new(Some(CustomerId::parse(customer).unwrap()), Audience::All)
}

fn payer(name: &str) -> Arc<Payer> {
    Payer::caller(name.into(), None)
}

/// The numbers of the rows in these pieces.
fn numbers(pieces: &[Bytes]) -> Vec<usize> {
    let text: Vec<_> = pieces.iter().map(|p| String::from_utf8_lossy(p)).collect();
    let all: serde_json::Value = serde_json::from_str(&format!("[{}]", text.join(","))).unwrap();
    let numbers = all.as_array().unwrap().iter();
    numbers
        .map(|row| row["case_id"].as_u64().unwrap() as usize)
        .collect()
}

/// A cut in short: the rows and where the next page begins, or why there is none.
fn cut(
    snapshot: &Snapshot,
    view: &View,
    offset: u32,
    size: usize,
) -> Result<(Vec<usize>, Option<u32>), &'static str> {
    match snapshot.cut(view, offset, size, None) {
        Cut::Ready(page) => {
            let found = numbers(&page.pieces);
            assert_eq!(page.rows, found.len());
            Ok((found, page.next.map(|(place, _)| place)))
        }
        Cut::NeedMore => Err("more"),
        Cut::Gone => Err("gone"),
        Cut::Changed => Err("changed"),
        Cut::Limit(setting) => Err(setting),
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_whole_or_the_last_and_says_truly_whether_it_is() {
    // The rows 0, 1, 2 … of all, and 1, 4, 7 … of one customer: four of each are known.
    for (view, step, first) in [(all(), 1, 0), (of("c1"), 3, 1)] {
        let rows = |range: std::ops::Range<usize>| -> Vec<usize> {
            range.map(|n| first + n * step).collect()
        };
        let known = |stage| {
            let snapshot = snapshot();
            grow(&snapshot, rows(3..4)[0] + 1);
            end(&snapshot, stage);
            snapshot
        };
        let growing = known(End::Growing);
        assert_eq!(cut(&growing, &view, 0, 3), Ok((rows(0..3), Some(3))));
        assert_eq!(cut(&growing, &view, 0, 4), Err("more"));
        assert_eq!(cut(&growing, &view, 3, 1), Err("more"));
        assert_eq!(cut(&growing, &view, 9, 1), Err("more"));

        let complete = known(End::Complete);
        assert_eq!(cut(&complete, &view, 1, 2), Ok((rows(1..3), Some(3))));
        assert_eq!(cut(&complete, &view, 2, 2), Ok((rows(2..4), None)));
        assert_eq!(cut(&complete, &view, 2, 9), Ok((rows(2..4), None)));
        assert_eq!(cut(&complete, &view, 4, 1), Err("gone"));

        // What a page said stays true though the rows beyond never come.
        for (stage, why) in [(End::Broken, "gone"), (End::Cut("rows_max"), "rows_max")] {
            let ended = known(stage);
            assert_eq!(cut(&ended, &view, 1, 2), Ok((rows(1..3), Some(3))));
            assert_eq!(cut(&ended, &view, 2, 2), Ok((rows(2..4), Some(4))));
            assert_eq!(cut(&ended, &view, 2, 3), Err(why));
            assert_eq!(cut(&ended, &view, 4, 1), Err(why));
        }
    }
    // Nothing at all is a page too, the first one only.
    let empty = snapshot();
    assert_eq!(cut(&empty, &all(), 0, 1), Err("more"));
    end(&empty, End::Complete);
    assert_eq!(cut(&empty, &all(), 0, 1), Ok((vec![], None)));
    assert_eq!(cut(&empty, &of("c1"), 0, 1), Ok((vec![], None)));
    assert_eq!(cut(&empty, &all(), 1, 1), Err("gone"));
}

#[tokio::test(start_paused = true)]
async fn what_was_served_or_promised_is_remembered() {
    let snapshot = snapshot();
    grow(&snapshot, 9);
    let state = || {
        let state = snapshot.lock();
        (state.published, state.promised, state.furthest)
    };
    let page = |view: &View, offset, size| cut(&snapshot, view, offset, size).unwrap();
    // A first page announces a row, and no reader has read on.
    page(&all(), 0, 2);
    assert_eq!((state(), snapshot.served()), ((2, 3, 0), 3));
    page(&all(), 2, 2);
    assert_eq!((state(), snapshot.served()), ((4, 5, 4), 5));
    // Earlier pages take nothing back.
    page(&all(), 1, 1);
    assert_eq!(state(), (4, 5, 4));
    // Of one customer the row that follows is a certain one: here row 6, after row 3.
    page(&of("c0"), 1, 1);
    assert_eq!((state(), snapshot.size().1), ((7, 7, 7), 7));
    // The last page promises nothing.
    end(&snapshot, End::Complete);
    page(&of("c1"), 1, 5);
    assert_eq!(state(), (8, 8, 8));
    page(&all(), 8, 5);
    assert_eq!((state(), snapshot.served()), ((9, 9, 9), 9));
}

#[tokio::test(start_paused = true)]
async fn an_export_reads_what_there_is_and_hears_of_the_end_with_the_last_row() {
    let snapshot = snapshot();
    grow(&snapshot, 8);
    let read = |view: &View, first, size| {
        let (texts, end) = snapshot.rows_known(view, first, size);
        (numbers(&texts), end)
    };
    let served_and_read = || {
        let state = snapshot.lock();
        (state.published, state.furthest)
    };
    assert_eq!(snapshot.known(&all()), (8, End::Growing));
    assert_eq!(snapshot.known(&of("c2")), (2, End::Growing));
    assert_eq!(read(&of("c1"), 1, 1), (vec![4], End::Growing));
    assert_eq!(served_and_read(), (5, 5));
    assert_eq!(read(&all(), 8, 3), (vec![], End::Growing));
    assert_eq!(snapshot.lock().published, 5);
    end(&snapshot, End::Complete);
    assert_eq!(read(&all(), 2, 3), (vec![2, 3, 4], End::Growing));
    assert_eq!(snapshot.lock().published, 5);
    assert_eq!(read(&all(), 5, 3), (vec![5, 6, 7], End::Complete));
    assert_eq!(served_and_read(), (8, 8));
    assert_eq!(read(&of("c1"), 2, 9), (vec![7], End::Complete));
    assert_eq!(read(&of("c1"), 3, 9), (vec![], End::Complete));
    // Columns are those of the first rows, as far as the view shows them.
    assert_eq!(numbers(&snapshot.first_rows(&all(), 3)), [0, 1, 2]);
    assert_eq!(numbers(&snapshot.first_rows(&all(), 99)).len(), 8);
    assert_eq!(numbers(&snapshot.first_rows(&of("c1"), 5)), [1, 4]);
    assert_eq!(snapshot.known(&all()), (8, End::Complete));
}

#[tokio::test(start_paused = true)]
async fn a_summary_sees_the_rows_of_its_view_which_count_as_served() {
    let snapshot = snapshot();
    grow(&snapshot, 6);
    let seen = |view: &View| {
        let mut seen = Vec::new();
        snapshot.for_each_row(view, |customer, case_type| {
            seen.push(format!("{} {}", customer.unwrap(), case_type.unwrap()));
        });
        seen
    };
    assert_eq!(seen(&of("c1")), ["c1 t1", "c1 t0"]);
    assert_eq!(snapshot.lock().published, 6);
    assert_eq!(seen(&all()).len(), 6);
}

#[tokio::test(start_paused = true)]
async fn who_asks_first_pays_and_exports_do_not_pay_for_pages() {
    let who = |snapshot: &Snapshot| {
        let state = snapshot.lock();
        state.payer.as_ref().map(|payer| payer.name().to_string())
    };
    let want = |snapshot: &Snapshot, want, name| {
        snapshot.want_more(want, &payer(name), Clock::system().now());
        who(snapshot).unwrap()
    };
    let one = snapshot();
    grow(&one, 2);
    assert_eq!(who(&one), None);
    assert_eq!(want(&one, Want::Export, "a"), "a");
    assert_eq!(want(&one, Want::Export, "b"), "a");
    assert_eq!(want(&one, Want::Page, "c"), "c");
    assert_eq!(want(&one, Want::Page, "d"), "c");
    assert_eq!(want(&one, Want::Export, "e"), "c");
    let wanted = |snapshot: &Snapshot| {
        let state = snapshot.lock();
        (state.wanted_pages, state.wanted_export)
    };
    assert_eq!(wanted(&one), (3, 3));
    // What was wanted came: the next one pays.
    grow(&one, 3);
    assert_eq!(want(&one, Want::Page, "f"), "f");
    assert_eq!(wanted(&one), (4, 3));
    // So does the next one after a failure, which answered them all.
    one.announce_failure(WalkFailure::Internal);
    assert_eq!(wanted(&one), (0, 0));
    one.want_all(&payer("g"));
    assert_eq!(who(&one).unwrap(), "g");
    assert_eq!(wanted(&one).0, usize::MAX);
    one.want_all(&payer("h"));
    assert_eq!(want(&one, Want::Page, "i"), "g");
    one.charge_to(&payer("j"), Clock::system().now());
    assert_eq!(who(&one).unwrap(), "j");
}

#[tokio::test(start_paused = true)]
async fn rows_are_wanted_until_the_last_one_gives_up() {
    let snapshot = snapshot();
    let now = Clock::system().now();
    snapshot.want_more(Want::Page, &payer("a"), now + SECOND * 9);
    snapshot.want_more(Want::Page, &payer("b"), now + SECOND);
    assert_eq!(snapshot.lock().wanted_until, Some(now + SECOND * 9));
    snapshot.charge_to(&payer("c"), now + SECOND * 5);
    assert_eq!(snapshot.lock().wanted_until, Some(now + SECOND * 9));
    snapshot.charge_to(&payer("c"), now + SECOND * 10);
    assert_eq!(snapshot.lock().wanted_until, Some(now + SECOND * 10));
    // Each of them rings for the walk, which may come late.
    for ring in [
        |snapshot: &Snapshot| snapshot.want_all(&payer("a")),
        |snapshot: &Snapshot| snapshot.want_more(Want::Export, &payer("a"), Clock::system().now()),
    ] {
        let _ = crate::clock::timeout(SECOND, snapshot.demand.notified()).await;
        ring(&snapshot);
        let rung = crate::clock::timeout(SECOND, snapshot.demand.notified()).await;
        assert!(rung.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_those_who_waited_for_it_only() {
    let snapshot = snapshot();
    let mut changes = snapshot.changes();
    let before = snapshot.failures();
    assert!(snapshot.failure_since(before).is_none());
    snapshot.announce_failure(WalkFailure::Overloaded(Shortage::OpenScrolls, None));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let told = snapshot.failure_since(before);
    assert!(matches!(
        told,
        Some(WalkFailure::Overloaded(Shortage::OpenScrolls, None))
    ));
    let later = snapshot.failures();
    assert!(snapshot.failure_since(later).is_none());
    snapshot.announce_failure(WalkFailure::Internal);
    let told = snapshot.failure_since(later);
    assert!(matches!(told, Some(WalkFailure::Internal)));
    assert!(snapshot.failure_since(snapshot.failures()).is_none());
}

#[tokio::test(start_paused = true)]
async fn reading_on_is_told_from_first_pages() {
    let snapshot = snapshot();
    let birth = snapshot.birth();
    assert_eq!(
        (snapshot.last_used(), snapshot.last_paged()),
        (birth, birth)
    );
    sleep(SECOND).await;
    snapshot.touch(0);
    assert_eq!(snapshot.last_used(), birth + SECOND);
    assert_eq!(snapshot.last_paged(), birth);
    sleep(SECOND).await;
    snapshot.touch(1);
    assert_eq!(snapshot.last_used(), birth + SECOND * 2);
    assert_eq!(snapshot.last_paged(), birth + SECOND * 2);
    // Exports read on; summaries do not.
    sleep(SECOND).await;
    snapshot.rows_known(&all(), 0, 1);
    assert_eq!(snapshot.last_paged(), birth + SECOND * 3);
    sleep(SECOND).await;
    snapshot.for_each_row(&all(), |_, _| {});
    assert_eq!(snapshot.last_used(), birth + SECOND * 4);
    assert_eq!(snapshot.last_paged(), birth + SECOND * 3);
    assert_eq!((snapshot.take_view(), snapshot.is_ended()), (false, false));
    snapshot.note_view();
    assert_eq!((snapshot.take_view(), snapshot.take_view()), (true, false));
    snapshot.end_tokens();
    assert!(snapshot.is_ended());
}

#[tokio::test(start_paused = true)]
async fn it_stands_by_the_age_of_its_first_rows_or_of_all() {
    let snapshot = snapshot();
    let birth = snapshot.birth();
    let fresh = LIFETIMES.fresh_with(snapshot.draw);
    let new = snapshot.look(true, birth);
    assert!(new.is_new() && !new.growing && !new.purged);
    assert_eq!(
        (new.standing(), new.ttl_s(), new.age()),
        (Standing::Expired, 0, Duration::ZERO)
    );
    snapshot.lock().ages = Some(Ages {
        head: birth + SECOND * 10,
        whole: birth,
    });
    let look = |whole, at| {
        let now = birth + at;
        assert!(!snapshot.look(whole, now).is_new());
        (snapshot.standing(whole, now), snapshot.age(whole, now))
    };
    assert_eq!(
        look(true, fresh - SECOND),
        (Standing::Fresh, fresh - SECOND)
    );
    assert_eq!(look(true, fresh), (Standing::Stale, fresh));
    assert_eq!(look(false, fresh), (Standing::Fresh, fresh - SECOND * 10));
    assert_eq!(snapshot.ttl_s(false, birth + fresh), 10);
    assert_eq!(snapshot.ttl_s(true, birth + fresh + SECOND * 7), -8);
    assert_eq!(look(true, fresh + SECOND * 100).0, Standing::OnError);
    assert_eq!(look(true, fresh + SECOND * 200).0, Standing::Expired);
    // A soft purge makes stale what is fresh, and changes nothing else.
    snapshot.make_stale();
    assert_eq!(
        look(true, fresh - SECOND),
        (Standing::Stale, fresh - SECOND)
    );
    assert_eq!(snapshot.ttl_s(true, birth + SECOND), -1);
    assert_eq!(snapshot.ttl_s(true, birth + fresh + SECOND * 7), -8);
    assert_eq!(look(true, fresh + SECOND * 100).0, Standing::OnError);
    assert!(snapshot.look(true, birth).purged);
}

#[tokio::test(start_paused = true)]
async fn it_grows_while_a_walk_is_at_work_and_rows_may_come() {
    let snapshot = snapshot();
    assert!(!snapshot.is_growing() && !snapshot.is_complete());
    snapshot.lock().growers = 1;
    assert!(snapshot.is_growing() && snapshot.look(true, snapshot.birth()).growing);
    assert_eq!(snapshot.end().as_str(), "growing");
    for (stage, is_complete, word) in [
        (End::Complete, true, "complete"),
        (End::Broken, false, "broken"),
        (End::Cut("x"), false, "cut"),
    ] {
        end(&snapshot, stage);
        assert!(!snapshot.is_growing());
        assert_eq!(stage.as_str(), word);
        assert_eq!(
            (snapshot.is_complete(), snapshot.end()),
            (is_complete, stage)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_hot_is_due_shortly_before_it_grows_stale() {
    let snapshot = snapshot();
    let late = LIFETIMES.fresh_with(snapshot.draw) - SECOND;
    let ask = |at| snapshot.is_due(snapshot.birth() + at);
    // Without an age nothing is due, though it is asked for.
    for _ in 0..HOT_HITS {
        assert!(!ask(late));
    }
    assert!(!ask(late));
    let birth = snapshot.birth();
    snapshot.lock().ages = Some(Ages {
        head: birth,
        whole: birth,
    });
    assert!(ask(late) && !ask(SECOND));
    snapshot.lock().hits = 0;
    for _ in 0..HOT_HITS {
        assert!(!ask(late));
    }
    assert!(ask(late));
}

#[tokio::test(start_paused = true)]
async fn its_bytes_are_charged_until_nobody_finds_it() {
    let total = Arc::default();
    let snapshot = charged_to(&total);
    let charged = || total.load(Ordering::Relaxed);
    let empty = charged();
    assert!(empty > 0);
    grow(&snapshot, 100);
    snapshot.announce();
    let rows = snapshot.lock().rows.bytes();
    assert_eq!((charged(), snapshot.size().2), (empty + rows, empty + rows));
    // Views cost, the more the more rows they show.
    assert!(cut(&snapshot, &of("c0"), 0, 1).is_ok());
    snapshot.announce();
    let with_view = charged();
    assert!(with_view >= empty + rows + 34 * 4, "34 rows are c0's");
    assert_eq!(snapshot.size(), (100, 4, with_view));
    // Rows that no reader has seen are dropped.
    snapshot.lock().truncate(10);
    snapshot.announce();
    assert!(charged() < with_view);
    assert_eq!(snapshot.known(&of("c0")).0, 4);
    let other = charged_to(&total);
    let both = charged();
    snapshot.uncharge();
    assert_eq!(charged(), empty);
    grow(&snapshot, 100);
    snapshot.announce();
    assert_eq!(
        charged(),
        empty,
        "a forgotten snapshot that is still held grows at no charge"
    );
    drop(snapshot);
    assert_eq!(charged(), empty);
    assert!(both > empty);
    drop(other);
    assert_eq!(charged(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_view_that_was_not_used_for_longest_is_forgotten() {
    let snapshot = snapshot();
    grow(&snapshot, 3);
    let view = |n: usize| of(&format!("c{n}"));
    for n in 0..VIEWS_MAX {
        snapshot.known(&view(n));
    }
    // A known view evicts no other.
    snapshot.known(&view(0));
    let is_kept = |n| snapshot.lock().views.contains_key(&view(n));
    assert!((0..VIEWS_MAX).all(is_kept));
    snapshot.known(&view(VIEWS_MAX));
    assert_eq!(snapshot.lock().views.len(), VIEWS_MAX);
    assert!(is_kept(0) && !is_kept(1) && (2..=VIEWS_MAX).all(is_kept));
}

#[test]
fn a_walk_that_ends_without_a_word_is_noticed_and_one_that_leaves_is_not_a_failure() {
    let snapshot = snapshot();
    let first = Grower::begin_first(&snapshot).unwrap();
    assert!(Grower::begin_first(&snapshot).is_none() && snapshot.is_growing());
    first.leave(&mut snapshot.lock());
    assert!(!snapshot.is_growing() && snapshot.failures() == 0);
    drop(Grower::begin_first(&snapshot).unwrap());
    let told = snapshot.failure_since(0);
    assert!(matches!(told, Some(WalkFailure::Internal)) && !snapshot.is_growing());
}
