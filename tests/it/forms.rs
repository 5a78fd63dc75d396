//! What callers' tools send: lists, conditions, codings, marks, slips; each is answered as its
//! document says.

use crate::whole::{ALL, SETTINGS, Whole, caller, get, post, search, secrets, world};

fn gateway(more: &str) -> Whole {
    let text = format!("{more}{SETTINGS}{}", caller("all", ""));
    Whole::with(&text, &secrets(), world())
}

#[tokio::test(start_paused = true)]
async fn lists_of_fields_are_one_question_however_they_are_written() {
    let whole = gateway("");
    let right = whole.ask(get("/msp/customers?fields=id,name", ALL)).await;
    assert_eq!(right.status, 200);
    for query in [
        "fields=id&fields=name",
        "fields[]=id&fields[]=name",
        "fields%5B%5D=name&fields%5B%5D=id",
        "fields[0]=id&fields[1]=name",
    ] {
        let reply = whole
            .ask(get(&format!("/msp/customers?{query}"), ALL))
            .await;
        assert_eq!((reply.status, &reply.body), (200, &right.body), "{query}");
    }
    for query in ["fields[]=nope", "fields=id&fields=nope"] {
        let reply = whole
            .ask(get(&format!("/msp/customers?{query}"), ALL))
            .await;
        assert_eq!(
            (reply.status, &*reply.code()),
            (400, "invalid_fields"),
            "{query}"
        );
    }
    assert_eq!(whole.vendor_calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn conditions_are_judged_by_the_answer_of_now() {
    let whole = gateway("");
    let query = |headers: &str| {
        search(
            &format!("{ALL}content-type: application/json\r\n{headers}"),
            "{}",
        )
        .replacen("POST", "QUERY", 1)
    };
    let export = |headers: &str| get("/v1/cases/export", &format!("{ALL}{headers}"));
    let list = |headers: &str| get("/msp/customers", &format!("{ALL}{headers}"));
    let overview = |headers: &str| get("/v1/overview", &format!("{ALL}{headers}"));
    let of = |reply: &crate::peer::Reply| reply.header("etag").to_owned();
    let list_tag = of(&whole.ask(list("")).await);
    let query_tag = of(&whole.ask(query("")).await);
    for (tag, ask) in [
        (&list_tag, &list as &dyn Fn(&str) -> String),
        (&query_tag, &query),
    ] {
        let coded = format!("{}-zstd\"", tag.trim_end_matches('"'));
        for (condition, status) in [
            (format!("if-match: {tag}\r\n"), 200),
            (format!("if-match: \"nope\", {tag}\r\n"), 200),
            (format!("if-match: {coded}\r\n"), 200),
            ("if-match: *\r\n".to_owned(), 200),
            ("if-match: \"nope\"\r\n".to_owned(), 412),
            (format!("if-match: W/{tag}\r\n"), 412),
            // No tag at all.
            ("if-match: nope\r\n".to_owned(), 200),
            // The first condition goes first.
            (
                format!("if-match: \"nope\"\r\nif-none-match: {tag}\r\n"),
                412,
            ),
            (format!("if-match: {tag}\r\nif-none-match: {tag}\r\n"), 304),
            // Answers have no date of their last change.
            (
                "if-unmodified-since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".to_owned(),
                200,
            ),
        ] {
            let reply = whole.ask(ask(&condition)).await;
            assert_eq!(reply.status, status, "{condition}");
            if status == 412 {
                assert_eq!(reply.code(), "precondition_failed");
            }
        }
    }
    assert_eq!(
        whole.ask(overview("if-match: \"nope\"\r\n")).await.status,
        412
    );
    assert_eq!(whole.ask(overview("if-match: *\r\n")).await.status, 200);
    // A POST always gets its body.
    let posted = search(&format!("{ALL}if-match: \"nope\"\r\n"), "{}");
    assert_eq!(whole.ask(posted).await.status, 200);

    for (accepted, status) in [
        ("identity;q=0", 406),
        ("*;q=0", 406),
        ("identity;q=0, deflate", 406),
        ("identity;q=0, gzip", 200),
        ("identity;q=0.1", 200),
        ("deflate", 200),
    ] {
        let header = format!("accept-encoding: {accepted}\r\n");
        for request in [
            list(&header),
            query(&header),
            export(&header),
            overview(&header),
        ] {
            let reply = whole.ask(&request).await;
            assert_eq!(reply.status, status, "{request}");
            if status == 406 {
                assert_eq!(reply.code(), "not_acceptable");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn exports_begin_and_end_as_spreadsheets_and_line_readers_need() {
    let whole = gateway("");
    let export = async |query: &str| {
        whole
            .ask(get(&format!("/v1/cases/export?{query}"), ALL))
            .await
    };
    let plain = export("format=csv").await;
    let marked = export("format=csv&bom=1").await;
    assert_eq!(marked.body, [b"\xef\xbb\xbf", &plain.body[..]].concat());
    assert_eq!(export("format=csv&bom=0").await.body, plain.body);
    let empty = "start=1999-01-01&end=1999-01-02";
    let head = "case_id,customer_id,customer_name,case_type,_more\n";
    assert_eq!(
        export(&format!("format=csv&{empty}")).await.body,
        head.as_bytes()
    );
    let marked = export(&format!("format=csv&bom=1&{empty}")).await.body;
    assert_eq!(
        String::from_utf8(marked).unwrap(),
        format!("\u{feff}{head}")
    );
    assert_eq!(export(empty).await.body, b"");
    for bad in [
        "bom=1",
        "bom=1&format=ndjson",
        "format=csv&bom=2",
        "format=csv&bom=",
        "format=csv&bom=true",
    ] {
        let reply = export(bad).await;
        assert_eq!(
            (reply.status, &*reply.code()),
            (400, "invalid_query"),
            "{bad}"
        );
        assert!(
            reply.json()["detail"].as_str().unwrap().contains("\"bom\""),
            "{bad}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn members_near_to_a_documented_one_are_told_or_refused() {
    let bodies = [
        (
            "{\"dateRange\":{\"start\":\"2026-01-01\",\"end\":\"2026-01-31\"}}",
            "dateRange",
            "date_range",
        ),
        (
            "{\"max_returned_item\":7}",
            "max_returned_item",
            "max_returned_items",
        ),
        ("{\"StartPageKey\":null}", "StartPageKey", "start_page_key"),
    ];
    let whole = gateway("");
    for (body, member, meant) in bodies {
        for _ in 0..3 {
            let reply = whole.ask(search(ALL, body)).await;
            assert_eq!(reply.status, 200, "{body}");
            let hint = reply.header("warning");
            assert!(
                hint.starts_with("299 ") && hint.contains(member) && hint.contains(meant),
                "{hint}"
            );
        }
        // As before, it is part of the search.
        let asked = whole.sandbox.requests();
        assert!(
            asked
                .iter()
                .any(|request| format!("{request:?}").contains(member)),
            "{member}"
        );
    }
    for body in [
        "{}",
        "{\"severity\":\"high\"}",
        "{\"max_returned_items\":7}",
    ] {
        assert_eq!(
            whole.ask(search(ALL, body)).await.header("warning"),
            "",
            "{body}"
        );
    }
    let strict = SETTINGS.replacen(
        "[cases.open]",
        "[cases]\nstrict_members = true\n[cases.open]",
        1,
    );
    let whole = Whole::with(
        &format!("{strict}{}", caller("all", "")),
        &secrets(),
        world(),
    );
    for (body, member, meant) in bodies {
        let reply = whole.ask(search(ALL, body)).await;
        assert_eq!(
            (reply.status, &*reply.code()),
            (400, "invalid_body"),
            "{body}"
        );
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.contains(member) && detail.contains(meant),
            "{detail}"
        );
    }
    assert_eq!(whole.vendor_calls(), 0);
    assert_eq!(
        whole
            .ask(search(ALL, "{\"severity\":\"high\"}"))
            .await
            .status,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_can_read_the_404_of_a_path_that_does_not_exist() {
    let whole = gateway("[cors]\norigins = [\"https://dash.example\"]\n");
    let origin = "origin: https://dash.example\r\n";
    let asks =
        "access-control-request-method: GET\r\naccess-control-request-headers: authorization\r\n";
    for path in [
        "/",
        "/nowhere",
        "/msp/customer",
        "/v1/billing",
        "/admin/purge",
    ] {
        let preflight = format!("OPTIONS {path} HTTP/1.1\r\nhost: x\r\n{origin}{asks}\r\n");
        let reply = whole.ask(&preflight).await;
        assert_eq!(reply.status, 204, "{path}");
        assert_eq!(
            reply.header("access-control-allow-origin"),
            "https://dash.example"
        );
        assert!(reply.header("access-control-allow-methods").contains("GET"));
        let reply = whole.ask(get(path, &format!("{ALL}{origin}"))).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(
            reply.header("access-control-allow-origin"),
            "https://dash.example"
        );
        // Others are not told more than before.
        let other = preflight.replace("dash.example", "other.example");
        let reply = whole.ask(&other).await;
        assert_eq!(reply.header("access-control-allow-origin"), "", "{path}");
        assert_ne!(
            reply.header("access-control-allow-methods"),
            "GET, HEAD, POST, QUERY"
        );
    }
    let posted = post("/nowhere", origin, "{}");
    assert_eq!(whole.ask(posted).await.status, 404);
}
