//! Walks read from any source of pages: here one that counts its pages, as no vendor of the gateway
//! does.

use std::sync::Arc;

use msp_gateway::access::ForcedRefreshes;
use msp_gateway::admission::{Payer, Spend};
use msp_gateway::cache::{CacheKey, Directives, Lifetimes, Subject};
use msp_gateway::clock::{Clock, Duration};
use msp_gateway::domain::{AccountId, Audience, Operation, PageSize, SearchQuery, Vendor};
use msp_gateway::metrics::Metrics;
use msp_gateway::snapshot::{
    End, Open, PageAsk, PageFailure, SnapshotOptions, Snapshots, View, WalkFailure, Want,
};
use msp_gateway::store::Store;
use msp_gateway::upstream::{
    Cursor, EnvelopeMember, Fault, RawRows, Source, SourceCall, SourcePage, UpstreamError,
    WalkedVendor,
};
use parking_lot::Mutex;

/// Rows of the list.
const ROWS: usize = 23;
/// Rows of a page of the vendor.
const PAGE_ROWS: usize = 5;

/// How far a caller reads, and why not further.
type Read = (Vec<String>, Result<(), PageFailure>);

/// A list in pages that are asked for by number.
struct Numbered {
    /// The numbers that were asked for.
    asked: Mutex<Vec<usize>>,
    /// What each call does beside counting; given the number of the call.
    wrong: fn(usize) -> Option<Wrong>,
}

enum Wrong {
    /// The call fails, and nobody knows whether the vendor saw it.
    Reset,
    /// The page before comes again.
    Repeats,
}

fn row(number: usize) -> String {
    format!(
        r#"{{"case_id":"c{number}","customer_id":"org_{}"}}"#,
        number % 3
    )
}

impl Numbered {
    fn page(&self, number: usize) -> SourceCall<'_> {
        let mut asked = self.asked.lock();
        let wrong = (self.wrong)(asked.len());
        asked.push(number);
        let first = match wrong {
            Some(Wrong::Reset) => {
                let error = UpstreamError::new(Operation::Invoices, Fault::Reset, "made up");
                return Box::pin(std::future::ready(Err(error)));
            }
            Some(Wrong::Repeats) => (number - 1) * PAGE_ROWS,
            None => number * PAGE_ROWS,
        };
        let rows: Vec<_> = (first..ROWS.min(first + PAGE_ROWS)).map(row).collect();
        let rows: Vec<_> = rows.iter().map(String::as_str).collect();
        let next = (first + PAGE_ROWS < ROWS).then(|| Cursor::new(number + 1));
        Box::pin(std::future::ready(Ok(SourcePage {
            rows: RawRows::collect(&rows, Vec::new()).unwrap(),
            next,
            envelope: vec![EnvelopeMember::Data, EnvelopeMember::NextPageKey],
        })))
    }
}

impl Source for Numbered {
    fn first<'a>(&'a self, _: &'a SearchQuery, _: PageSize, _: Spend) -> SourceCall<'a> {
        self.page(0)
    }

    fn next<'a>(
        &'a self,
        cursor: &'a Cursor,
        _: &'a SearchQuery,
        _: PageSize,
        _: Spend,
    ) -> SourceCall<'a> {
        self.page(*cursor.read::<usize>().expect("its own cursor"))
    }
}

/// Reads the list to its end in pages of four rows. Returns the rows, and the numbers asked for.
async fn read(wrong: fn(usize) -> Option<Wrong>) -> (Read, Vec<usize>, End) {
    let source = Arc::new(Numbered {
        asked: Mutex::default(),
        wrong,
    });
    let account = AccountId::parse("made-up").unwrap();
    let walked = WalkedVendor {
        source: source.clone(),
        account: account.clone(),
        first: Operation::Billing,
        next: Operation::Invoices,
        gates: None,
    };
    let options = SnapshotOptions {
        vendor_page_size: PageSize::new(PAGE_ROWS as u64).unwrap(),
        ..SnapshotOptions::default()
    };
    let (clock, metrics) = (Clock::system(), Metrics::new().unwrap());
    let snapshots = Snapshots::new(walked, options, Store::none(), clock.clone(), metrics);
    let query = Arc::new(SearchQuery::default());
    let deadline = clock.now() + Duration::from_secs(60);
    let payer = Payer::caller("a".into(), None);
    let minute = Duration::from_secs(60);
    let open = Open {
        key: &CacheKey::new(account, Subject::Search(query.clone())),
        query: &query,
        lifetimes: &|| Lifetimes {
            fresh: minute,
            stale: minute,
            on_error: minute,
        },
        whole: false,
        directives: Directives::default(),
        forced: &ForcedRefreshes::per_minute(0),
        refresh_ahead: false,
        deadline,
        payer: &payer,
    };
    let view = View::new(None, Audience::All);
    let mut rows = Vec::new();
    let mut ask = PageAsk {
        view: &view,
        offset: 0,
        size: 4,
        marks: None,
        want: Want::Page,
        deadline,
        payer: &payer,
    };
    let opened = snapshots.open(&open).await.unwrap();
    let ended = loop {
        let page = match snapshots.page(&opened.snapshot, &ask).await {
            Ok((page, _)) => page,
            Err(why) => break Err(why),
        };
        let text = page
            .pieces
            .iter()
            .map(|piece| String::from_utf8(piece.to_vec()).unwrap());
        let text = text.collect::<Vec<_>>().join(",");
        let list: Vec<Box<serde_json::value::RawValue>> =
            serde_json::from_str(&format!("[{text}]")).unwrap();
        rows.extend(list.iter().map(|row| row.get().to_owned()));
        match page.next {
            None => break Ok(()),
            Some((offset, marks)) => (ask.offset, ask.marks) = (offset, Some(marks)),
        }
    };
    let asked = source.asked.lock().clone();
    ((rows, ended), asked, opened.snapshot.end())
}

#[tokio::test(start_paused = true)]
async fn a_source_that_counts_its_pages_is_walked_once_and_in_order() {
    let ((rows, ended), asked, end) = read(|_| None).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(rows, (0..ROWS).map(row).collect::<Vec<_>>());
    assert_eq!(asked, [0, 1, 2, 3, 4]);
    assert_eq!(end, End::Complete);
}

#[tokio::test(start_paused = true)]
async fn a_lost_place_begins_the_list_anew_and_is_not_asked_for_again() {
    let ((rows, ended), asked, _) = read(|call| (call == 3).then_some(Wrong::Reset)).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(rows, (0..ROWS).map(row).collect::<Vec<_>>());
    assert_eq!(asked, [0, 1, 2, 3, 0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_content_is_the_sources_own() {
    let ((rows, ended), _, _) = read(|call| (call % 3 == 2).then_some(Wrong::Repeats)).await;
    assert!(rows.len() < ROWS);
    let Err(PageFailure::Walk(WalkFailure::Upstream(error))) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(error.fault, Fault::Malformed);
    // Not blamed on the vendor whose lists are walked today.
    assert_eq!(
        (error.vendor, error.operation),
        (Vendor::Nable, Operation::Invoices)
    );
}
