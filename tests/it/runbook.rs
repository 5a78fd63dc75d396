//! What the operators' documents name is there: settings, metrics, members of `/admin/status`,
//! problem codes and state words. An operator types these names at three in the morning.

use std::collections::BTreeSet;

use msp_gateway::problem::Code;
use serde_json::Value;

use crate::whole::{ALL, SETTINGS, Whole, caller, get, search, secrets, world};

const DOCUMENTS: [(&str, &str); 3] = [
    (
        "docs/operations.md",
        include_str!("../../docs/operations.md"),
    ),
    ("deploy/README.md", include_str!("../../deploy/README.md")),
    ("deploy/METRICS.md", include_str!("../../deploy/METRICS.md")),
];
const METRICS: &str = include_str!("../../deploy/METRICS.md");
const FAULTS: &str = include_str!("../../src/upstream/error.rs");
/// Where attributes of spans are given.
const SPANS: [&str; 4] = [
    include_str!("../../src/exchange/record.rs"),
    include_str!("../../src/middleware/outbound/count.rs"),
    include_str!("../../src/traces/span.rs"),
    include_str!("../../src/snapshot/walk.rs"),
];
const REFERENCE: &str = include_str!("../../config.toml");
const STATE_WORDS: &str = include_str!("../../docs/state-words.md");
/// Names of others that look like ours: of certificates, Kubernetes and Prometheus.
const OTHERS: [&str; 4] = ["tls.crt", "tls.key", "spec.replicas", "runbook_url"];
/// Where files are that a document may name alone.
const FOLDERS: [&str; 3] = ["", "deploy", "deploy/kubernetes"];

/// Every path below a value, and the path of every table and list on the way.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (format!("{at}.{name}"), value))
            .collect(),
        Value::Array(items) => items.iter().map(|item| (at.to_owned(), item)).collect(),
        _ => return,
    };
    for (path, value) in inner {
        found.insert(path.trim_start_matches('.').to_owned());
        paths(value, &path, found);
    }
}

/// The settings of the reference, those that are commented out included.
fn settings() -> BTreeSet<String> {
    let key = |rest: &&str| {
        let name = rest.split(" = ").next().unwrap_or("");
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        rest.starts_with("[[") || (rest.contains(" = ") && plain)
    };
    let lines = REFERENCE.lines().map(|line| {
        let commented = line.strip_prefix('#').filter(key);
        commented.unwrap_or(line)
    });
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let table: toml::Table = toml::from_str(&text).unwrap();
    let mut found = BTreeSet::new();
    paths(&serde_json::to_value(table).unwrap(), "", &mut found);
    found
}

/// What is in backticks outside of fenced blocks, by line.
fn spans(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().flat_map(move |(number, line)| {
        fenced ^= line.starts_with("```");
        let inside = line.split('`').skip(1).step_by(2);
        let inside = inside
            .filter(|_| !fenced)
            .map(move |span| (number + 1, span));
        inside.collect::<Vec<_>>()
    })
}

fn is_file(name: &str) -> bool {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    FOLDERS
        .iter()
        .any(|folder| root.join(folder).join(name).is_file())
}

/// Whether a span claims to be one of our names: lower case, with an underscore or a dot in it.
fn is_name(span: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.';
    let letter = span.starts_with(|c: char| c.is_ascii_lowercase());
    letter && span.contains(['_', '.']) && span.bytes().all(plain)
}

/// The parameters of the requests that a document lists, such as `GET /admin/history?window=`. The
/// description of the admin listener holds these to the code.
fn parameters(text: &str) -> impl Iterator<Item = String> {
    let targets = spans(text).filter_map(|(_, span)| span.strip_prefix("GET /")?.split_once('?'));
    let pairs = targets.flat_map(|(_, query)| query.split('&'));
    pairs.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()))
}

/// Everything that a name may be, as it stands; of settings and answers also the last parts alone.
fn known(answers: &[Value]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for answer in answers {
        paths(answer, "", &mut names);
    }
    names.extend(settings());
    let parts: Vec<_> = names
        .iter()
        .flat_map(|path| {
            let cuts = path.match_indices('.').map(|(at, _)| &path[at + 1..]);
            cuts.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    names.extend(parts);
    names.extend(Code::ALL.map(|code| code.as_str().to_owned()));
    // Words of faults, each in its own line of the function that gives them.
    let faults = FAULTS.lines().filter_map(|line| {
        let (_, word) = line.trim().strip_prefix("Self::")?.split_once(" => \"")?;
        word.strip_suffix("\",")
    });
    names.extend(faults.map(str::to_owned));
    // Attributes of spans: texts with a dot.
    let texts = SPANS
        .iter()
        .flat_map(|source| source.split('"').skip(1).step_by(2));
    names.extend(texts.filter(|text| is_name(text)).map(str::to_owned));
    let rows = METRICS.lines().filter(|line| line.starts_with("| `"));
    for row in rows {
        let mut cells = row.split('|').skip(1).take(2);
        names.extend(spans(cells.next().unwrap()).map(|(_, name)| name.to_owned()));
        names.extend(spans(cells.next().unwrap()).map(|(_, name)| name.to_owned()));
        // Label values stand in the row's words.
        names.extend(row.split([' ', ',', ';', ':', '`']).map(str::to_owned));
    }
    names.extend(STATE_WORDS.split([' ', ',', '`']).map(str::to_owned));
    names.extend(DOCUMENTS.iter().flat_map(|(_, text)| parameters(text)));
    names.extend(OTHERS.map(str::to_owned));
    names
}

/// The names of a document that are nowhere, each with its line.
fn strange(path: &str, text: &str, known: &BTreeSet<String>) -> Vec<String> {
    let unknown = |name: &str| {
        let name = name.trim_start_matches("msp_gateway_");
        !known.contains(name) && !is_file(name)
    };
    let mut found: Vec<_> = spans(text)
        .filter(|(_, span)| is_name(span) && unknown(span))
        .map(|(line, span)| format!("{path}:{line}: `{span}`"))
        .collect();
    // `log.access = false` names a setting as well, and an expression names metrics.
    for (line, words) in text.lines().enumerate() {
        for part in words.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let metric = part
                .strip_prefix("msp_gateway_")
                .filter(|rest| !rest.is_empty());
            if metric.is_some_and(|metric| !known.contains(metric)) {
                found.push(format!("{path}:{}: {part} is no metric", line + 1));
            }
        }
        for span in words.split('`').skip(1).step_by(2) {
            let Some((setting, _)) = span.split_once(" = ") else {
                continue;
            };
            if is_name(setting) && !known.contains(setting) {
                found.push(format!("{path}:{}: {setting} is no setting", line + 1));
            }
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn what_operators_are_told_of_is_there() {
    let whole = Whole::with(
        &format!("{SETTINGS}{}", caller("all", "")),
        &secrets(),
        world(),
    );
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = format!("{ALL}traceparent: {trace}\r\n");
    whole.ask(search(&headers, "{}")).await;
    // Members of an access line count as well.
    let lines = whole.log.lines();
    let lines = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut answers: Vec<Value> = lines.collect();
    assert!(!answers.is_empty());
    let status = whole.ask_admin(get("/admin/status", "")).await.json();
    let requests = whole.ask_admin(get("/admin/requests", "")).await.json();
    let id = requests["requests"][0]["request_id"].as_str().unwrap();
    let one = whole
        .ask_admin(get(&format!("/admin/requests/{id}"), ""))
        .await;
    answers.extend([status, one.json(), requests]);
    for path in ["settings", "callers", "snapshots"] {
        let reply = whole.ask_admin(get(&format!("/admin/{path}"), "")).await;
        answers.push(reply.json());
    }
    let known = known(&answers);
    let mut found: Vec<_> = DOCUMENTS
        .iter()
        .flat_map(|(path, text)| strange(path, text, &known))
        .collect();
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
    // And it bites.
    found = strange(
        "x",
        "`entries_walked`, `limits.exports`, `log.acess = false`, `rate(msp_gateway_nonsense[5m])`\n",
        &known,
    );
    assert_eq!(found.len(), 4, "{found:?}");
    let fine = "`vendors.wiv.budget.hold_down_s`, `budget.queued`, `limits.exports_max`, `log.access = false`, `rate(msp_gateway_panics_total[5m])`, `circuit_open`\n";
    assert_eq!(strange("x", fine, &known), Vec::<String>::new());
}

/// An unknown path of the admin listener names what is there, and nothing that is not.
#[tokio::test(start_paused = true)]
async fn the_admin_listeners_404_names_its_paths() {
    let whole = Whole::with(
        &format!("{SETTINGS}{}", caller("all", "")),
        &secrets(),
        world(),
    );
    let reply = whole.ask_admin(get("/admin/nothing", "")).await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"));
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    let (plain, below) = detail.split_once("and, under /admin/, ").unwrap();
    let words = |text: &str| -> Vec<String> {
        let words = text
            .split([' ', ',', ';', '.'])
            .filter(|word| *word != "and");
        words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let plain = words(plain)
        .into_iter()
        .filter(|word| word.starts_with('/'));
    let below = words(below)
        .into_iter()
        .map(|word| format!("/admin/{word}"));
    let named: Vec<_> = plain.chain(below).collect();
    assert!(named.len() >= 12, "{named:?}");
    for path in named {
        let strange = format!("DELETE {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let status = whole.ask_admin(strange).await.status;
        assert_eq!(status, 405, "{path} of {detail:?}");
    }
}
