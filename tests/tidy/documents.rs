//! Rules about the documents: what they name exists, and they speak of the product alone.

use std::collections::HashMap;
use std::fs;

use super::source::{self, Source, end_of_brackets, sources};

/// The documents whose code spans must exist.
///
/// Every Markdown file counts, except those that also name what was: the changelog and the
/// decisions.
fn documents() -> Vec<(String, String)> {
    let history = |path: &str| path == "CHANGELOG.md" || path.starts_with("docs/decisions/");
    let texts = texts().into_iter();
    texts
        .filter(|(path, _)| path.ends_with(".md") && !history(path))
        .collect()
}

/// Hosts that may stand in a URL outside of code: the vendors, this machine, licences, the lock
/// file's public index, and names that no one owns.
const HOSTS: [&str; 11] = [
    "api.wiv.ai",
    "prod-nableboomi.n-able.com",
    "127.0.0.1",
    "localhost",
    // The namespace of SVG.
    "www.w3.org",
    "0.0.0.0",
    "gateway",
    "github.com",
    "www.apache.org",
    "keepachangelog.com",
    "semver.org",
];
/// What a person who uses or changes the product has no use for. In halves, so that this file
/// passes.
const STRANGE_WORDS: [(&str, &str); 16] = [
    ("a", "i"),
    ("l", "lm"),
    ("clau", "de"),
    ("anthro", "pic"),
    ("opena", "i"),
    ("chat", "gpt"),
    ("copi", "lot"),
    ("language ", "model"),
    ("sub", "agent"),
    ("this ", "session"),
    ("previous ", "session"),
    ("helper ", "session"),
    ("co-authored", "-by"),
    ("generated ", "with"),
    ("artifac", "tory"),
    ("/wo", "rk/"),
];

/// (line, text) of every code span outside of fenced blocks.
fn spans(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (line, text) in text.lines().enumerate() {
        if text.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let inside = text.split('`').skip(1).step_by(2);
            found.extend(inside.map(|span| (line + 1, span)));
        }
    }
    found
}

fn is_path(span: &str) -> bool {
    let folders = ["src/", "tests/", "deploy/", "docs/", "examples/", ".ci/"];
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let made_by_runs = span == "tests/bench/out";
    folders.iter().any(|folder| span.starts_with(folder))
        && span.chars().all(plain)
        && !made_by_runs
}

fn is_symbol(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    span.contains("::") && span.trim_end_matches("()").chars().all(plain)
}

/// What the crate declares, by room.
struct Declared(HashMap<String, Vec<String>>);

impl Declared {
    fn of(sources: &[Source]) -> Self {
        let mut rooms: HashMap<String, Vec<String>> = HashMap::new();
        for source in sources {
            if let Some(room) = source.room() {
                let names = rooms.entry(room.to_owned()).or_default();
                let module = source.path.trim_end_matches(".rs");
                names.extend(module.split('/').skip(1).map(str::to_owned));
                names.extend(declared(source));
            }
        }
        Self(rooms)
    }

    /// Whether every part of `a::B::c` is declared in the room `a`, or in one room that declares
    /// `B` where the room is left out.
    fn has(&self, symbol: &str) -> bool {
        let symbol = symbol.trim_end_matches("()");
        let symbol = symbol.trim_start_matches("crate::");
        let parts: Vec<_> = symbol.split("::").collect();
        let all = |names: &Vec<String>| parts.iter().all(|part| names.iter().any(|n| n == part));
        match parts.first().and_then(|room| self.0.get(*room)) {
            Some(names) => all(names),
            None => self.0.values().any(all),
        }
    }
}

/// Items, methods, variants and fields, tests aside.
fn declared(source: &Source) -> Vec<String> {
    let mut names = Vec::new();
    let kinds = [
        "fn", "struct", "enum", "trait", "type", "const", "static", "mod",
    ];
    for at in 0..source.tokens.len() {
        let (kind, name) = (source.text_at(at), source.text_at(at + 1));
        if source.tokens[at].test || !kinds.contains(&kind) {
            continue;
        }
        names.push(name.to_owned());
        if kind == "enum" || kind == "struct" {
            let rest = &source.tokens[at..];
            let opens = rest
                .iter()
                .position(|token| matches!(token.text.as_str(), "{" | ";"));
            let Some(from) = opens.map(|step| at + step) else {
                continue;
            };
            let end = end_of_brackets(&source.tokens, from);
            let inside = source.tokens.iter().take(end).skip(from);
            names.extend(inside.map(|token| token.text.clone()));
        }
    }
    names
}

fn missing(path: &str, text: &str, declared: &Declared) -> Vec<String> {
    let mut found = Vec::new();
    for (line, span) in spans(text) {
        let gone = (is_path(span) && !source::root().join(span).exists())
            || (is_symbol(span) && !declared.has(span));
        if gone {
            found.push(format!("{path}:{line}: `{span}` does not exist"));
        }
    }
    found
}

/// Everything in the repository that is text: (path, text).
fn texts() -> Vec<(String, String)> {
    let files = source::files_below(&source::root());
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        Some((source::name(path), text))
    };
    files.iter().filter_map(read).collect()
}

fn strange_words(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (line, text) in text.to_lowercase().lines().enumerate() {
        for (head, tail) in STRANGE_WORDS {
            let word = format!("{head}{tail}");
            let is_whole = |at: usize| {
                let around = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric());
                let before = text[..at].chars().next_back();
                let after = text[at + word.len()..].chars().next();
                // The end of a host's name is no word.
                word.starts_with('/') || !(around(before) || around(after) || before == Some('.'))
            };
            if text.match_indices(&word).any(|(at, _)| is_whole(at)) {
                found.push(format!("{path}:{}: `{word}`", line + 1));
            }
        }
    }
    found
}

fn strange_hosts(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (line, text) in text.lines().enumerate() {
        for (at, scheme) in text.match_indices("://") {
            let rest = &text[at + scheme.len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !".-".contains(c));
            let host = &rest[..end.unwrap_or(rest.len())];
            let nobodys = host.is_empty() || host == "example" || host.ends_with(".example");
            if !nobodys && !HOSTS.contains(&host) {
                found.push(format!("{path}:{}: the host `{host}`", line + 1));
            }
        }
    }
    found
}

#[test]
fn what_the_documents_name_exists() {
    let declared = Declared::of(&sources());
    let mut found = Vec::new();
    let documents = documents();
    assert!(documents.len() > 8, "{} documents", documents.len());
    for (path, text) in &documents {
        found.extend(missing(path, text, &declared));
    }
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
    let wrong = |text: &str| missing("X.md", text, &declared).len();
    assert_eq!(
        wrong("`src/none.rs` and `reads::cases::None` and `Cases::none()`"),
        3
    );
    assert_eq!(
        wrong("`src/stack.rs` and `cache::Shelf::lookup` and `Cases::search()`"),
        0
    );
    assert_eq!(wrong("`nothing::at::all`"), 1);
    assert_eq!(wrong("```\n`src/none.rs`\n```"), 0);
}

#[test]
fn the_repository_speaks_of_the_product_alone() {
    let texts = texts();
    let words = texts
        .iter()
        .flat_map(|(path, text)| strange_words(path, text));
    let prose = texts.iter().filter(|(path, _)| !path.ends_with(".rs"));
    let hosts = prose.flat_map(|(path, text)| strange_hosts(path, text));
    let found: Vec<_> = words.chain(hosts).collect();
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
    for (head, tail) in STRANGE_WORDS {
        assert_eq!(
            strange_words("x", &format!("({head}{tail})")).len(),
            1,
            "{head}{tail}"
        );
    }
    assert!(strange_words("x", "api.wiv.ai, chain, said").is_empty());
    assert_eq!(strange_hosts("x", "see https://mirror.internal/x").len(), 1);
}

/// Longest line of prose, in characters.
const COLUMNS_MAX: usize = 100;
/// Longest `ARCHITECTURE.md`, in lines: a newcomer reads all of it.
const ARCHITECTURE_LINES_MAX: usize = 150;

/// Lines of Markdown prose that are too long. Tables, code blocks and lines with a URL are
/// excepted.
fn long_lines(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (line, text) in text.lines().enumerate() {
        if text.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let excepted = fenced || text.starts_with('|') || text.contains("://");
        if !excepted && text.chars().count() > COLUMNS_MAX {
            found.push(format!("{path}:{}: over {COLUMNS_MAX} columns", line + 1));
        }
    }
    found
}

#[test]
fn documents_are_narrow_and_architecture_is_short() {
    let texts = texts();
    let documents = texts.iter().filter(|(path, _)| path.ends_with(".md"));
    let found: Vec<_> = documents
        .flat_map(|(path, text)| long_lines(path, text))
        .collect();
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
    let long = "x ".repeat(COLUMNS_MAX);
    assert_eq!(long_lines("x", &format!("a\n{long}")).len(), 1);
    let excepted = format!("| {long} |\n```\n{long}\n```\nhttps://gateway {long}");
    assert_eq!(long_lines("x", &excepted).len(), 0);
    let architecture = fs::read_to_string(source::root().join("ARCHITECTURE.md"));
    let lines = architecture.expect("ARCHITECTURE.md").lines().count();
    assert!(
        lines <= ARCHITECTURE_LINES_MAX,
        "ARCHITECTURE.md has {lines} lines; it may have {ARCHITECTURE_LINES_MAX}"
    );
}

/// Lines that people may paste and that need curl 7.82: long-lived systems have 7.68.
fn needs_a_new_curl(path: &str, text: &str) -> Vec<String> {
    let option = ["--js", "on"].concat();
    let lines = text.lines().enumerate();
    let new = lines.filter(|(_, line)| line.contains("curl") && line.contains(&option));
    new.map(|(line, _)| format!("{path}:{}: curl 7.68 has no `{option}`", line + 1))
        .collect()
}

#[test]
fn lines_to_paste_work_with_an_old_curl() {
    let found: Vec<_> = texts()
        .iter()
        .flat_map(|(path, text)| needs_a_new_curl(path, text))
        .collect();
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
    assert_eq!(
        needs_a_new_curl("x", &format!("a\ncurl --js{} '{{}}' u", "on")).len(),
        1
    );
}

/// Marks of what is still to be done, in any file; in halves, so that this file passes.
fn left_open(path: &str, text: &str) -> Vec<String> {
    let marks = [("TO", "DO"), ("FIX", "ME"), ("XX", "X")].map(|(a, b)| format!("{a}{b}"));
    let lines = text.lines().enumerate();
    let open = lines.filter(|(_, line)| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| marks.iter().any(|mark| mark == word))
    });
    open.map(|(line, _)| format!("{path}:{}: still to be done", line + 1))
        .collect()
}

#[test]
fn nothing_is_left_to_be_done_or_filled_in() {
    let found: Vec<_> = texts()
        .iter()
        .flat_map(|(path, text)| left_open(path, text))
        .collect();
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
    assert_eq!(left_open("x", &format!("a\n{}DO-PASTE", "TO")).len(), 1);
    assert_eq!(left_open("x", &format!("// FIX{}: later", "ME")).len(), 1);
}

/// A path with its parameters' names taken out.
fn shape(path: &str) -> String {
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true => "{}",
        false => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn the_readme_lists_every_route_and_no_other() {
    let text = fs::read_to_string(source::root().join("README.md")).expect("README.md");
    let rows = spans(&text).into_iter().map(|(_, span)| span);
    let methods = ["GET ", "POST ", "QUERY "];
    let paths = rows.filter_map(|row| methods.iter().find_map(|m| row.strip_prefix(m)));
    let mut listed: Vec<_> = paths
        .map(|path| shape(path.split('?').next().unwrap_or(path)))
        .filter(|path| !["/metrics", "/readyz"].contains(&path.as_str()))
        .filter(|path| !path.starts_with("/admin/"))
        .collect();
    listed.sort();
    listed.dedup();
    let table = msp_gateway::api::routes::TABLE.iter();
    let mut routes: Vec<_> = table.map(|line| shape(line.pattern)).collect();
    routes.sort();
    assert_eq!(listed, routes);
}

#[test]
fn dependencies_come_from_the_public_index() {
    let lock = fs::read_to_string(source::root().join("Cargo.lock")).expect("Cargo.lock");
    let sources = lock.lines().filter(|line| line.starts_with("source = "));
    let strange: Vec<_> = sources
        .filter(|line| !line.contains("registry+https://github.com/rust-lang/crates.io-index"))
        .collect();
    assert_eq!(strange, Vec::<&str>::new());
    assert!(
        !source::root().join(".cargo").exists(),
        "no registry of our own"
    );
}

#[test]
fn versions_stay_above_known_faults() {
    let lock = fs::read_to_string(source::root().join("Cargo.lock")).expect("Cargo.lock");
    let package = |name: &str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        let version = rest.split('"').next()?;
        let parts = version.split('.').map(|part| part.parse::<u32>().ok());
        parts.collect::<Option<Vec<_>>>()
    };
    // Each of these had a fault that a gateway must not have, mended in this version.
    for (name, floor) in [
        ("hyper", [1, 12, 0]),
        ("h2", [0, 4, 18]),
        ("moka", [0, 12, 16]),
        ("tracing-subscriber", [0, 3, 20]),
        ("prometheus", [0, 14, 0]),
        ("rustls-webpki", [0, 103, 13]),
        ("serde_json", [1, 0, 154]),
        ("tokio", [1, 54, 0]),
        ("tower-http", [0, 7, 0]),
    ] {
        let version = package(name);
        assert!(version.as_deref() >= Some(&floor[..]), "{name} {version:?}");
    }
    assert_eq!(package("no-such-package"), None);
    let deny = fs::read_to_string(source::root().join("deny.toml")).expect("deny.toml");
    let banned: Vec<_> = deny
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("{ crate = \"")?
                .strip_suffix("\" },")
        })
        .collect();
    // deny.toml says why; here it holds also where cargo-deny is not to be had.
    for name in ["openssl", "reqwest", "chrono", "serde_yaml", "protobuf"] {
        assert!(banned.contains(&name), "{name} is banned: {banned:?}");
    }
    for name in banned {
        assert_eq!(package(name), None, "{name} is not to be used");
    }
}

#[test]
fn unsafe_code_is_forbidden_and_not_merely_absent() {
    let manifest = fs::read_to_string(source::root().join("Cargo.toml")).expect("Cargo.toml");
    let lints = manifest.split_once("[lints.rust]").expect("lints").1;
    let lints = lints.split("\n[").next().expect("a section");
    assert!(lints.contains("unsafe_code = \"forbid\""), "{lints}");
}

/// (name, labels) of every metric that `src/metrics.rs` and `src/metrics` declare.
fn declared_metrics() -> Vec<(String, Vec<String>)> {
    let sources = sources();
    let room = sources.iter().filter(|s| s.room() == Some("metrics"));
    let code: String = room
        .filter_map(|source| {
            let text = fs::read_to_string(source::root().join(&source.path)).ok()?;
            Some(text.split("#[cfg(test)]\nmod tests").next()?.to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for kind in [
        "counters(",
        "used_counters(",
        "gauges(",
        "histograms(",
        "counter(",
        "gauge(",
    ] {
        for (at, _) in code.match_indices(kind) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let call = code[at..].split(")?").next().unwrap_or("");
            let mut strings = call.split('"').skip(1).step_by(2);
            let Some(name) = strings.next() else { continue };
            let labels = call.rsplit_once("&[").map_or("", |(_, labels)| labels);
            let labels = labels.split(']').next().unwrap_or("");
            let labels = labels.split('"').skip(1).step_by(2).map(str::to_owned);
            found.push((name.to_owned(), labels.collect()));
        }
    }
    found.sort();
    found
}

#[test]
fn the_list_of_metrics_is_that_of_the_code() {
    let text = fs::read_to_string(source::root().join("deploy/METRICS.md")).expect("METRICS.md");
    let in_code = |cell: &str| -> Vec<String> {
        let inside = cell.split('`').skip(1).step_by(2);
        inside.map(str::to_owned).collect()
    };
    let mut listed: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let mut cells = line.split('|').skip(1);
            let name = in_code(cells.next().unwrap_or("")).concat();
            (name, in_code(cells.next().unwrap_or("")))
        })
        .collect();
    listed.sort();
    let declared = declared_metrics();
    assert!(declared.len() > 20, "{declared:?}");
    assert_eq!(listed, declared);
}

/// Files that say where the admin listener is, unless the settings say otherwise.
const SAY_ADMIN_PORT: [&str; 11] = [
    "docs/operations.md",
    "README.md",
    "config.toml",
    "src/config/file.rs",
    "src/cli/mod.rs",
    "deploy/Dockerfile",
    "deploy/gateway.toml",
    "deploy/prometheus.yml",
    "deploy/kubernetes/configmap.yaml",
    "deploy/kubernetes/deployment.yaml",
    "deploy/kubernetes/service.yaml",
];

#[test]
fn the_admin_port_is_the_same_everywhere() {
    let least = "auth.mode = \"open\"\nwiv.api_key_env = \"K\"";
    let settings = msp_gateway::config::from_text("least", least, []).expect("good settings");
    let default = settings.server.admin.port();
    // These belong to what runs beside a gateway: Prometheus, Pushgateway, Alertmanager, node
    // exporter.
    assert!(![9090, 9091, 9093, 9100].contains(&default));
    for path in SAY_ADMIN_PORT {
        let text = fs::read_to_string(source::root().join(path)).expect(path);
        assert!(text.contains(&default.to_string()), "{path}");
        assert!(!text.contains("9090"), "{path}: Prometheus's own port");
    }
}

/// `tests/debian.sh` looks for all packages before it says anything, so that one installation is
/// enough.
#[test]
fn missing_packages_are_named_in_one_line() {
    let script = r#"
        die() { printf 'x: %s\n' "$1" >&2; exit 1; }
        . tests/debian.sh
        need zeta-none false
        need bash bash --version
        need spaces test "a b" = "a b"
        need alpha-none test -e /no/such/file
        settle_packages
        echo unreachable
    "#;
    let run = std::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .env("MSP_NO_INSTALL", "1")
        .current_dir(source::root())
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(
        said,
        "x: needs these Debian packages; as root: apt-get install alpha-none zeta-none\n"
    );
    assert_eq!((run.status.code(), run.stdout), (Some(1), Vec::new()));
    let users = ["tests/run", "tests/bench/run", "deploy/check"];
    for path in users {
        let text = fs::read_to_string(source::root().join(path)).expect(path);
        assert!(
            !text.contains("apt-get install -y"),
            "{path} installs by itself"
        );
        assert!(text.contains("settle_packages\n"), "{path}");
    }
}
