//! The fault matrix: what each vendor fault makes of each read, in each state of the cache.
//!
//! `matrix.txt` is the whole statement. Its first part names the faults, as the sandbox's control
//! takes them; the second says, for each fault and read, what a caller is answered with nothing
//! cached (cold), with a fresh answer, with one that is stale, and with one that is good on errors
//! only (old). Every cell is a gateway of its own, asked through its whole stack in paused time.
//! `MSP_MATRIX_PRINT=1` prints the second part as it is, to be read before it is believed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use msp_gateway::clock::{Duration, sleep};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use crate::whole::{
    ALL, Events, Reply, SETTINGS, Whole, assert_no_vendor_key, caller, get, search, secrets, world,
};

const TABLE: &str = include_str!("matrix.txt");
const READS: [&str; 6] = [
    "customers",
    "search",
    "continuation",
    "billing",
    "invoices",
    "overview",
];
const STATES: [&str; 4] = ["cold", "fresh", "stale", "old"];
/// Ages that each state stands for; lives are 1 m fresh, 1 m stale, 1 h on errors.
const AGES: [u64; 4] = [0, 10, 80, 200];
/// After a fault has gone: beyond every memory of it (soft failures are remembered for 2 m).
const FORGOTTEN: Duration = Duration::from_secs(300);

struct Table {
    faults: Vec<(&'static str, &'static str)>,
    cells: BTreeMap<(String, String), Vec<String>>,
}

fn table() -> Table {
    let mut faults = Vec::new();
    let mut cells = BTreeMap::new();
    for line in TABLE.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        match columns[..] {
            [name, fault] => faults.push((name, fault)),
            [name, reads, ..] if columns.len() == 6 => {
                for read in reads.split(' ') {
                    let key = (name.to_owned(), read.to_owned());
                    let stated = columns[2..].iter().map(|cell| (*cell).to_owned()).collect();
                    assert!(cells.insert(key, stated).is_none(), "stated twice: {line}");
                }
            }
            _ => panic!("not a line of the matrix: {line}"),
        }
    }
    Table { faults, cells }
}

fn gateway() -> Whole {
    let text = format!(
        "{SETTINGS}read_ahead_pages = 0\nwalk_pages_max = 40\n{}",
        caller("all", "role = \"operator\"")
    );
    Whole::with(&text, &secrets(), world())
}

/// Switches a fault on, as `POST /__sandbox/faults` takes it.
pub(crate) async fn break_vendors(whole: &Whole, fault: &str) {
    let (mut near, far) = duplex(64 * 1024);
    let serving = tokio::spawn(whole.sandbox.clone().serve_io(far));
    let request = format!(
        "POST /__sandbox/faults HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{fault}",
        fault.len()
    );
    near.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{fault}: {answer}");
    serving.await.unwrap();
}

/// The question of a read. A continuation needs its first page.
pub(crate) async fn question(whole: &Whole, read: &str) -> String {
    match read {
        "customers" => get("/msp/customers", ALL),
        "search" => search(ALL, "{\"max_returned_items\":25}"),
        "continuation" => {
            let first = whole.ask(search(ALL, "{\"max_returned_items\":25}")).await;
            let token = first.json()["next_page_key"]["scroll_id"].clone();
            search(
                ALL,
                &format!(
                    "{{\"max_returned_items\":100,\"start_page_key\":{{\"scroll_id\":{token}}}}}"
                ),
            )
        }
        "billing" => {
            let contract = whole.sandbox.contracts()[0].id.clone();
            get(&format!("/v1/billing/202609/{contract}"), ALL)
        }
        "invoices" => get("/v1/billing/202609", ALL),
        "overview" => get("/v1/overview?timeframe=202609", ALL),
        _ => panic!("{read}"),
    }
}

/// An answer in the table's words.
pub(crate) fn told(read: &str, reply: &Reply) -> String {
    if reply.status != 200 {
        let after = match reply.header("retry-after") {
            "" => String::new(),
            seconds => format!(" after {seconds}"),
        };
        return format!("{} {}{after}", reply.status, reply.code());
    }
    let status = reply.header("cache-status");
    let mut words: Vec<&str> = Vec::new();
    for part in status.split("; ").skip(1) {
        match part.strip_prefix("detail=") {
            Some(detail) => words.push(detail),
            None if part.starts_with("ttl=") || part == "stored" => {}
            None => words.push(part),
        }
    }
    let mut out = format!("200 {}", words.join(" "));
    if read == "overview" {
        let body = reply.json();
        for (short, part) in [
            ("c", "wiv.customers"),
            ("w", "wiv.cases"),
            ("n", "nable.billing"),
        ] {
            let part = &body["parts"][part];
            let said = part["code"].as_str().or(part["status"].as_str()).unwrap();
            out.push_str(&format!(" {short}:{said}"));
        }
    }
    out
}

/// What one cell is answered with. Then the fault goes, and if the read does not become whole, the
/// cell says so.
async fn cell(fault: &str, read: &str, state: usize) -> String {
    let (events, _listening) = Events::listen();
    let whole = gateway();
    let question = question(&whole, read).await;
    if state > 0 {
        let filled = whole.ask(&question).await;
        assert_eq!(filled.status, 200, "{read} with healthy vendors");
        sleep(Duration::from_secs(AGES[state])).await;
    }
    break_vendors(&whole, fault).await;
    let mut said = told(read, &whole.ask(&question).await);
    // Refreshes behind the answer fail too; let them.
    sleep(Duration::from_secs(60)).await;
    whole.sandbox.clear_faults();
    sleep(FORGOTTEN).await;
    let context = format!("{fault} {read} {}", STATES[state]);
    if !is_whole(&whole, read, &question).await {
        // The first call after an outage is a probe, and others beside it may be refused.
        sleep(Duration::from_secs(1)).await;
        if !is_whole(&whole, read, &question).await {
            said.push_str(", and for long");
        }
    }
    assert_eq!(whole.metrics.panics.get(), 0, "{context}");
    let mut all = whole.everything().await;
    all.push_str(&events.text());
    assert_no_vendor_key(&all, &context);
    said
}

async fn is_whole(whole: &Whole, read: &str, question: &str) -> bool {
    let reply = whole.ask(question).await;
    // Problem codes of an overview's parts are the only words with an underscore.
    reply.status == 200 && !told(read, &reply).contains('_')
}

fn run(cells: &[(&'static str, &'static str, &'static str)]) -> Vec<Vec<String>> {
    let next = AtomicUsize::new(0);
    let told = Mutex::new(vec![Vec::new(); cells.len()]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((_, fault, read)) = cells.get(at) else {
                        return;
                    };
                    let row = (0..STATES.len())
                        .map(|state| {
                            let runtime = tokio::runtime::Builder::new_current_thread()
                                .enable_all()
                                .start_paused(true)
                                .build()
                                .unwrap();
                            runtime.block_on(cell(fault, read, state))
                        })
                        .collect();
                    told.lock().unwrap()[at] = row;
                }
            });
        }
    });
    told.into_inner().unwrap()
}

#[test]
fn every_vendor_fault_has_its_stated_answer() {
    let table = table();
    let rows: Vec<_> = table
        .faults
        .iter()
        .flat_map(|(name, fault)| READS.map(|read| (*name, *fault, read)))
        .collect();
    let told = run(&rows);
    if std::env::var_os("MSP_MATRIX_PRINT").is_some() {
        print(&rows, &told);
        return;
    }
    let mut wrong = Vec::new();
    for ((name, _, read), told) in rows.iter().zip(&told) {
        let stated = table.cells.get(&((*name).to_owned(), (*read).to_owned()));
        let as_stated = |stated: &Vec<String>| {
            stated.len() == told.len() && stated.iter().zip(told).all(|(s, t)| covers(s, t))
        };
        if !stated.is_some_and(as_stated) {
            wrong.push(format!("{name} | {read}: stated {stated:?}, told {told:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(table.cells.len(), rows.len(), "cells of no fault or read");
    println!(
        "matrix: {} faults, {} cells as stated",
        table.faults.len(),
        rows.len() * STATES.len()
    );
    assert!(table.faults.len() >= 40 && rows.len() * STATES.len() >= 720);
}

/// Whether a stated cell covers what was told.
fn covers(stated: &str, told: &str) -> bool {
    stated.split(" / ").any(|one| match one.split_once('*') {
        None => one == told,
        Some((before, after)) => {
            let number = told
                .strip_prefix(before)
                .and_then(|t| t.strip_suffix(after));
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        }
    })
}

/// The second part; reads with the same answers share a line.
fn print(rows: &[(&'static str, &'static str, &'static str)], told: &[Vec<String>]) {
    for (rows, told) in rows.chunks(READS.len()).zip(told.chunks(READS.len())) {
        let mut lines: Vec<(Vec<&str>, String)> = Vec::new();
        for ((_, _, read), told) in rows.iter().zip(told) {
            let told = told.join(" | ");
            match lines.iter_mut().find(|(_, other)| *other == told) {
                Some((reads, _)) => reads.push(read),
                None => lines.push((vec![read], told)),
            }
        }
        for (reads, told) in lines {
            println!("{} | {} | {told}", rows[0].0, reads.join(" "));
        }
    }
}
