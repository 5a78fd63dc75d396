//! Many callers, one walk.

use std::sync::Arc;

use msp_gateway::clock::Instant;

use crate::kit::{continued, first};
use crate::process::{PATIENCE, World, everyone, page_of};

/// Reads a search to its end; page sizes as `size` says.
async fn read_all(world: &World, name: &str, size: impl Fn(usize) -> usize) -> Vec<String> {
    let mut rows = Vec::new();
    let mut body = first(size(0), "");
    for at in 1.. {
        let page = world.page(name, &body).await;
        let (more, token) = page.unwrap_or_else(|answer| panic!("{}", answer.text()));
        assert!(more.len() <= size(at - 1));
        rows.extend(more);
        match token {
            Some(token) => body = continued(&token, Some(size(at))),
            None => break,
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_callers_at_any_page_size_read_the_vendors_list_in_one_walk() {
    const CASES: usize = 3_000;
    let names: Vec<String> = (0..50).map(|at| format!("caller-{at}")).collect();
    let stanzas: String = names.iter().map(|name| everyone(name)).collect();
    let world = Arc::new(World::start(CASES, &stanzas, &[]));
    let expected = world.vendors.cases("").await;
    assert_eq!(expected.len(), CASES);
    let mut tasks = tokio::task::JoinSet::new();
    for (at, name) in names.iter().enumerate() {
        let (world, name) = (world.clone(), name.clone());
        let size = [1, 2, 7, 50, 99, 100, 101, 249, 250, 251, 333, 499, 500][at % 13];
        tasks.spawn(async move {
            // Small pages to the end would be thousands: they are mixed with others.
            let mixed = move |page: usize| match size < 50 && page % 40 > 15 {
                true => 211,
                false => size,
            };
            read_all(&world, &name, mixed).await
        });
    }
    for rows in tasks.join_all().await {
        assert!(rows == expected, "{} rows", rows.len());
    }
    let counts = world.vendors.counts().await;
    assert_eq!(world.vendors.asked("search").await, 1, "{counts}");
    let pages = CASES.div_ceil(500) as u64;
    let calls = 1 + world.vendors.asked("continue").await;
    assert!(calls <= pages + 1, "{calls} for {pages}: {counts}");
    assert_eq!(counts["scroll_overlaps"], 0);
    assert_eq!(world.metric("walks_total{outcome=\"complete\"}").await, 1.0);
    world.hold_to_openapi("caller-0").await;
    world.hold().await;
}

/// What became of a reader.
enum Reader {
    Reading {
        name: &'static str,
        size: usize,
        rows: Vec<String>,
        token: Option<String>,
    },
    Ended(Vec<String>),
    Told410,
}

/// Two callers read one search by turns; `between` happens after every page.
async fn two_by_turns(world: &World, between: impl AsyncFn()) -> Vec<Option<Vec<String>>> {
    let reader = |name, size| Reader::Reading {
        name,
        size,
        rows: Vec::new(),
        token: None,
    };
    let mut readers = [reader("alice", 40), reader("bob", 70)];
    let mut begun = [false, false];
    while readers.iter().any(|r| matches!(r, Reader::Reading { .. })) {
        for (at, reader) in readers.iter_mut().enumerate() {
            let Reader::Reading {
                name,
                size,
                rows,
                token,
            } = reader
            else {
                continue;
            };
            let body = match token {
                Some(token) => continued(token, None),
                None => first(*size, ""),
            };
            assert!(token.is_some() || !std::mem::replace(&mut begun[at], true));
            match world.page(name, &body).await {
                Ok((more, next)) => {
                    rows.extend(more);
                    *token = next;
                    if token.is_none() {
                        *reader = Reader::Ended(std::mem::take(rows));
                    }
                }
                Err(answer) => {
                    let gone = (410, "page_token_expired".to_owned());
                    assert_eq!(answer.outcome(), gone, "{}", answer.text());
                    *reader = Reader::Told410;
                }
            }
            between().await;
        }
    }
    let lists = readers.into_iter().map(|reader| match reader {
        Reader::Ended(rows) => Some(rows),
        Reader::Reading { .. } | Reader::Told410 => None,
    });
    lists.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_callers_read_one_list_or_are_told_while_cases_come_and_scrolls_expire() {
    let callers = everyone("alice") + &everyone("bob");
    let small_pages = [("MSP_GATEWAY__PAGINATION__VENDOR_PAGE_SIZE", "50")];
    let world = World::start(600, &callers, &small_pages);
    // Scrolls expire, but the cases stay: nobody notices anything.
    let before = world.vendors.cases("").await;
    let lists = two_by_turns(&world, async || {
        world.vendors.tell("expire", "").await;
    })
    .await;
    assert!(lists.iter().all(|rows| rows.as_ref() == Some(&before)));
    let rewalked = world.metric("walks_total{outcome=\"rewalked\"}").await;
    assert!(rewalked >= 3.0, "{rewalked}");

    // Cases are added, too: a list is one that the vendor held at some moment, or its reader gets
    // an error.
    let url = format!("{}/admin/purge", world.admin);
    let json = [("content-type", "application/json")];
    let purge = "{\"all\":true,\"soft\":false}";
    let purged = world.web.send("POST", &url, &json, purge).await;
    assert_eq!(purged.status, 200, "{}", purged.text());
    let moments = tokio::sync::Mutex::new(vec![before]);
    let lists = two_by_turns(&world, async || {
        world.vendors.tell("insert", "{\"count\":1}").await;
        world.vendors.tell("expire", "").await;
        let now = world.vendors.cases("").await;
        moments.lock().await.push(now);
    })
    .await;
    let moments = moments.into_inner();
    for rows in lists.iter().flatten() {
        assert!(moments.contains(rows), "{} rows", rows.len());
    }
    // Who was told and asks again gets what there is now.
    assert!(lists.iter().any(Option::is_none), "nothing went wrong");
    assert!(read_all(&world, "alice", |_| 500).await == *moments.last().unwrap());
    world.hold_to_openapi("alice").await;
    world.hold().await;
}

/// Pages that the gateway keeps as files of memory, by its descriptors.
fn pages_in_files(world: &World) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", world.gateway.id())).unwrap();
    descriptors
        .filter_map(|each| std::fs::read_link(each.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("/memfd:body"))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_page_has_the_same_bytes_from_its_first_reading_on_and_leaves_no_file() {
    let world = World::start(1_000, &everyone("alice"), &[]);
    let expected = world.vendors.cases("").await;
    let mut bodies = Vec::new();
    for reading in 0..5 {
        let answer = world.search("alice", "", &first(500, "")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(page_of(&answer).0 == expected[..500]);
        bodies.push(answer.body);
        // Kept from the second on.
        assert_eq!(pages_in_files(&world), usize::from(reading > 0));
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    let url = format!("{}/admin/purge", world.admin);
    let json = [("content-type", "application/json")];
    let purged = world
        .web
        .send("POST", &url, &json, "{\"all\":true,\"soft\":false}")
        .await;
    assert_eq!(purged.status, 200, "{}", purged.text());
    // Evicted snapshots are freed while others come and go.
    let deadline = Instant::now() + PATIENCE;
    for size in (1..=50).cycle() {
        if pages_in_files(&world) == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "the page's file is still there");
        world.search("alice", "", &first(size, "")).await;
    }
    world.hold().await;
}
