//! `msp-gateway demo`: what it prints works when pasted.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use rustix::process::Signal;

use crate::process::{Process, Web, after};

/// The words of a line, as a shell reads them: enough of its quoting for what the demo prints.
fn words(line: &str, key: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "an open quote in {line}");
    words.extend(word);
    let words = words.into_iter().map(|word| word.replace("$KEY", key));
    words.take_while(|word| word != "|").collect()
}

/// What a `curl` line asks: method, address, headers, body.
type Asked = (String, String, Vec<(String, String)>, String);

fn asked(line: &str, key: &str) -> Asked {
    let (mut method, mut url, mut body) = (None, String::new(), String::new());
    let mut headers: Vec<(String, String)> = Vec::new();
    let words = words(line, key);
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        match &*word {
            "-s" | "-si" | "-sN" => {}
            "-X" => method = words.next(),
            "-H" => {
                let header = words.next().unwrap();
                let (name, value) = header.split_once(": ").unwrap();
                headers.push((name.to_lowercase(), value.to_owned()));
            }
            "-d" => {
                body = words.next().unwrap();
                method.get_or_insert("POST".to_owned());
            }
            other => {
                assert!(other.starts_with("http://") && url.is_empty(), "{line}");
                url = other.to_owned();
            }
        }
    }
    (method.unwrap_or("GET".to_owned()), url, headers, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_printed_line_answers_and_ctrl_c_ends_everything() {
    let any = "127.0.0.1:0";
    let demo = Process::start(&["demo", "--public", any, "--admin", any], &[]);
    demo.until_stdout("Ctrl-C ends everything.");
    let printed = demo.stdout();
    let key = after(&printed, "\nKEY=");
    let lines: Vec<&str> = printed.lines().filter(|l| l.starts_with("curl ")).collect();
    let web = Web::new();
    let mut hosts = std::collections::BTreeSet::new();
    let mut targets = String::new();
    for line in &lines {
        let (method, url, headers, body) = asked(line, &key);
        let headers: Vec<_> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        let answer = web.send(&method, &url, &headers, &body).await;
        assert_eq!(answer.status, 200, "{line}: {}", answer.text());
        assert!(answer.whole && !answer.body.is_empty(), "{line}");
        let (host, target) = url["http://".len()..].split_once('/').unwrap();
        hosts.insert(host.to_owned());
        targets.push_str(&format!("{method} /{target}\n"));
    }
    // Every public route is there.
    for route in [
        "GET /msp/customers",
        "POST /v2/cases/msp/search",
        "QUERY /v2/cases/msp/search",
        "GET /v1/cases/export",
        "GET /v1/billing/",
        "POST /ws/rest/V1/PSA_API/PSABillableServices/-/",
        "POST /ws/rest/V1/PSA_API/InvoicesReady/-/",
        "GET /v1/overview",
        "GET /openapi.json",
        "GET /healthz",
        "GET /metrics",
        "GET /readyz",
        "GET /admin/status",
    ] {
        assert!(targets.contains(route), "no {route} in {targets}");
    }
    // Pasted for real. N-able is down by now: the last line was run.
    let vendors = after(&printed, "simulated vendors ");
    let up = "{\"clear\":true}";
    let cleared = web
        .send("POST", &format!("{vendors}/__sandbox/faults"), &[], up)
        .await;
    assert_eq!(cleared.status, 200);
    for line in &lines {
        let text = pasted(&key, line);
        let shown = !line.starts_with("curl -si") || text.starts_with("HTTP/1.1 200 ");
        assert!(shown, "{line}: {text}");
        // A terminal's next prompt stands on a line of its own, and nobody scrolls back.
        let bytes = text.len();
        assert!(text.ends_with('\n'), "{line}: {text}");
        assert!((2..1500).contains(&bytes), "{line}: {bytes} bytes");
        // curl 7.68 has no such option.
        assert!(!line.contains("--json"), "{line}");
    }
    demo.signal(Signal::INT);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(hosts.len(), 3, "{hosts:?}");
    for host in hosts {
        TcpListener::bind(&host).unwrap_or_else(|why| panic!("{host} is not free: {why}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_and_named_origins_may_ask() {
    let any = "127.0.0.1:0";
    let more = "http://localhost:3000";
    let demo = Process::start(
        &[
            "demo",
            "--public",
            any,
            "--admin",
            any,
            "--cors-origin",
            more,
        ],
        &[],
    );
    demo.until_stdout("Ctrl-C ends everything.");
    let printed = demo.stdout();
    let gateway = after(&printed, "gateway ");
    let dashboard = after(&printed, "dashboard ");
    let key = after(&printed, "\nKEY=");
    let web = Web::new();
    // A page on a port of its own, which knows where to ask and with which key.
    let page = web.get(&format!("{dashboard}/")).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("dashboard.js"));
    assert!(page.header("content-security-policy").contains(&*gateway));
    let config = web.get(&format!("{dashboard}/config.json")).await.json();
    assert_eq!(
        (&config["gateway"], &config["key"]),
        (&gateway.clone().into(), &key.into())
    );
    // Its origin, both spellings of it, and the named one may ask; others may not.
    let port = dashboard.rsplit(':').next().unwrap();
    let localhost = format!("http://localhost:{port}");
    for (origin, allowed) in [
        (&*dashboard, true),
        (&*localhost, true),
        (more, true),
        ("http://localhost:3001", false),
    ] {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,x-api-key"),
        ];
        let url = format!("{gateway}/v2/cases/msp/search");
        let answer = web.send("OPTIONS", &url, &headers, "").await;
        let told = if allowed { origin } else { "" };
        assert_eq!(answer.header("access-control-allow-origin"), told);
        assert_eq!(answer.status == 204, allowed, "{origin}");
    }
    // An origin that is none is wrong usage.
    let wrong = [
        "demo",
        "--public",
        any,
        "--admin",
        any,
        "--cors-origin",
        "localhost:3000/",
    ];
    let ended = Process::run(&wrong, &[]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("such as http://localhost:3000"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_occupied_port_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let any = "127.0.0.1:0";
    let lines: [(&[&str], &str); 6] = [
        (&["demo", "--public", &address, "--admin", any], "--public"),
        (&["demo", "--public", any, "--admin", &address], "--admin"),
        (
            &[
                "demo",
                "--public",
                any,
                "--admin",
                any,
                "--dashboard",
                &address,
            ],
            "--dashboard",
        ),
        (
            &[
                "demo",
                "--public",
                any,
                "--admin",
                any,
                "--dashboard",
                "0.0.0.0:0",
            ],
            "loopback",
        ),
        (&["sandbox", "--listen", &address], "--listen"),
        (
            &["demo", "--public", "0.0.0.0:0", "--admin", any],
            "loopback",
        ),
    ];
    for (arguments, word) in lines {
        let ended = Process::run(arguments, &[]);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
}

/// Runs a line of the demo in a shell. Returns what it printed.
fn pasted(key: &str, line: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("KEY={key}\n{line}")]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        shell.env_remove(name);
    }
    let ended = Process::spawn(shell).ended();
    assert_eq!(ended.code, Some(0), "{line}: {}", ended.stderr);
    ended.stdout
}

#[test]
fn three_gateways_page_one_list_for_one_search() {
    let any = "127.0.0.1:0";
    let three = ["demo", "--public", any, "--admin", any, "--replicas", "3"];
    let path = std::env::var("PATH").unwrap();
    let demo = Process::start(&three, &[("PATH", &path)]);
    demo.until_stdout("Ctrl-C ends everything.");
    let printed = demo.stdout();
    let key = after(&printed, "\nKEY=");
    let (_, fleet) = printed.split_once("# one list over all gateways").unwrap();
    let lines: Vec<&str> = fleet.lines().skip(1).take(3).collect();
    let searches = |line: &str| -> u64 {
        let said = pasted(&key, line);
        said.trim().rsplit(':').next().unwrap().parse().unwrap()
    };
    let asked_before = searches(lines[0]);
    let pages = pasted(&key, lines[1]);
    let asked_after = searches(lines[2]);
    // Three gateways, three different pages, one search at the vendor.
    let mut firsts = std::collections::BTreeSet::new();
    let mut gateways = std::collections::BTreeSet::new();
    for page in pages.lines() {
        let (gateway, first) = page.split_once(": first ").unwrap();
        assert!(first.contains("\"case_id\":\"CASE-"), "{pages}");
        gateways.insert(gateway);
        firsts.insert(first);
    }
    assert_eq!((gateways.len(), firsts.len()), (3, 3), "{pages}");
    assert_eq!(asked_after - asked_before, 1, "{pages}");
    let engine = after_word(&printed, "kept in");
    demo.signal(Signal::INT);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    TcpListener::bind(&*engine).unwrap_or_else(|why| panic!("{engine} is not free: {why}"));

    // A demo that is killed cannot end its server, and yet the server ends.
    let demo = Process::start(&three, &[("PATH", &path)]);
    demo.until_stdout("Ctrl-C ends everything.");
    let engine = after_word(&demo.stdout(), "kept in");
    assert!(TcpStream::connect(&*engine).is_ok());
    demo.signal(Signal::KILL);
    assert_eq!(demo.ended().code, None);
    while TcpStream::connect(&*engine).is_ok() {
        std::thread::yield_now();
    }

    // Without a server on the path, one line says how to get one.
    let ended = Process::run(&three, &[("PATH", "/nowhere")]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let [line] = &ended.stderr.lines().collect::<Vec<_>>()[..] else {
        panic!("{}", ended.stderr)
    };
    assert!(line.contains("install one"), "{line}");
}

/// The address in the line of the demo that begins with `what`.
fn after_word(printed: &str, what: &str) -> String {
    let line = printed.lines().find(|line| line.starts_with(what)).unwrap();
    let mut words = line.split([' ', ',']).filter(|word| word.contains(':'));
    words.next().unwrap().to_owned()
}
