//! New settings while requests go on, from real files, through the whole stack.

use std::path::PathBuf;
use std::sync::Arc;

use msp_gateway::clock::{Duration, Instant, sleep};
use msp_gateway::config;
use msp_gateway::reload::Reloader;
use msp_gateway::sandbox::{FaultKind, NABLE_KEY, SimFault, SimOperation, WIV_KEY};
use tempfile::TempDir;
use toml::{Table, Value};

use crate::whole::{ALL, Events, SETTINGS, Whole, caller, get, search, world};

/// Stands for a secret in the wrong place.
const CANARY: &str = "cAnArY-7f3a9c";

/// A gateway with its files.
struct Rig {
    whole: Whole,
    reloader: Reloader,
    dir: TempDir,
}

/// The settings of the tests, with keys in files beside them.
fn text(dir: &TempDir) -> String {
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (wiv, nable) = SETTINGS.split_once("[nable]").unwrap();
    let wiv = wiv.replace(
        "api_key_env = \"UNUSED\"",
        &format!(
            "api_key_file = \"{}\"\napi_key_fallback_file = \"{}\"",
            file("wiv"),
            file("wiv2")
        ),
    );
    let nable = nable.replace(
        "api_key_env = \"UNUSED\"",
        &format!("api_key_file = \"{}\"", file("nable")),
    );
    format!(
        "{wiv}[nable]{nable}{}",
        caller("all", "role = \"operator\"")
    )
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rig = |name: &str, text: &str| write(&dir, name, text);
        rig("wiv", WIV_KEY);
        rig("wiv2", "a-second-key");
        rig("nable", NABLE_KEY);
        let path = rig("config.toml", &text(&dir));
        let settings = config::load(Some(&path)).unwrap();
        let whole = Whole::of(&settings, &settings.read_secrets().unwrap(), world());
        Self {
            reloader: Reloader::new(&path, &settings),
            whole,
            dir,
        }
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.dir, name, text);
    }

    /// Reloads, and says whether the settings were taken.
    async fn reload(&mut self) -> bool {
        let series = "config_reloads_total{outcome=\"applied\"}";
        let before = self.whole.metric(series).await;
        self.reloader.reload(&self.whole.app).await;
        self.whole.metric(series).await > before
    }

    async fn status(&self, request: &str) -> (u16, String) {
        let reply = self.whole.ask(request).await;
        (reply.status, reply.header("cache-status").to_owned())
    }
}

fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_end_on_the_old_stack() {
    let mut rig = Rig::new();
    let slow = FaultKind::Latency { ms: 5_000 };
    rig.whole
        .sandbox
        .fault(SimFault::on(SimOperation::Customers, slow).times(1));
    let mut peer = rig.whole.connect();
    peer.send(get("/msp/customers", ALL)).await;
    sleep(Duration::from_secs(1)).await;
    rig.write(
        "config.toml",
        &text(&rig.dir).replace(&caller("all", "role = \"operator\""), &caller("new", "")),
    );
    assert!(rig.reload().await);
    // Who is no caller any more is refused at once, even beside its own request.
    assert_eq!(rig.status(&get("/msp/customers", ALL)).await.0, 401);
    let new = get("/msp/customers", "x-api-key: k-new\r\n");
    let (status, note) = rig.status(&new).await;
    assert_eq!(
        (status, &*note),
        (200, "msp-gateway; fwd=uri-miss; stored; collapsed")
    );
    assert_eq!(peer.reply().await.unwrap().status, 200);
    assert_eq!(
        rig.whole.sandbox.counts().requests(SimOperation::Customers),
        1
    );
    // The connection goes on with the new settings.
    peer.send(get("/msp/customers", ALL)).await;
    assert_eq!(peer.reply().await.unwrap().status, 401);
}

/// A connection remembers the key that it sent last. What the key is good for is judged for each
/// request.
#[tokio::test(start_paused = true)]
async fn a_key_is_out_at_once_on_the_connection_that_sent_it() {
    let mut rig = Rig::new();
    let good = text(&rig.dir);
    let of = |more: &str| good.replace(&caller("all", "role = \"operator\""), more);
    let mut peer = rig.whole.connect();
    let mut seen = Vec::new();
    for (settings, expected) in [
        (good.clone(), 200),
        // Withdrawn, and given back.
        (of(&caller("other", "")), 401),
        (good.clone(), 200),
        // Given back with fewer rights.
        (of(&caller("all", "customers = [\"org_1\"]")), 200),
        // It expires in an hour: while the connection lasts, without a reload.
        (
            of(&caller("all", "expires = \"2026-11-20T13:00:00Z\"")),
            200,
        ),
    ] {
        rig.write("config.toml", &settings);
        rig.reload().await;
        // Twice, so that the second one finds it remembered.
        for _ in 0..2 {
            peer.send(get("/msp/customers?fields=id", ALL)).await;
            let reply = peer.reply().await.unwrap();
            assert_eq!(reply.status, expected, "{settings}");
            seen.push(String::from_utf8(reply.decoded()).unwrap());
        }
    }
    assert_ne!(seen[0], seen[6]);
    assert!(
        seen[6].contains("org_1") && !seen[6].contains("org_2"),
        "{}",
        seen[6]
    );
    assert_eq!(seen[0], seen[8]);
    // Asked now and then, so that the connection is not closed as idle.
    let mut last = 200;
    for _ in 0..90 {
        sleep(Duration::from_secs(60)).await;
        peer.send(get("/msp/customers?fields=id", ALL)).await;
        last = peer.reply().await.unwrap().status;
        if last != 200 {
            break;
        }
    }
    assert_eq!(last, 401);
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_survives() {
    let mut rig = Rig::new();
    let limited = caller("limited", "requests_per_minute = 60\n");
    let more = text(&rig.dir) + &limited;
    rig.write("config.toml", &more);
    assert!(rig.reload().await);

    let customers = get("/msp/customers", ALL);
    assert_eq!(rig.status(&customers).await.0, 200);
    let first = rig
        .whole
        .ask(search(ALL, "{\"max_returned_items\":30}"))
        .await
        .json();
    let token = first["next_page_key"].to_string();
    let limited = get("/msp/customers", "x-api-key: k-limited\r\n");
    while rig.status(&limited).await.0 == 200 {}
    // N-able's circuit opens; wiv's fallback key is in use since its first key was refused.
    rig.whole
        .sandbox
        .fault(SimFault::on(SimOperation::Invoices, FaultKind::DropBefore));
    for month in ["202607", "202608", "202609", "202610"] {
        let reply = rig
            .whole
            .ask(get(&format!("/v1/billing/{month}"), ALL))
            .await;
        assert!(reply.status >= 500);
    }
    assert_eq!(
        rig.whole
            .metric("vendor_circuit_state{vendor=\"nable\"}")
            .await,
        2.0
    );
    let calls = rig.whole.vendor_calls();
    let requests = rig
        .whole
        .metric("requests_total{caller=\"all\",route=\"customers\",status=\"200\"}")
        .await;

    rig.write(
        "config.toml",
        &more.replace("fresh = \"1m\"", "fresh = \"50s\""),
    );
    assert!(rig.reload().await);
    let (status, note) = rig.status(&customers).await;
    assert!(status == 200 && note.contains("; hit"), "{note}");
    let reply = rig
        .whole
        .ask(search(ALL, &format!("{{\"start_page_key\":{token}}}")))
        .await;
    assert_eq!(reply.status, 200, "a page token");
    assert_eq!(rig.status(&limited).await.0, 429, "the used rate");
    let status = rig.whole.ask_admin(get("/admin/status", "")).await.json();
    let limited = status["callers"]
        .as_array()
        .unwrap_or_else(|| panic!("{status}"))
        .iter()
        .find(|c| c["name"] == "limited");
    assert!(
        limited.is_some_and(|c| c["last_used"].is_string()),
        "{status}"
    );
    assert_eq!(
        rig.whole
            .metric("vendor_circuit_state{vendor=\"nable\"}")
            .await,
        2.0
    );
    let read_on = rig.whole.sandbox.counts().requests(SimOperation::Continue);
    assert!(
        rig.whole.vendor_calls() <= calls + read_on,
        "nothing was fetched again"
    );
    let now = rig
        .whole
        .metric("requests_total{caller=\"all\",route=\"customers\",status=\"200\"}")
        .await;
    assert_eq!(now, requests + 1.0, "counters go on");
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_not_presented_again_because_something_else_changed() {
    let mut rig = Rig::new();
    rig.write("wiv", "not-the-key");
    assert!(rig.reload().await);
    let customers = get("/msp/customers", ALL);
    assert_eq!(rig.status(&customers).await.0, 502);
    let calls = rig.whole.vendor_calls();
    rig.write("config.toml", &(text(&rig.dir) + &caller("new", "")));
    assert!(rig.reload().await);
    assert_eq!(rig.status(&customers).await.0, 502);
    assert_eq!(
        rig.whole.vendor_calls(),
        calls,
        "both keys are known to be refused"
    );
    // The right key is used at once; a failure is shared for a moment only.
    rig.write("wiv", WIV_KEY);
    assert!(rig.reload().await);
    sleep(Duration::from_secs(1)).await;
    let reply = rig.whole.ask(&customers).await;
    assert_eq!((reply.status, &*reply.code()), (200, ""));
}

/// A pair is not taken between its halves, a file not while it grows; but not for ever.
#[tokio::test(start_paused = true)]
async fn files_are_read_when_they_have_settled() {
    let mut rig = Rig::new();
    let begun = Instant::now();
    let passed = || Instant::now().saturating_duration_since(begun);
    let (writing, dir) = (Duration::from_millis(130), rig.dir.path().join("wiv"));
    let grow = async |times: usize| {
        for length in 1..=times {
            std::fs::write(&dir, "k".repeat(7 + length)).unwrap();
            sleep(writing).await;
        }
    };
    tokio::select! {
        () = rig.reloader.changed(&rig.whole.app) => panic!("read while it was written"),
        () = grow(6) => {}
    }
    rig.reloader.changed(&rig.whole.app).await;
    assert!(
        passed() < Duration::from_millis(1_200 + 500),
        "{:?}",
        passed()
    );
    // Seen, whatever came of it.
    rig.reloader.reload(&rig.whole.app).await;
    let begun = Instant::now();
    tokio::select! {
        () = rig.reloader.changed(&rig.whole.app) => {}
        () = grow(60) => panic!("never read"),
    }
    let took = Instant::now().saturating_duration_since(begun);
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn keys_rotate_by_their_files_alone() {
    let mut rig = Rig::new();
    // The vendor takes the second key only: the first was withdrawn.
    rig.write("wiv", "withdrawn");
    rig.write("wiv2", WIV_KEY);
    let begun = Instant::now();
    rig.reloader.changed(&rig.whole.app).await;
    assert!(Instant::now().saturating_duration_since(begun) < Duration::from_secs(1));
    assert!(rig.reload().await);
    assert_eq!(rig.status(&get("/msp/customers", ALL)).await.0, 200);
    let accepted = "vendor_credential_fallbacks_total{outcome=\"accepted\",vendor=\"wiv\"}";
    assert_eq!(rig.whole.metric(accepted).await, 1.0);
    let calls = rig.whole.vendor_calls();
    assert_eq!(calls, 2, "one refused, one taken");
    let token = rig
        .whole
        .ask(search(ALL, "{\"max_returned_items\":30}"))
        .await
        .json()["next_page_key"]
        .to_string();
    assert_eq!(
        rig.whole.sandbox.counts().requests(SimOperation::Search),
        1,
        "the refused key rests"
    );

    // The rotation ends: what is remembered under the account stays, tokens too.
    rig.write("wiv", WIV_KEY);
    rig.write("wiv2", "the-next-one");
    rig.reloader.changed(&rig.whole.app).await;
    assert!(rig.reload().await);
    let (status, note) = rig.status(&get("/msp/customers", ALL)).await;
    assert!(status == 200 && note.contains("; hit"), "{note}");
    let page = rig
        .whole
        .ask(search(ALL, &format!("{{\"start_page_key\":{token}}}")))
        .await;
    assert!(page.status == 200 || page.status == 400, "{page:?}");
    let everything = rig.whole.everything().await;
    crate::whole::assert_no_vendor_key(&everything, "rotation");
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_restart_is_said_line_by_line() {
    let (events, _listening) = Events::listen();
    let mut rig = Rig::new();
    let limits = "[limits]\nheader_timeout = \"9s\"\nidle_timeout = \"9s\"\nwrite_stall_timeout = \"9s\"\nconnections_max = 9\ndrain_delay = \"9s\"\ndrain_grace = \"9s\"\nrequest_timeout = \"9s\"\nbody_timeout = \"9s\"\n[cache]\nbytes_max = \"9MiB\"\n[log]\nlevel = \"warn\"\n";
    let changed = text(&rig.dir)
        .replace("public = \"127.0.0.1:0\"", "public = \"127.0.0.1:9\"")
        .replace("[wiv]", &format!("{limits}[wiv]\ncredential = \"another\""));
    let nable = changed.find("[nable]").unwrap();
    let customers = changed.find("[customers]").unwrap();
    let changed = format!(
        "{}[nable]\naccount_id = \"x\"\n{}",
        &changed[..nable],
        &changed[customers..]
    );
    rig.write(
        "config.toml",
        &changed.replace("[nable]\n", "[nable]\napi_key_env = \"\"\n"),
    );
    events.clear();
    assert!(rig.reload().await, "{}", events.text());
    let said: Vec<String> = events
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|event| event["message"] == "a change was not applied")
        .map(|event| event["line"].as_str().unwrap().to_owned())
        .collect();
    for setting in [
        "listen.public",
        "limits.header_timeout",
        "limits.idle_timeout",
        "limits.write_stall_timeout",
        "limits.connections_max",
        "limits.drain_delay",
        "limits.drain_grace",
        "cache.bytes_max",
        "wiv",
        "nable",
    ] {
        let about = said
            .iter()
            .filter(|line| line.starts_with(&format!("{setting}:")));
        assert_eq!(about.count(), 1, "{setting}: {said:?}");
    }
    assert_eq!(said.len(), 10, "{said:?}");
    // What needs none is in force: 9 s for a request.
    rig.whole
        .sandbox
        .fault(SimFault::on_any(FaultKind::Latency { ms: 60_000 }));
    let begun = Instant::now();
    assert_eq!(rig.status(&get("/msp/customers", ALL)).await.0, 504);
    assert_eq!(Instant::now().saturating_duration_since(begun).as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn open_mode_is_not_let_onto_an_address_that_others_reach() {
    let dir = tempfile::tempdir().unwrap();
    let outside = SETTINGS.replace("public = \"127.0.0.1:0\"", "public = \"0.0.0.0:9\"");
    let path = write(
        &dir,
        "config.toml",
        &format!("{outside}{}", caller("all", "")),
    );
    // Any variable that is there will do.
    let with_a_key = |text: String| text.replace("\"UNUSED\"", "\"PATH\"");
    let settings = config::from_text(
        "c",
        &with_a_key(std::fs::read_to_string(&path).unwrap()),
        [],
    )
    .unwrap();
    let whole = Whole::of(&settings, &settings.read_secrets().unwrap(), world());
    let mut reloader = Reloader::new(&path, &settings);
    write(
        &dir,
        "config.toml",
        &with_a_key(format!("auth.mode = \"open\"\n{SETTINGS}")),
    );
    let (events, _listening) = Events::listen();
    reloader.reload(&whole.app).await;
    assert!(events.text().contains("auth.mode"), "{}", events.text());
    assert_eq!(whole.ask(get("/msp/customers", "")).await.status, 401);
}

/// Values of which at least one is right, and another one than before, for almost every setting.
fn other_values(value: &str) -> Vec<String> {
    let number = value.parse::<i64>().ok();
    let near = number.map(|n| [n + 1, n - 1].map(|n| n.to_string()));
    let flag = value.parse::<bool>().ok().map(|flag| (!flag).to_string());
    let words = [
        "11s",
        "1s500ms",
        "open",
        "7m",
        "3h",
        "40d",
        "3MiB",
        "700KiB",
        "3GiB",
        "127.0.0.1:9",
        "https://x.example",
        "x-other",
        "warn",
        "another",
        "Europe/Berlin",
        "none",
        "http://127.0.0.1:9",
        "[\"a.example\"]",
        "[\"https://a.example\"]",
        "/var/lib/other",
        "0.25",
    ];
    let words = words.map(str::to_owned);
    near.into_iter()
        .flatten()
        .chain(flag)
        .chain(words)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn every_setting_is_taken_over_or_marked_as_needing_a_restart() {
    let text = SETTINGS.replace("\"UNUSED\"", "\"PATH\"") + &caller("all", "");
    let read = |variables: Vec<(String, String)>| config::from_text("c", &text, variables);
    let before = read(vec![]).unwrap();
    let whole = Whole::of(&before, &before.read_secrets().unwrap(), world());
    let mut untried = Vec::new();
    let mut restarts = 0;
    for setting in before.shown() {
        let path = &setting.path;
        // Names of variables and files change what is read, which has tests of its own. So does
        // the table of a store that is of another kind here: a change in it changes nothing.
        let elsewhere = ["callers", "links", "store.valkey"]
            .iter()
            .any(|name| path.starts_with(name));
        if elsewhere
            || ["_env", "_file", "client_auth"]
                .iter()
                .any(|end| path.ends_with(end))
        {
            continue;
        }
        let variable = format!("MSP_GATEWAY__{}", path.replace('.', "__").to_uppercase());
        let differs = |now: &config::Settings| {
            let now = now.shown();
            now.iter()
                .any(|s| s.path == *path && s.value != setting.value)
        };
        let other = other_values(&setting.value).into_iter().find_map(|value| {
            let now = read(vec![(variable.clone(), value)]).ok()?;
            differs(&now).then_some(now)
        });
        let Some(other) = other else {
            untried.push(path.clone());
            continue;
        };
        let later = whole
            .app
            .apply(&other, &other.read_secrets().unwrap())
            .unwrap();
        let vendor = path.split('.').next().unwrap();
        let about = |line: &String| {
            let subject = line.split(':').next().unwrap();
            subject == vendor || subject == path
        };
        let needs = config::needs_restart(path);
        assert_eq!(later.iter().any(about), needs, "{path}: {later:?}");
        restarts += usize::from(needs);
    }
    assert!(restarts >= 14, "{restarts}");
    assert_eq!(untried, Vec::<String>::new());
}

/// Every setting of the file with each of these wrong values.
fn broken(good: &str) -> Vec<(String, String)> {
    let whole: Table = toml::from_str(good).unwrap();
    let wrong = || {
        vec![
            Value::from(-1),
            Value::from(1.5),
            Value::from(format!("{CANARY}\u{7}\n")),
            Value::Array(vec![Value::from(format!("{CANARY}\u{7}"))]),
            Value::Table(Table::from_iter([("odd".to_owned(), Value::from(CANARY))])),
        ]
    };
    let mut all = Vec::new();
    for (section, value) in &whole {
        let Value::Table(table) = value else { continue };
        for key in table.keys() {
            for value in wrong() {
                let mut text = whole.clone();
                text[section][key] = value;
                let setting = format!("{section}.{key}");
                all.push((setting, toml::to_string(&text).unwrap()));
            }
        }
        for (neighbour, value) in [("api_key", Value::from(CANARY)), ("token", Value::from(7))] {
            let mut text = whole.clone();
            let table = text[section].as_table_mut().unwrap();
            table.insert(neighbour.to_owned(), value);
            let setting = format!("{section}.{neighbour}");
            all.push((setting, toml::to_string(&text).unwrap()));
        }
    }
    // Texts that are no TOML, at each of some places.
    for at in (0..good.len()).step_by(good.len() / 100) {
        if good.is_char_boundary(at) {
            let text = format!("{}\n= {CANARY}\n{}", &good[..at], &good[at..]);
            all.push((String::new(), text));
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn broken_settings_change_nothing_and_say_so_in_one_line() {
    let (events, _listening) = Events::listen();
    let mut rig = Rig::new();
    let customers = get("/msp/customers", ALL);
    assert_eq!(rig.status(&customers).await.0, 200);
    let all = broken(&text(&rig.dir));
    assert!(all.len() >= 200, "{}", all.len());
    let mut more: Vec<(String, String)> = vec![
        (String::new(), String::new()),
        (
            "callers".into(),
            SETTINGS.replace("UNUSED", "NOT_SET_ANYWHERE"),
        ),
    ];
    let missing = text(&rig.dir).replace("/wiv\"", "/no-such-file\"");
    more.push(("wiv.api_key_file".into(), missing));
    let count = all.len() + more.len();
    for (setting, text) in all.into_iter().chain(more) {
        rig.write("config.toml", &text);
        events.clear();
        rig.reloader.reload(&rig.whole.app).await;
        let said = events.text();
        let lines: Vec<serde_json::Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|event: &serde_json::Value| {
                event["level"] != "TRACE" && event["level"] != "DEBUG"
            })
            .collect();
        assert_eq!(lines.len(), 1, "{setting}: {said}");
        let why = lines[0]["why"].as_str().unwrap();
        assert!(
            why.contains(&setting) && !why.contains('\n'),
            "{setting}: {why}"
        );
        assert!(
            !said.contains("cAnArY") && !said.contains("7f3a9c"),
            "{said}"
        );
        let (status, note) = rig.status(&customers).await;
        assert!(status == 200 && note.contains("; hit"), "{setting}");
    }
    let refused = rig
        .whole
        .metric("config_reloads_total{outcome=\"refused\"}")
        .await;
    assert_eq!(refused, count as f64);
    assert_eq!(
        rig.whole
            .metric("config_reloads_total{outcome=\"applied\"}")
            .await,
        0.0
    );
    println!("reload: {count} broken settings refused");
    // And a good file is taken again.
    rig.write("config.toml", &text(&rig.dir));
    assert!(rig.reload().await);
}

#[tokio::test(start_paused = true)]
async fn reloads_amid_traffic_fail_no_request() {
    let rig = Rig::new();
    let whole = Arc::new(rig.whole);
    let mut reloader = rig.reloader;
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..8_u64 {
        let whole = whole.clone();
        tasks.spawn(async move {
            let mut dice = fastrand::Rng::with_seed(caller);
            let mut peer = whole.connect();
            for _ in 0..200 {
                let question = match dice.u8(0..3) {
                    0 => get("/msp/customers", ALL),
                    1 => get("/v1/billing/202609", ALL),
                    _ => search(ALL, "{\"max_returned_items\":10}"),
                };
                peer.send(&question).await;
                let reply = peer.reply().await.expect("the connection stays");
                assert_eq!(reply.status, 200, "{question}");
                sleep(Duration::from_millis(dice.u64(0..200))).await;
            }
        });
    }
    let good = text(&rig.dir);
    for n in 0..100 {
        sleep(Duration::from_millis(150)).await;
        let next = match n % 3 {
            0 => good.clone() + &caller("more", ""),
            1 => "broken".to_owned(),
            _ => good.replace("fresh = \"1m\"", "fresh = \"2s\""),
        };
        write(&rig.dir, "config.toml", &next);
        reloader.reload(&whole.app).await;
    }
    while let Some(end) = tasks.join_next().await {
        end.unwrap();
    }
    assert_eq!(
        whole
            .metric("config_reloads_total{outcome=\"refused\"}")
            .await,
        33.0
    );
}

#[tokio::test(start_paused = true)]
async fn the_page_for_people_comes_and_goes() {
    let mut rig = Rig::new();
    let with = text(&rig.dir);
    let without = match with.contains("[listen]") {
        true => with.replacen("[listen]", "[listen]\ndocs = false", 1),
        false => format!("[listen]\ndocs = false\n{with}"),
    };
    for (settings, status) in [(&without, 404), (&with, 200), (&without, 404)] {
        rig.write("config.toml", settings);
        assert!(rig.reload().await);
        // Without a key: the other two are there in any case.
        for (path, status) in [("/docs", status), ("/openapi.json", 200), ("/healthz", 200)] {
            assert_eq!(rig.status(&get(path, "")).await.0, status, "{path}");
        }
    }
}
