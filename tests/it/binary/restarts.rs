//! A restart costs nothing: the running program is killed amid paging, and what it kept goes on.

use std::path::Path;

use base64::Engine as _;
use msp_gateway::sandbox::{NABLE_KEY, WIV_KEY};
use rustix::process::Signal;

use crate::kit::{continued, first};
use crate::process::{Answer, Process, World, after, everyone, key, page_of};

const CASES: usize = 3_000;

fn start(state: &Path) -> World {
    let state = state.to_str().unwrap();
    World::start(CASES, &everyone("reader"), &[("STATE_DIRECTORY", state)])
}

/// Ends the gateway by a signal and starts it again.
fn restart(world: &mut World, state: &Path, signal: Signal) {
    world.gateway.signal(signal);
    let config = world.config();
    let environment = [
        ("WIV_CANARY_KEY", WIV_KEY),
        ("STATE_DIRECTORY", state.to_str().unwrap()),
    ];
    // Begun while the one before may still have the file open: it waits for it.
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    let next = Process::start(&arguments, &environment);
    std::mem::replace(&mut world.gateway, next).ended();
    world.gateway.until_stdout("admin http://");
    let printed = world.gateway.stdout();
    world.public = after(&printed, "public ");
    world.admin = after(&printed, "admin ");
}

async fn store_is_ok(world: &World) {
    let ready = |answer: &Answer| answer.json()["store"] == "ok";
    world.until_admin("/readyz", ready).await;
}

/// What the running process did not get from its store in time.
async fn late(world: &World) -> usize {
    let url = format!("{}/metrics", world.admin);
    let said = world.web.get(&url).await;
    let said = said.text();
    let lines = said.lines().filter(|line| {
        line.starts_with("msp_gateway_store_requests_total") && line.contains("\"late\"")
    });
    let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
    counts.sum()
}

/// How often it is restarted by each signal; `STORE_RESTARTS` in the environment asks for more.
fn rounds() -> usize {
    let asked = std::env::var("STORE_RESTARTS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paging_goes_on_over_kills_without_a_call_for_what_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let mut world = start(state.path());
    let expected = world.vendors.cases("").await;
    for signal in [Signal::KILL, Signal::TERM] {
        let mut exact = 0;
        for round in 0..rounds() {
            store_is_ok(&world).await;
            let head = world.search("reader", "", &first(250, "")).await;
            let (mut rows, mut token) = page_of(&head);
            let mut read = vec![(first(250, ""), head)];
            // Somewhere in the middle, another place each time.
            for _ in 0..1 + round % 9 {
                let body = continued(&token.unwrap(), None);
                let answer = world.search("reader", "", &body).await;
                let (more, next) = page_of(&answer);
                rows.extend(more);
                token = next;
                read.push((body, answer));
            }
            let written_late = late(&world).await;
            restart(&mut world, state.path(), signal);
            let before = world.vendors.counts().await["operations"].clone();
            store_is_ok(&world).await;
            let mut again = Vec::new();
            for (body, _) in &read {
                again.push(world.search("reader", "", body).await);
            }
            let after = world.vendors.counts().await["operations"].clone();
            // On a machine so busy that the store takes 50 ms, nobody waits for it, and what it did
            // not write or read in time costs calls.
            let late = written_late + late(&world).await;
            if late == 0 {
                exact += 1;
                for ((_, answer), again) in read.iter().zip(&again) {
                    assert!(
                        again.body == answer.body,
                        "{signal:?} {round}: another page"
                    );
                }
                assert!(
                    after == before,
                    "{signal:?} {round}: a call for what was kept"
                );
            }
            while let Some(next) = token {
                let answer = world
                    .search("reader", "", &continued(&next, Some(500)))
                    .await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                let (more, next) = page_of(&answer);
                rows.extend(more);
                token = next;
            }
            assert!(rows == expected, "{signal:?} {round}: {} rows", rows.len());
        }
        println!(
            "{signal:?}: {exact} of {} rounds without a late store",
            rounds()
        );
    }
    world.hold().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_in_the_file_can_be_read() {
    let state = tempfile::tempdir().unwrap();
    let mut world = start(state.path());
    store_is_ok(&world).await;
    let customers = world.get("reader", "/msp/customers").await;
    let (rows, token) = page_of(&world.search("reader", "", &first(500, "")).await);
    let on = continued(&token.unwrap(), None);
    assert_eq!(world.search("reader", "", &on).await.status, 200);
    assert_eq!(world.get("reader", "/v1/billing/202610").await.status, 200);
    restart(&mut world, state.path(), Signal::TERM);
    store_is_ok(&world).await;
    let again = world.get("reader", "/msp/customers").await;
    assert_eq!(again.body, customers.body, "it was kept");

    let file = std::fs::read(state.path().join("store-1.redb")).unwrap();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let mut canaries = vec![WIV_KEY.to_owned(), NABLE_KEY.to_owned(), key("reader")];
    // The head of every scroll id, in bytes and as the vendor writes it.
    canaries.push("include_context_uuid".to_owned());
    canaries.extend(world.secrets.lock().unwrap().iter().cloned());
    let list = customers.json();
    let list = list.as_array().or_else(|| list["data"].as_array());
    for customer in list.unwrap() {
        for member in ["customer_id", "id", "customer_name", "name"] {
            let text = customer[member].as_str().filter(|text| text.len() >= 5);
            canaries.extend(text.map(str::to_owned));
        }
    }
    canaries.extend(rows.iter().take(20).map(|row| row[..40].to_owned()));
    assert!(canaries.len() > 25, "{canaries:?}");
    for canary in canaries {
        for spelt in [canary.clone(), encode(&canary), hex(&canary)] {
            let found = memchr::memmem::find(&file, spelt.as_bytes());
            assert_eq!(found, None, "{spelt}");
        }
    }
    // The commands read it with the secrets of the settings, and remove it.
    let store = |word: &'static str| {
        let config = world.config();
        let arguments = ["store", word, "--config", config.to_str().unwrap()];
        let environment = [
            ("WIV_CANARY_KEY", WIV_KEY),
            ("STATE_DIRECTORY", state.path().to_str().unwrap()),
        ];
        Process::run(&arguments, &environment)
    };
    for word in ["check", "wipe"] {
        let ended = store(word);
        assert_eq!(ended.code, Some(1), "{}", ended.stdout);
        assert!(ended.stderr.contains("stop it first"), "{}", ended.stderr);
    }
    world.gateway.signal(Signal::TERM);
    world.gateway.until_stderr("\"drained\"", 1);
    let checked = loop {
        let ended = store("check");
        if ended.code == Some(0) {
            break ended.stdout;
        }
    };
    let good = ["intact; 2 answers, 1 searches", "; 0 records do not open"];
    assert!(good.iter().all(|part| checked.contains(part)), "{checked}");
    assert_eq!(store("wipe").code, Some(0));
    assert!(
        store("check")
            .stdout
            .contains("there is no store in this directory")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_changes_nothing_for_callers_and_loses_nothing() {
    let state = tempfile::tempdir().unwrap();
    let mut world = start(state.path());
    store_is_ok(&world).await;
    let list = |n: usize| first(500, &format!(",\"n\":{n}"));
    let kept = world.search("reader", "", &list(0)).await;
    let (rows, _) = page_of(&kept);
    // No file of the next process may exceed 4 MiB: as a full disk, from the first write beyond it.
    world.gateway.signal(Signal::TERM);
    let mut limited = std::process::Command::new("sh");
    let shell = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\"";
    let config = world.config();
    limited
        .args([
            "-c",
            shell,
            env!("CARGO_BIN_EXE_msp-gateway"),
            "serve",
            "--config",
        ])
        .arg(&config)
        .env_clear()
        .env("WIV_CANARY_KEY", WIV_KEY)
        .env("STATE_DIRECTORY", state.path());
    let limited = Process::spawn(limited);
    std::mem::replace(&mut world.gateway, limited).ended();
    world.gateway.until_stdout("admin http://");
    let printed = world.gateway.stdout();
    world.public = after(&printed, "public ");
    world.admin = after(&printed, "admin ");
    store_is_ok(&world).await;
    let mut asked = 0;
    loop {
        asked += 1;
        assert!(asked < 200, "the disk is never full");
        let answer = world.search("reader", "", &list(asked)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(page_of(&answer).0, rows);
        let ready = world.web.get(&format!("{}/readyz", world.admin)).await;
        assert_eq!(ready.status, 200);
        if ready.json()["store"] == "away" {
            break;
        }
    }
    world.gateway.until_stderr("the store is away", 1);
    let full = std::fs::metadata(state.path().join("store-1.redb")).unwrap();
    assert!(full.len() <= 4 << 20, "{}", full.len());
    // There is room again for the next process, and what was kept is there.
    restart(&mut world, state.path(), Signal::TERM);
    store_is_ok(&world).await;
    let before = world.vendors.counts().await["operations"].clone();
    let again = world.search("reader", "", &list(0)).await;
    assert_eq!(again.body, kept.body);
    assert_eq!(world.vendors.counts().await["operations"], before);
    world.hold().await;
}
