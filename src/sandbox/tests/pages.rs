//! Tests of pages of the simulated wiv.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_same_id_gives_the_next_page_of_the_first_size() {
    let kit = kit(small());
    let id = kit.open(200).await;
    let second = kit.next(&id).await.unwrap();
    assert_eq!(second.rows(), kit.all()[200..400]);
    assert_eq!(second.cursor().as_deref(), Some(&*id));
    // Another filter and another customer change nothing either.
    let body = format!(
        r#"{{"max_returned_items":3,"date_range":{{"start":"2020-01-01","end":"2020-01-02"}},"start_page_key":{{"scroll_id":"{id}"}}}}"#
    );
    assert_eq!(
        kit.search("?customer_id=org_3", &body)
            .await
            .unwrap()
            .rows(),
        kit.all()[400..]
    );
    let last = kit.next(&id).await.unwrap();
    assert_eq!((last.rows().len(), last.cursor()), (0, None));
    let scrolls = kit.sandbox.counts().scrolls;
    assert_eq!(
        scrolls,
        SimScrollCounts {
            open: 0,
            peak_open: 1,
            opened: 1,
            ended: 1,
            expired: 0
        }
    );
    assert_eq!(kit.sandbox.counts().requests(SimOperation::Continue), 3);
}

#[tokio::test(start_paused = true)]
async fn expired_and_unknown_ids() {
    for (expired_answer, status, text) in [
        (
            ExpiredAnswer::NotFound,
            404,
            r#"{"error":"Scroll not found"}"#,
        ),
        (
            ExpiredAnswer::InternalError,
            500,
            r#"{"error":"Internal server error"}"#,
        ),
    ] {
        let kit = kit(Options {
            expired_answer,
            ..small()
        });
        let id = kit.open(50).await;
        crate::clock::sleep(Duration::from_secs(299)).await;
        assert_eq!(kit.next(&id).await.unwrap().status, 200);
        crate::clock::sleep(Duration::from_secs(300)).await;
        for id in [&*id, "unknown"] {
            let reply = kit.next(id).await.unwrap();
            assert_eq!((reply.status, reply.text()), (status, text));
        }
        assert_eq!(kit.sandbox.counts().scrolls.expired, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn past_the_limit_every_new_search_fails() {
    let kit = kit(Options {
        open_scrolls_max: 2,
        ..small()
    });
    let first = kit.open(300).await;
    let _second = kit.open(300).await;
    let reply = kit.search("?customer_id=org_20", "{}").await.unwrap();
    assert_eq!(
        (reply.status, reply.text()),
        (500, r#"{"error":"Internal server error"}"#)
    );
    for _ in 0..2 {
        assert_eq!(kit.next(&first).await.unwrap().status, 200);
    }
    assert_eq!(kit.search("", "{}").await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn new_cases_are_not_seen_by_an_open_scroll() {
    let kit = kit(small());
    let before = kit.all();
    let id = kit.open(400).await;
    assert_eq!(kit.sandbox.insert(7, None, Some(date(2024, 1, 1))), Some(7));
    assert_eq!(kit.next(&id).await.unwrap().rows(), before[400..]);
    assert_eq!(kit.search("", "{}").await.unwrap().json()["total"], 607);
    assert_eq!(kit.all().len(), 607);
}

#[tokio::test(start_paused = true)]
async fn two_continuations_at_once_mix_documents_up() {
    let kit = kit(Options {
        latency: Duration::from_millis(50),
        ..small()
    });
    let id = kit.open(100).await;
    let (left, right) = tokio::join!(kit.next(&id), kit.next(&id));
    let (left, right) = (left.unwrap().rows(), right.unwrap().rows());
    let all = kit.all();
    assert_ne!(left, all[100..200]);
    assert_ne!(right, all[200..300]);
    assert_eq!(kit.sandbox.counts().scroll_overlaps, 1);
    // One after the other is not an overlap.
    kit.next(&id).await.unwrap();
    kit.next(&id).await.unwrap();
    assert_eq!(kit.sandbox.counts().scroll_overlaps, 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_gives_up_has_moved_the_scroll() {
    let kit = kit(Options {
        latency: Duration::from_secs(20),
        ..small()
    });
    let id = kit.open(100).await;
    let gave_up = crate::clock::timeout(Duration::from_secs(5), kit.next(&id)).await;
    assert!(gave_up.is_err());
    crate::clock::sleep(Duration::from_secs(30)).await;
    assert_eq!(kit.next(&id).await.unwrap().rows(), kit.all()[200..300]);
    assert_eq!(kit.sandbox.counts().scroll_overlaps, 0);
    assert_eq!(kit.sandbox.counts().of(SimOperation::Continue).answered, 1);
    // If the id is sent again while the vendor still works on the lost answer, both are mixed up.
    let gave_up = crate::clock::timeout(Duration::from_secs(5), kit.next(&id)).await;
    assert!(gave_up.is_err());
    kit.next(&id).await.unwrap();
    assert_eq!(kit.sandbox.counts().scroll_overlaps, 1);
}

#[tokio::test(start_paused = true)]
async fn a_scroll_is_free_once_its_answer_is_read() {
    // No request waits here: an answer that was read can never count as an overlap.
    let kit = kit(small());
    let id = kit.open(5).await;
    let mut sender = kit.connect().await;
    for _ in 0..100 {
        let request = wiv_request(Method::POST, "/v2/cases/msp/search", &continuation(&id));
        let response = sender.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(kit.sandbox.counts().scroll_overlaps, 0);
}

#[tokio::test(start_paused = true)]
async fn a_scroll_is_taken_until_the_last_byte() {
    let kit = kit(small());
    let id = kit.open(100).await;
    let stall = FaultKind::StallBody { ms: Some(1_000) };
    kit.sandbox
        .fault(SimFault::on(SimOperation::Continue, stall).times(1));
    let (_, ()) = tokio::join!(kit.next(&id), async {
        crate::clock::sleep(Duration::from_millis(500)).await;
        kit.next(&id).await.unwrap();
    });
    assert_eq!(kit.sandbox.counts().scroll_overlaps, 1);
    kit.next(&id).await.unwrap();
    assert_eq!(kit.sandbox.counts().scroll_overlaps, 1);
}

/// Returns statuses and bodies of a run with random faults.
async fn run(seed: u64) -> Vec<Option<(u16, Bytes)>> {
    let kit = kit(Options { seed, ..small() });
    for kind in [
        FaultKind::DropAfter,
        FaultKind::MalformedJson,
        FaultKind::DuplicateRow,
    ] {
        kit.sandbox.fault(SimFault::on_any(kind).probability(0.3));
    }
    let mut answers = Vec::new();
    for _ in 0..10 {
        let search = kit.search("", r#"{"max_returned_items":20}"#).await;
        let cursor = search
            .as_ref()
            .and_then(|reply| serde_json::from_slice(&reply.body).ok())
            .and_then(|page: Value| Some(page["next_page_key"]["scroll_id"].as_str()?.to_owned()));
        answers.push(search);
        if let Some(id) = cursor {
            answers.push(kit.next(&id).await);
        }
        answers.push(kit.bill().await);
    }
    let answer = |reply: SimReply| (reply.status, reply.body);
    answers.into_iter().map(|reply| reply.map(answer)).collect()
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_sequence_of_answers() {
    let first = run(5).await;
    assert!(first.iter().any(Option::is_none) && first.iter().any(Option::is_some));
    assert_eq!(first, run(5).await);
    assert_ne!(first, run(6).await);
}
