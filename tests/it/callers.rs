//! Who may ask, and what each may see: through the whole stack.

use std::collections::HashSet;
use std::sync::Arc;

use msp_gateway::access::CallerKeyHash;
use msp_gateway::clock::{Duration, sleep};

use crate::whole::{
    ALL, Events, Peer, Reply, SETTINGS, Whole, caller, get, post, search, secrets, world,
};

const TWO: &str = "authorization: Bearer k-two\r\n";
const TWO_CUSTOMERS: &str = "customers = [\"org_1\", \"org_2\"]\n";

fn with_callers(callers: &str) -> Whole {
    Whole::with(&format!("{SETTINGS}{callers}"), &secrets(), world())
}

async fn status(whole: &Whole, headers: &str) -> (u16, String) {
    let reply = whole.ask(get("/msp/customers", headers)).await;
    (reply.status, reply.code())
}

#[tokio::test(start_paused = true)]
async fn every_live_key_works_until_it_is_withdrawn_or_expires() {
    let hashes = ["k-one", "k-other"].map(|key| CallerKeyHash::of(key.as_bytes()));
    let rotating = format!(
        "[[callers]]\nname = \"rotating\"\nkey_hash = [\"{}\", \"{}\"]\ncustomers = [\"*\"]\n",
        hashes[0], hashes[1]
    );
    let guest = caller("guest", "expires = \"2026-11-20T12:10:00Z\"\n");
    let whole = with_callers(&(rotating + &guest));
    let refused = (401, "authentication_required".to_owned());
    for key in ["k-one", "k-other", "k-guest"] {
        for header in ["x-api-key: ", "authorization: Bearer "] {
            let told = status(&whole, &format!("{header}{key}\r\n")).await;
            assert_eq!(told, (200, String::new()), "{header}{key}");
        }
    }
    // Everything below is cached by now, and a key is asked for all the same.
    let calls = whole.vendor_calls();
    for headers in [
        "",
        "x-api-key: k\r\n",
        "x-api-key: K-ONE\r\n",
        "x-api-key: \r\n",
        "x-api-key: k-one \u{1}\r\n",
        "x-api-key: k-one, k-other\r\n",
        "x-api-key: k-one\r\nx-api-key: k-one\r\n",
        "x-api-key: k-one\r\nauthorization: Bearer k-other\r\n",
        "authorization: k-one\r\n",
        "authorization: Basic k-one\r\n",
        "authorization: Bearer\r\n",
        "authorization: Bearer k-one k-one\r\n",
        "cookie: x-api-key=k-one\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
    ] {
        let mut peer = whole.connect();
        peer.send(get("/msp/customers", headers)).await;
        let reply = peer.reply().await.unwrap();
        assert!(reply.status == 401 || reply.status == 400, "{headers:?}");
        if reply.status == 401 {
            assert_eq!(reply.code(), refused.1, "{headers:?}");
            assert_eq!(reply.header("www-authenticate"), "Bearer");
        }
        assert!(!String::from_utf8_lossy(&reply.body).contains("k-one"));
    }
    sleep(Duration::from_secs(600)).await;
    assert_eq!(status(&whole, "x-api-key: k-guest\r\n").await, refused);
    assert_eq!(status(&whole, "x-api-key: k-one\r\n").await.0, 200);
    assert!(
        whole.vendor_calls() <= calls + 1,
        "a refusal asked a vendor"
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_sees_its_customers_and_vendors_only() {
    let callers =
        caller("all", "") + &caller("two", TWO_CUSTOMERS) + &caller("nobill", "billing = false\n");
    let whole = with_callers(&callers);
    let contract = whole.sandbox.contracts()[0].id.clone();
    let billing = [
        get("/v1/billing/202609", TWO),
        get(&format!("/v1/billing/202609/{contract}"), TWO),
        post("/ws/rest/V1/PSA_API/InvoicesReady/-/202609", TWO, ""),
        post(
            &format!("/ws/rest/V1/PSA_API/PSABillableServices/SANDBOX/202609/{contract}"),
            TWO,
            "{}",
        ),
    ];
    // Also once it is cached for others.
    for round in 0..2 {
        for request in &billing {
            for who in [TWO, "x-api-key: k-nobill\r\n"] {
                let reply = whole.ask(request.replace(TWO, who)).await;
                let told = (reply.status, reply.code());
                assert_eq!(told, (403, "billing_not_allowed".to_owned()), "{request}");
            }
            if round == 0 {
                assert_eq!(whole.ask(request.replace(TWO, ALL)).await.status, 200);
            }
        }
    }
    let foreign = [
        post("/v2/cases/msp/search?customer_id=org_3", TWO, "{}"),
        get("/v1/cases/export?customer_id=org_3", TWO),
        post("/v2/cases/msp/search?customer_id=no_such", TWO, "{}"),
    ];
    let before = whole.vendor_calls();
    for request in &foreign {
        let reply = whole.ask(request).await;
        let told = (reply.status, reply.code());
        assert_eq!(told, (403, "customer_not_allowed".to_owned()), "{request}");
    }
    assert_eq!(whole.vendor_calls(), before);
    let overview = whole.ask(get("/v1/overview?timeframe=202609", TWO)).await;
    assert_eq!(overview.status, 200);
    let body = overview.json();
    let ids: HashSet<_> = body["customers"].as_array().unwrap().iter().collect();
    assert!(ids.iter().all(|row| is_own(row)), "{body}");
    assert_eq!(body["unlinked_clients"], serde_json::json!([]));
}

#[tokio::test(start_paused = true)]
async fn operators_alone_purge_and_explain_beyond_loopback() {
    let settings = SETTINGS.replace("admin = \"127.0.0.1:0\"", "admin = \"0.0.0.0:9\"");
    let callers = caller("all", "") + &caller("op", "role = \"operator\"");
    let whole = Whole::with(&format!("{settings}{callers}"), &secrets(), world());
    let explain = "/admin/explain?method=GET&target=/msp/customers&caller=all";
    for (headers, told) in [
        ("", (401, "authentication_required")),
        ("x-api-key: k-nobody\r\n", (401, "authentication_required")),
        (ALL, (403, "operator_required")),
        ("x-api-key: k-op\r\n", (200, "")),
    ] {
        for request in [
            post(
                "/admin/purge",
                &format!("content-type: application/json\r\n{headers}"),
                "{\"all\":true}",
            ),
            get(explain, headers),
        ] {
            let reply = whole.ask_admin(&request).await;
            assert_eq!((reply.status, &*reply.code()), told, "{request}");
        }
    }
    // Nothing of it is on the public listener.
    for path in [
        "/metrics",
        "/readyz",
        "/admin/status",
        "/admin/purge",
        explain,
    ] {
        let reply = whole.ask(get(path, "x-api-key: k-op\r\n")).await;
        assert_eq!(reply.status, 404, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_logged_with_who_what_and_how_many() {
    let callers = caller("all", "") + &caller("op", "role = \"operator\"");
    let whole = with_callers(&callers);
    let (events, _listening) = Events::listen();
    for (headers, body, by, what, mode) in [
        ("", "{\"all\":true}", "loopback", "everything", "soft"),
        (
            "x-api-key: k-op\r\n",
            "{\"kind\":\"customers\"}",
            "op",
            "kind customers",
            "soft",
        ),
        (
            "x-api-key: k-op\r\n",
            "{\"customer\":\"org_1\",\"soft\":false}",
            "op",
            "customer org_1",
            "hard",
        ),
    ] {
        assert_eq!(whole.ask(get("/msp/customers", ALL)).await.status, 200);
        events.clear();
        let headers = format!("content-type: application/json\r\n{headers}");
        let reply = whole.ask_admin(&post("/admin/purge", &headers, body)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let text = events.text();
        let told = text.lines().find(|line| line.contains("\"purged\""));
        let told: serde_json::Value = serde_json::from_str(told.unwrap()).unwrap();
        assert_eq!(
            (&told["by"], &told["what"], &told["mode"]),
            (&by.into(), &what.into(), &mode.into())
        );
        assert_eq!(told["purged"], reply.json()["purged"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_callers_rate_is_its_own_and_is_told() {
    let whole = with_callers(&(caller("all", "") + &caller("slow", "requests_per_minute = 60\n")));
    let slow = get("/msp/customers", "x-api-key: k-slow\r\n");
    let first = whole.ask(&slow).await;
    assert_eq!(first.status, 200);
    assert!(!first.header("ratelimit").is_empty() && !first.header("ratelimit-policy").is_empty());
    assert_eq!(first.header("retry-after"), "");
    let mut refused = None;
    for _ in 0..20 {
        let reply = whole.ask(&slow).await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("a refusal");
    assert_eq!(refused.code(), "caller_rate_limited");
    for header in ["ratelimit", "ratelimit-policy"] {
        assert!(refused.header(header).starts_with('"'), "{header}");
    }
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    let other = whole.ask(get("/msp/customers", ALL)).await;
    assert_eq!(other.status, 200, "another caller's rate");
    assert_eq!(other.header("ratelimit"), "");
    sleep(Duration::from_secs(wait)).await;
    assert_eq!(whole.ask(&slow).await.status, 200, "as Retry-After said");
}

fn is_own(row: &serde_json::Value) -> bool {
    matches!(row["customer_id"].as_str(), Some("org_1" | "org_2"))
}

/// One caller of the interleaving: pages searches to their ends and starts again.
async fn page_on(whole: Arc<Whole>, scoped: bool, requests: usize, seed: u64) -> Vec<String> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut tokens = Vec::new();
    let mut peer: Peer = whole.connect();
    let mut token: Option<String> = None;
    for n in 0..requests {
        let takes = ["", "accept-encoding: gzip\r\n", "accept-encoding: zstd\r\n"];
        let headers = if scoped { TWO } else { ALL };
        let headers = &*format!("{headers}{}", takes[dice.usize(0..takes.len())]);
        let size = dice.usize(1..=40);
        let question = match (&token, dice.u8(0..12)) {
            (Some(token), 0..=8) => search(
                headers,
                &format!(
                    "{{\"max_returned_items\":{size},\"start_page_key\":{{\"scroll_id\":\"{token}\"}}}}"
                ),
            ),
            (_, 9) => get("/msp/customers?fields=id,name", headers),
            (_, 10) if n % 50 == 0 => get("/v1/overview?timeframe=202609", headers),
            (_, 11) if n % 10 == 0 => {
                get("/v1/cases/export?start=2026-11-10&end=2026-11-20", headers)
            }
            (_, 8) => post("/v2/cases/msp/search?customer_id=org_1", headers, "{}"),
            _ => {
                let range = [
                    "",
                    ",\"date_range\":{\"start\":\"2026-10-01\",\"end\":\"2026-11-20\"}",
                ];
                let range = range[dice.usize(0..2)];
                search(
                    headers,
                    &format!("{{\"max_returned_items\":{size}{range}}}"),
                )
            }
        };
        peer.send(&question).await;
        let Some(reply) = peer.reply().await else {
            peer = whole.connect();
            continue;
        };
        if reply.status != 200 {
            assert_eq!(reply.status, 410, "{question} {reply:?}");
            token = None;
            continue;
        }
        if scoped {
            no_foreign(&question, &reply);
        }
        if question.contains("/search") {
            let next = reply.json()["next_page_key"]["scroll_id"].clone();
            token = next.as_str().map(str::to_owned);
            tokens.extend(token.clone());
        }
        sleep(Duration::from_millis(dice.u64(0..40))).await;
    }
    tokens
}

/// No id of another customer stands anywhere in the answer, whatever its form.
fn no_foreign(question: &str, reply: &Reply) {
    let mut text = String::from_utf8(reply.decoded()).unwrap();
    // The letters of a sealed token may spell anything.
    if let Some((_, rest)) = text.split_once("\"scroll_id\":\"") {
        let token = rest.split('"').next().unwrap().to_owned();
        text = text.replace(&token, "");
    }
    for (at, _) in text.match_indices("org_") {
        let digits: String = text[at + 4..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        assert!(digits == "1" || digits == "2", "org_{digits}: {question}");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_interleaved_requests_show_no_foreign_row() {
    const CALLERS: usize = 8;
    const EACH: usize = 1_250;
    let callers = caller("all", "") + &caller("two", TWO_CUSTOMERS);
    let whole = Arc::new(with_callers(&callers));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..CALLERS {
        let whole = whole.clone();
        tasks.spawn(async move { (n % 2 == 0, page_on(whole, n % 2 == 0, EACH, n as u64).await) });
    }
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    while let Some(end) = tasks.join_next().await {
        let (scoped, tokens) = end.unwrap();
        if scoped { &mut own } else { &mut foreign }.extend(tokens);
    }
    assert!(own.len() > 500 && foreign.len() > 500);
    for coding in ["gzip", "zstd"] {
        let made = format!("coded_variants_total{{coding=\"{coding}\",outcome=\"made\"}}");
        assert!(whole.metric(&made).await > 10.0, "{coding}");
    }
    // A token of another audience opens nothing, and neither says why.
    for (tokens, headers) in [(&foreign, TWO), (&own, ALL)] {
        for token in tokens.iter().rev().take(200) {
            let body = format!("{{\"start_page_key\":{{\"scroll_id\":\"{token}\"}}}}");
            let reply = whole.ask(search(headers, &body)).await;
            assert_eq!((reply.status, &*reply.code()), (400, "invalid_page_token"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_needs_a_key_web_pages_of_other_sites_are_refused() {
    let settings = format!(
        "{SETTINGS}[auth]\nmode = \"open\"\n[cors]\norigins = [\"https://dash.example\"]\n{}",
        caller("all", "")
    );
    let whole = Whole::with(&settings, &secrets(), world());
    let ask = async |host: &str, headers: &str| {
        let request = get("/msp/customers", headers).replace("host: x", &format!("host: {host}"));
        let reply = whole.ask(request).await;
        (reply.status, reply.code())
    };
    let fine = (200, String::new());
    let refused = (403, "cross_site_refused".to_owned());
    let here = "127.0.0.1:8080";
    assert_eq!(ask(here, "").await, fine);
    assert_eq!(ask("localhost:8080", "").await, fine);
    let page = "origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n";
    assert_eq!(ask(here, page).await, refused);
    assert_eq!(ask(here, "sec-fetch-site: same-site\r\n").await, refused);
    // A site whose name was made to mean this machine.
    assert_eq!(ask("evil.example:8080", "").await, refused);
    let chosen = "origin: https://dash.example\r\nsec-fetch-site: cross-site\r\n";
    assert_eq!(ask(here, chosen).await, fine);
    // Who presents a key is known by it, wherever the page comes from.
    assert_eq!(ask("gateway.internal", &format!("{page}{ALL}")).await, fine);
}
