//! Broken, odd and enormous JSON as the body of a search. A body that is no JSON is refused before
//! a vendor is called, JSON is accepted, and where parsers differ there is one answer.

use msp_gateway::sandbox::{FaultKind, SimFault, SimOperation};

use crate::hostile::{bytes, gateway};
use crate::whole::{ALL, Whole, search};

/// Texts that are no JSON; `n_` in the known collections.
fn broken_values() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "[1 true]",
        "[a\u{e5}]",
        "[\"\": 1]",
        "[\"\"],",
        "[,1]",
        "[1,,2]",
        "[\"x\",,]",
        "[\"x\"]]",
        "[\"\",]",
        "[\"x\"",
        "[x",
        "[3[4]]",
        "[1:2]",
        "[,]",
        "[-]",
        "[   , \"\"]",
        "[\"a\",\n4\n,1,",
        "[1,]",
        "[1,,]",
        "[\"\u{b}a\"\\f]",
        "[*]",
        "[\"\"",
        "[1,\n1\n,1",
        "[{}",
        "[fals]",
        "[nul]",
        "[tru]",
        "[++1234]",
        "[+1]",
        "[+Inf]",
        "[-01]",
        "[-1.0.]",
        "[-2.]",
        "[-NaN]",
        "[.-1]",
        "[.2e-3]",
        "[0.1.2]",
        "[0.3e+]",
        "[0.3e]",
        "[0.e1]",
        "[0E+]",
        "[0E]",
        "[0e+]",
        "[0e]",
        "[1.0e+]",
        "[1.0e-]",
        "[1.0e]",
        "[1 000.0]",
        "[1eE2]",
        "[2.e+3]",
        "[2.e-3]",
        "[2.e3]",
        "[9.e+]",
        "[Inf]",
        "[NaN]",
        "[\u{ff11}]",
        "[1+2]",
        "[0x1]",
        "[0x42]",
        "[Infinity]",
        "[0e+-1]",
        "[-123.123foo]",
        "[-Infinity]",
        "[-foo]",
        "[- 1]",
        "[-012]",
        "[-.123]",
        "[-1x]",
        "[1ea]",
        "[1.]",
        "[.123]",
        "[1.2a-3]",
        "[1.8011670033376514H-308]",
        "[012]",
        "[1e1\u{e5}]",
        "[\"x\", truth]",
        "{[: \"x\"}\n",
        "{\"x\", null}",
        "{\"x\"::\"b\"}",
        "{\u{1f1e8}\u{1f1ed}}",
        "{\"a\":\"a\" 123}",
        "{key: 'value'}",
        "{\"a\" b}",
        "{:\"b\"}",
        "{\"a\" \"b\"}",
        "{\"a\":",
        "{\"a\"",
        "{1:1}",
        "{9999E9999:1}",
        "{null:null,null:null}",
        "{\"id\":0,,,,,}",
        "{'a':0}",
        "{\"id\":0,}",
        "{\"a\":\"b\"}/**/",
        "{\"a\":\"b\"}/**//",
        "{\"a\":\"b\"}//",
        "{\"a\":\"b\"}/",
        "{\"a\":\"b\",,\"c\":\"d\"}",
        "{a: \"b\"}",
        "{\"a\":\"a",
        "{ \"foo\" : \"bar\", \"a\" }",
        "{\"a\":\"b\"}#",
        " ",
        "[\"\\uD800\\",
        "[\"\\uD800\\u\"]",
        "[\"\\uD800\\u1\"]",
        "[\"\\uD800\\u1x\"]",
        "[\u{e9}]",
        "[\"\\\u{0}\"]",
        "[\"\\\\\\\"]",
        "[\"\\\t\"]",
        "[\"\\\u{1f300}\"]",
        "[\"\\\"]",
        "[\"\\u00A\"]",
        "[\"\\uD834\\uDd\"]",
        "[\"\\uD800\\uD800\\x\"]",
        "[\"\\a\"]",
        "[\"\\uqqqq\"]",
        "[\\u0020\"asd\"]",
        "[\\n]",
        "\"",
        "['single quote']",
        "abc",
        "[\"\\",
        "[\"new\nline\"]",
        "[\"\t\"]",
        "\"\\UA66D\"",
        "<.>",
        "[<null>]",
        "[1]x",
        "[1]]",
        "[\"asd]",
        "a\u{e5}",
        "[True]",
        "1]",
        "{\"x\": true,",
        "[][]",
        "]",
        "\u{feff}{}",
        "[",
        "{",
        "{\"\":",
        "\"a",
        "[\"\\{[\"\\{[\"\\{[\"\\{",
        "{\"a\": true} \"x\"",
        "[1\u{a0}]",
        "\u{2060}",
        "[\u{c}]",
        "''",
        "{}}",
        "{\"\":{",
        "nul",
        "tru",
        "undefined",
        "// {}",
        "{}\u{0}",
        "@",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    // What is not UTF-8.
    for bad in [
        &b"\xff"[..],
        b"\xfe\xff",
        b"\xc3",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\x80",
        b"\xe5",
    ] {
        all.push(bytes("[\"", bad, "\"]"));
        all.push(bytes("{\"", bad, "\":0}"));
        all.push(bad.to_vec());
    }
    // Every control character bare in a string.
    all.extend((0..0x20).map(|byte| bytes("[\"", &[byte], "\"]")));
    // Depth.
    for open in ["[", "{\"a\":", "[{\"a\":"] {
        all.push(open.repeat(5_000).into_bytes());
    }
    all
}

/// JSON that stands for something; `y_` in the known collections.
fn sound_values() -> Vec<String> {
    let mut all: Vec<String> = [
        "[[]   ]",
        "[\"\"]",
        "[]",
        "[\"a\"]",
        "[false]",
        "[null, 1, \"1\", {}]",
        "[null]",
        "[1\n]",
        " [1]",
        "[1,null,null,null,2]",
        "[2] ",
        "[123e65]",
        "[0e+1]",
        "[0e1]",
        "[ 4]",
        "[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]",
        "[20e1]",
        "[-0]",
        "[-123]",
        "[-1]",
        "[1E22]",
        "[1E-2]",
        "[1E+2]",
        "[123e45]",
        "[123.456e78]",
        "[1e-2]",
        "[1e+2]",
        "[123]",
        "[123.456789]",
        "{\"asd\":\"sdf\", \"dfg\":\"fgh\"}",
        "{\"asd\":\"sdf\"}",
        "{}",
        "{\"\":0}",
        "{\"foo\\u0000bar\": 42}",
        "{\"a\":[]}",
        "{\"min\": -1.0e+28}",
        "{\"title\":\"\\u041f\\u043e\\u043b\"}",
        "{\n\"a\": \"b\"\n}",
        "[\"\\u0060\\u012a\\u12AB\"]",
        "[\"\\uD801\\udc37\"]",
        "[\"\\ud83d\\ude39\\ud83d\\udc8d\"]",
        "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
        "[\"\\\\u0000\"]",
        "[\"\\\"\"]",
        "[\"a/*b*/c/*d//e\"]",
        "[\"\\\\a\"]",
        "[\"\\\\n\"]",
        "[\"\\u0012\"]",
        "[\"\\uFFFF\"]",
        "[\"asd\"]",
        "[ \"asd\"]",
        "[\"\\uDBFF\\uDFFF\"]",
        "[\"new\\u00A0line\"]",
        "[\"\u{10ffff}\"]",
        "[\"\u{ffff}\"]",
        "[\"\\u0000\"]",
        "[\"\\u002c\"]",
        "[\"\u{3c0}\"]",
        "[\"\u{1bff}\"]",
        "[\"asd \"]",
        "\" \"",
        "[\"\\uD834\\uDd1e\"]",
        "[\"\\u0821\"]",
        "[\"\\u0123\"]",
        "[\"\u{2028}\"]",
        "[\"\u{2029}\"]",
        "[\"\\u0061\\u30af\\u30EA\\u30b9\"]",
        "[\"new\\u000Aline\"]",
        "[\"\u{7f}\"]",
        "[\"\\uA66D\"]",
        "[\"\\u005C\"]",
        "[\"\u{2342}\u{3234}\u{2342}\"]",
        "[\"\\u200B\"]",
        "[\"\\u2064\"]",
        "[\"\\uFDD0\"]",
        "[\"\\uFFFE\"]",
        "[\"\\u0022\"]",
        "[\"\u{20ac}\u{1d11e}\"]",
        "[\"a\u{7f}a\"]",
        "false",
        "42",
        "-0.1",
        "null",
        "\"asd\"",
        "true",
        "\"\"",
        "[\"a\"]\n",
        "[true]",
        "12345678901234567890.123",
        "[ ]",
        "[[[[[[[[[[]]]]]]]]]]",
    ]
    .iter()
    .map(|text| (*text).to_owned())
    .collect();
    // The bound is 32, the outermost object among them.
    all.push("[".repeat(31) + &"]".repeat(31));
    all.push(format!("\"{}\"", "x".repeat(30_000)));
    all.push("9".repeat(100));
    all
}

/// Where readers of JSON differ; one answer each, always the same.
fn open_values() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "[\"\\uD800\"]", "[\"\\uDADA\"]", "[\"\\uD888\\u1234\"]", "[\"\\uD800\\n\"]",
        "[\"\\uDd1ea\"]", "[\"\\uD800\\uD800\\n\"]", "[\"\\ud800\"]", "[\"\\ud800abc\"]",
        "[\"\\uDd1e\\uD834\"]", "[\"\\uDFAA\"]", "[123123e100000]", "[-123123e100000]", "[1e400]",
        "[0.4e00669999999999999999999999999999999999999999999999999999999999999999999999999999969999999006]",
        "[-1e+9999]", "[1.5e+9999]", "[123.456e-789]", "[-123123123123123123123123123123]",
        "[100000000000000000000]", "[-237462374673276894279832749832423479823246327846]",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    for depth in [32, 100, 120, 125, 126, 127, 128, 129, 500] {
        all.push(("[".repeat(depth) + &"]".repeat(depth)).into_bytes());
    }
    all
}

fn search_bytes(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{ALL}content-length: {}\r\n\r\n",
        body.len()
    );
    bytes(&head, body, "")
}

#[tokio::test(start_paused = true)]
async fn broken_json_is_refused_before_a_vendor_hears_of_it() {
    let whole = gateway();
    let broken = broken_values();
    let count = broken.len();
    assert!(count >= 188, "{count}");
    for value in broken {
        let inside = bytes("{\"x\":", &value, "}");
        for body in [value, inside] {
            let reply = whole.ask(search_bytes(&body)).await;
            let told = (reply.status, reply.code());
            // A text that is broken by itself may be whole inside: `1}` is no case here.
            assert_eq!(
                told,
                (400, "invalid_body".to_owned()),
                "{:?}",
                String::from_utf8_lossy(&body)
            );
        }
    }
    assert_eq!(whole.vendor_calls(), 0);
    println!("hostile: {} broken bodies refused", 2 * count);
}

/// Answers every search with this body and status 200.
fn answers(whole: &Whole, body: &str) {
    whole.sandbox.clear_faults();
    let kind = FaultKind::Status {
        status: 200,
        body: Some(body.to_owned()),
        retry_after: None,
        processed: false,
    };
    whole
        .sandbox
        .fault(SimFault::on(SimOperation::Search, kind));
}

#[tokio::test(start_paused = true)]
async fn broken_json_of_a_vendor_is_no_answer() {
    let mut count = 0;
    for value in broken_values() {
        // What is no UTF-8 is tried by the promises of the vendor's page.
        let Ok(value) = String::from_utf8(value) else {
            continue;
        };
        let as_a_row = format!("{{\"data\":[{value}],\"next_page_key\":null}}");
        let in_the_envelope = format!("{{\"data\":[],\"x\":{value}}}");
        for body in [value, as_a_row, in_the_envelope] {
            if serde_json::from_str::<serde_json::Value>(&body).is_ok() {
                // Broken by itself, whole between these brackets: `1]`, `[1,`.
                continue;
            }
            let whole = gateway();
            answers(&whole, &body);
            let reply = whole.ask(search(ALL, "{}")).await;
            let told = (reply.status, reply.code());
            assert_eq!(told, (502, "vendor_protocol_error".to_owned()), "{body:?}");
            assert_eq!(whole.metrics.panics.get(), 0);
            count += 1;
        }
    }
    println!("hostile: {count} broken answers refused");
    assert!(count >= 3 * 188 - 100, "{count}");
}

#[tokio::test(start_paused = true)]
async fn sound_json_of_a_vendor_passes_as_it_is() {
    for value in sound_values() {
        let whole = gateway();
        answers(
            &whole,
            &format!("{{\"data\":[{value}],\"next_page_key\":null}}"),
        );
        let reply = whole.ask(search(ALL, "{}")).await;
        assert_eq!(reply.status, 200, "{value}: {reply:?}");
        let body = String::from_utf8(reply.body).unwrap();
        let row = value.trim_matches([' ', '\t', '\r', '\n']);
        assert_eq!(body, format!("{{\"data\":[{row}],\"next_page_key\":null}}"));
    }
}

#[tokio::test(start_paused = true)]
async fn sound_json_is_taken_as_a_member_and_refused_as_a_whole() {
    let whole = gateway();
    for value in sound_values() {
        let reply = whole.ask(search(ALL, &format!("{{\"x\":{value}}}"))).await;
        assert_eq!(reply.status, 200, "{value}: {reply:?}");
        let reply = whole.ask(search(ALL, &value)).await;
        if value.trim_start().starts_with('{') {
            assert_eq!(reply.status, 200, "{value}");
        } else {
            assert_eq!(
                (reply.status, &*reply.code()),
                (400, "invalid_body"),
                "{value}"
            );
            let said = reply.json()["error"].as_str().unwrap().to_owned();
            assert_eq!(said, "Request body must be a dictionary", "{value}");
        }
    }
    for value in open_values() {
        let body = search_bytes(&bytes("{\"x\":", &value, "}"));
        let first = whole.ask(&body).await;
        assert!(
            matches!(first.status, 200 | 400),
            "{:?}",
            String::from_utf8_lossy(&value)
        );
        assert_eq!(whole.ask(&body).await.status, first.status);
    }
}

#[tokio::test(start_paused = true)]
async fn duplicates_numbers_and_sizes_are_held_to_their_bounds() {
    let whole = gateway();
    for body in [
        "{\"x\":1,\"x\":1}",
        "{\"x\":1,\"\\u0078\":1}",
        "{\"x\":{\"a\":1,\"a\":2}}",
        "{\"x\":[{\"a\":[{\"b\":1,\"b\":1}]}]}",
        "{\"date_range\":{\"start\":\"2026-01-01\",\"end\":\"2026-01-02\"},\"date_range\":null}",
        "{\"max_returned_items\":1,\"max_returned_items\":1}",
    ] {
        let reply = whole.ask(search(ALL, body)).await;
        assert_eq!(
            (reply.status, &*reply.code()),
            (400, "invalid_body"),
            "{body}"
        );
    }
    for number in [
        "0",
        "-1",
        "501",
        "25.5",
        "25.0",
        "2e1",
        "1e309",
        "-0",
        "\"25\"",
        "true",
        "[]",
        "{}",
        "1e-400",
        "18446744073709551617",
        "340282366920938463463374607431768211457",
    ] {
        let reply = whole
            .ask(search(ALL, &format!("{{\"max_returned_items\":{number}}}")))
            .await;
        assert_eq!(
            (reply.status, &*reply.code()),
            (400, "invalid_body"),
            "{number}"
        );
    }
    for (bytes, told) in [(65_000, 200), (65_537, 413), (1 << 20, 413)] {
        for body in [
            format!("{{\"x\":\"{}\"}}", "x".repeat(bytes)),
            format!("{{\"{}\":1}}", "x".repeat(bytes)),
            format!("{}{{}}", " ".repeat(bytes)),
        ] {
            let reply = whole.ask(search(ALL, &body)).await;
            assert_eq!(reply.status, told, "{bytes} {}", &body[..8]);
        }
    }
    // A number is kept digit for digit, so its digits are bounded too.
    for (digits, told) in [(100, 200), (60_000, 400), (1 << 20, 413)] {
        let body = format!("{{\"x\":{}}}", "7".repeat(digits));
        assert_eq!(whole.ask(search(ALL, &body)).await.status, told, "{digits}");
    }
    let page = |value: &str| format!("{{\"start_page_key\":{{\"scroll_id\":{value}}}}}");
    for value in [
        "\"\"",
        "7",
        "null",
        "[]",
        "\"\\u0000\"",
        "\"\\uD800\"",
        "\"x\"",
        "\"../../x\"",
    ] {
        let reply = whole.ask(search(ALL, &page(value))).await;
        assert_eq!(reply.status, 400, "{value}");
    }
    let long = format!("\"{}\"", "A".repeat(60_000));
    let reply = whole.ask(search(ALL, &page(&long))).await;
    assert_eq!((reply.status, &*reply.code()), (400, "invalid_page_token"));
}
