//! Tests that every request is counted, timed and logged once, however it ends.

use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::kit::*;
use msp_gateway::clock::{Duration, Instant};
use msp_gateway::exchange::{AnswerBody, Answered, Boxed};
use msp_gateway::problem::Problem;
use msp_gateway::reads::export::ExportPiece;

fn counted(front: &Front, labels: &str) -> bool {
    let text = front.metrics.render().unwrap();
    text.contains(&format!("msp_gateway_requests_total{{{labels}}} 1\n"))
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_counted_and_logged() {
    let front = Front::new();
    let reply = front.ask(get("/msp/customers?fields=secret", KEY)).await;
    assert!(counted(
        &front,
        "caller=\"all\",route=\"customers\",status=\"200\""
    ));
    let line = front.last_line();
    assert_eq!(line["request_id"], reply.header("x-request-id"));
    assert_eq!(line["path"], "/msp/customers");
    assert_eq!(line["caller"], "all");
    assert_eq!(line["bytes"], 2);
    assert_eq!(line["whole"], true);
    assert_eq!(front.log.lines().len(), 1);
    assert_eq!(front.in_flight.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_anonymous_and_unknown_paths_are_other() {
    let front = Front::new();
    front.ask(get("/msp/customers", "")).await;
    assert!(counted(
        &front,
        "caller=\"anonymous\",route=\"customers\",status=\"401\""
    ));
    front.ask(get("/../../etc/passwd", KEY)).await;
    assert!(counted(
        &front,
        "caller=\"anonymous\",route=\"other\",status=\"404\""
    ));
    assert_eq!(front.last_line()["code"], "not_found");
}

/// Over HTTP/1.1, a peer that has only ended its side cannot be told from one that is gone.
#[tokio::test(start_paused = true)]
async fn a_whole_request_is_answered_though_its_sender_has_ended_its_side() {
    const SLOW: Duration = Duration::from_secs(5);
    let slow = |_| -> Boxed<Result<Answered, Problem>> {
        Box::pin(async {
            msp_gateway::clock::sleep(SLOW).await;
            Ok(ok("{}"))
        })
    };
    let requests = [
        ("GET /msp/customers HTTP/1.0\r\n", ""),
        ("GET /msp/customers HTTP/1.1\r\nhost: x\r\n", ""),
        ("HEAD /msp/customers HTTP/1.1\r\nhost: x\r\n", ""),
        (
            "POST /v2/cases/msp/search HTTP/1.0\r\ncontent-length: 2\r\n",
            "{}",
        ),
        (
            "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n",
            "{}",
        ),
    ];
    for (head, body) in requests {
        for (key, status) in [(KEY, 200), ("", 401)] {
            let fronts = [Front::new(), Front::with(slow)];
            for front in fronts {
                let mut peer = front.connect();
                peer.head_only = head.starts_with("HEAD");
                peer.send(format!("{head}{key}\r\n{body}")).await;
                peer.io.shutdown().await.unwrap();
                assert_eq!(peer.reply().await.unwrap().status, status, "{head}");
                assert_eq!(peer.rest().await, "");
                peer.task.await.unwrap();
                assert_eq!(front.last_line()["status"], status);
                assert_eq!(front.in_flight.now(), 0);
            }
        }
    }
    // A request with an incomplete body is refused at once.
    let front = Front::new();
    let mut peer = front.connect();
    peer.send(format!(
        "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{KEY}content-length: 3\r\n\r\n{{}}"
    ))
    .await;
    peer.io.shutdown().await.unwrap();
    assert_eq!(peer.reply().await.unwrap().status, 400);
    peer.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_is_gone_holds_its_place_until_its_deadline_at_most() {
    let front = Front::with(|_| Box::pin(std::future::pending()));
    let mut peer = front.connect();
    peer.send(get("/msp/customers", KEY)).await;
    while front.seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    drop(peer.peer);
    peer.task.await.unwrap();
    assert!(start.elapsed() < REQUEST_TIMEOUT + Duration::from_secs(1));
    assert!(counted(
        &front,
        "caller=\"all\",route=\"customers\",status=\"504\""
    ));
    assert_eq!(front.in_flight.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_request() {
    let front = Front::with(|call| {
        assert!(call.head.uri.query() != Some("at=once"), "at once");
        Box::pin(async move {
            tokio::task::yield_now().await;
            assert!(call.head.uri.query() != Some("at=later"), "later");
            Ok(ok("{}"))
        })
    });
    let mut peer = front.connect();
    for (at, panics) in [("once", 1), ("later", 2)] {
        peer.send(get(&format!("/msp/customers?at={at}"), KEY))
            .await;
        let reply = peer.reply().await.unwrap();
        assert_eq!(reply.problem(), (500, "internal_error".into()));
        assert_eq!(reply.json()["error"], "Internal server error");
        assert_eq!(front.metrics.panics.get(), panics);
        // The same connection goes on.
        peer.send(get("/msp/customers", KEY)).await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
    }
    assert_eq!(front.in_flight.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_overdue_answer_is_504() {
    let front = Front::with(|_| Box::pin(std::future::pending()));
    let start = Instant::now();
    let reply = front.ask(get("/msp/customers", KEY)).await;
    assert_eq!(reply.problem(), (504, "vendor_timeout".into()));
    assert_eq!(reply.header("retry-after"), "2");
    assert!(start.elapsed() < REQUEST_TIMEOUT + Duration::from_secs(1));
    assert!(counted(
        &front,
        "caller=\"all\",route=\"customers\",status=\"504\""
    ));
}

#[tokio::test(start_paused = true)]
async fn log_lines_stand_hostile_requests() {
    let front = Front::new();
    let long = "%0d%0a%1b".repeat(300);
    let mut hostile = vec![
        get("/\u{2028}", KEY).into_bytes(),
        get(&format!("/{long}"), KEY).into_bytes(),
        format!("X{} / HTTP/1.1\r\nhost: x\r\n\r\n", "Y".repeat(500)).into_bytes(),
        get("/\"}{\"status\":200", KEY).into_bytes(),
        get("/a", "x-request-id: mine\r\nuser-agent: \u{1b}[31m\r\n").into_bytes(),
    ];
    let mut raw = b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    hostile.push(std::mem::take(&mut raw));
    for request in hostile {
        let mut peer = front.connect();
        peer.send(&request).await;
        peer.reply().await;
    }
    let lines = front.log.lines();
    assert!(lines.len() >= 4);
    for line in &lines {
        assert!(line.len() < 1000 && line.ends_with('\n'));
        assert!(!line.trim_end().contains(|c: char| c.is_control()));
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_ne!(line["status"], 200);
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_requests_make_no_new_series() {
    let front = Front::new();
    let series = |front: &Front| front.metrics.render().unwrap().lines().count();
    front.ask(get("/nope", "")).await;
    front.ask("ODD /nope HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let before = series(&front);
    let mut peer = front.connect();
    for n in 0..1000 {
        peer.send(format!(
            "M{n} /p{n}?q{n} HTTP/1.1\r\nhost: h{n}\r\nx-api-key: k{n}\r\n\r\n"
        ))
        .await;
        assert_eq!(peer.reply().await.unwrap().status, 404);
    }
    assert_eq!(series(&front), before);
}

fn exporting(pieces: Vec<ExportPiece>) -> Front {
    let pieces = parking_lot::Mutex::new(Some(pieces));
    Front::with(move |_| {
        let pieces = pieces.lock().take().unwrap();
        let (to, from) = mpsc::channel(pieces.len());
        for piece in pieces {
            to.try_send(piece).unwrap();
        }
        Box::pin(async move {
            let mut answer = http::Response::new(AnswerBody::rows(from, true, None));
            answer
                .headers_mut()
                .insert("trailer", http::HeaderValue::from_static("x-export-rows"));
            Ok(answer)
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_whole_export_ends_with_its_trailer() {
    let front = exporting(vec![
        ExportPiece::Lines("{}\n".into()),
        ExportPiece::End { rows: 1 },
    ]);
    let mut peer = front.connect();
    peer.send(get(
        "/v1/cases/export",
        &format!("{KEY}te: trailers\r\nconnection: te, close\r\n"),
    ))
    .await;
    let text = peer.rest().await;
    assert!(text.contains("transfer-encoding: chunked"), "{text}");
    assert!(
        text.ends_with("3\r\n{}\n\r\n0\r\nx-export-rows: 1\r\n\r\n"),
        "{text}"
    );
    assert_eq!(front.last_line()["whole"], true);
}

#[tokio::test(start_paused = true)]
async fn a_cut_export_never_ends_properly() {
    let front = exporting(vec![ExportPiece::Lines("{}\n".into())]);
    let mut peer = front.connect();
    peer.send(get("/v1/cases/export", KEY)).await;
    let text = peer.rest().await;
    assert!(text.ends_with("3\r\n{}\n\r\n"), "{text}");
    let line = front.last_line();
    assert_eq!(line["whole"], false);
    assert_eq!(line["bytes"], 3);
}

#[tokio::test(start_paused = true)]
async fn the_callers_trace_is_continued() {
    let front = Front::with(|call| {
        let trace = call.asker.payer.traceparent(None);
        Box::pin(async move {
            let mut answer = ok("{}");
            if let Some(trace) = trace {
                answer.headers_mut().insert("x-trace", trace);
            }
            Ok(answer)
        })
    });
    let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let reply = front
        .ask(get(
            "/msp/customers",
            &format!("{KEY}traceparent: {sent}\r\n"),
        ))
        .await;
    assert!(
        reply
            .header("x-trace")
            .starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    );
    assert_ne!(reply.header("x-trace"), sent);
}

#[tokio::test(start_paused = true)]
async fn vendor_calls_are_put_on_their_callers_account() {
    let front = Front::with(|call| {
        call.asker.payer.charge();
        call.asker.payer.charge();
        Box::pin(async { Ok(ok("{}")) })
    });
    front.ask(get("/msp/customers", KEY)).await;
    assert_eq!(front.last_line()["vendor_calls"], 2);
    let text = front.metrics.render().unwrap();
    assert!(text.contains("msp_gateway_caller_vendor_calls_total{caller=\"all\"} 2\n"));
}
