//! Tests of faults as the control routes accept them.

use super::*;

fn one(body: &str) -> SimFault {
    match read(body.as_bytes()).unwrap().pop().unwrap() {
        Switch::Add(fault) => *fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_is_read_under_its_own_word() {
    for body in [
        r#"{"kind":"latency","ms":5}"#,
        r#"{"kind":"status","status":429,"retry_after":7,"body":{"error":"x"},"processed":true}"#,
        r#"{"kind":"drop_before"}"#,
        r#"{"kind":"drop_after"}"#,
        r#"{"kind":"cut_body","at":10}"#,
        r#"{"kind":"stall_body","ms":100}"#,
        r#"{"kind":"malformed_json"}"#,
        r#"{"kind":"truncated_rows"}"#,
        r#"{"kind":"wrong_content_type"}"#,
        r#"{"kind":"html_error"}"#,
        r#"{"kind":"redirect","location":"http://127.0.0.1:1/"}"#,
        r#"{"kind":"scroll_expired"}"#,
        r#"{"kind":"insert","count":3}"#,
        r#"{"kind":"empty_page_with_cursor"}"#,
        r#"{"kind":"repeat_page"}"#,
        r#"{"kind":"endless"}"#,
        r#"{"kind":"duplicate_row"}"#,
        r#"{"kind":"short_page"}"#,
        r#"{"kind":"oversize"}"#,
        r#"{"kind":"huge_body","bytes":1000,"chunked":true}"#,
    ] {
        let word = one(body).kind.as_str();
        assert!(body.contains(&format!("\"kind\":\"{word}\"")), "{body}");
    }
}

#[test]
fn members_are_read() {
    let fault = one(
        r#"{"operation":"continue","kind":"status","status":503,"body":"no","retry_after":"5","times":2,"after":1,"probability":0.5}"#,
    );
    let kind = FaultKind::Status {
        status: 503,
        body: Some("no".to_owned()),
        retry_after: Some("5".to_owned()),
        processed: false,
    };
    assert_eq!(
        fault,
        SimFault::on(SimOperation::Continue, kind)
            .times(2)
            .after(1)
            .probability(0.5)
    );
    let list = r#" [{"clear":true},{"vendor":"nable","down":true},{"kind":"endless"}]"#;
    let switches = read(list.as_bytes()).unwrap();
    assert_eq!(
        switches[..2],
        [Switch::Clear, Switch::Down(SimVendor::Nable, true)]
    );
    assert_eq!(switches.len(), 3);
}

#[test]
fn what_is_wrong_is_refused() {
    for body in [
        "",
        "{}",
        "null",
        "[1]",
        r#"{"kind":"nonsense"}"#,
        r#"{"kind":"drop_before","unknown":1}"#,
        r#"{"kind":"drop_before","ms":1}"#,
        r#"{"kind":"latency"}"#,
        r#"{"kind":"latency","ms":3600001}"#,
        r#"{"kind":"latency","ms":-1}"#,
        r#"{"kind":"status","status":100}"#,
        r#"{"kind":"status","status":600}"#,
        r#"{"kind":"redirect"}"#,
        r#"{"kind":"redirect","location":"/x","status":200}"#,
        r#"{"kind":"redirect","location":"a\nb"}"#,
        r#"{"kind":"endless","probability":1.5}"#,
        r#"{"kind":"endless","operation":"other"}"#,
        r#"{"kind":"insert","count":10001}"#,
        r#"{"down":true}"#,
        r#"{"vendor":"x","down":true}"#,
        r#"{"clear":false}"#,
        r#"{"clear":true,"kind":"endless"}"#,
        r#"[{"kind":"endless"},{"kind":"nonsense"}]"#,
    ] {
        assert!(read(body.as_bytes()).is_err(), "{body}");
    }
}
