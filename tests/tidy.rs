//! Holds the crate to its own rules by reading its text: who may import whom, who may read the
//! time, what never appears. ARCHITECTURE.md tells the rules in words.
//!
//! Each rule is a function from one source to its findings, held to the whole crate by one test and
//! to a bad snippet by another, so that a rule which finds nothing is known to be able to.

// A test fails by panicking; this whole program is one.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/source.rs"]
mod source;

use source::{Source, sources};

/// The rooms from what everything stands on to what stands on everything. A room imports only from
/// earlier lines; rooms of one line are peers and never import each other.
const LADDER: [&[&str]; 21] = [
    &["domain"],
    &["clock"],
    &["secrets"],
    &["metrics"],
    &["telemetry", "traces"],
    &["store"],
    &["access", "admission"],
    &["cache", "upstream"],
    &["vendors"],
    &["snapshot"],
    &["reads"],
    &["history"],
    &["exchange"],
    &["problem"],
    &["api", "middleware"],
    &["stack"],
    // Below `config`, which holds the listeners' options as the listeners define them.
    &["server"],
    &["config"],
    &["app"],
    &["reload"],
    &["cli"],
];
/// Stands beside the ladder: the vendors simulated.
const SANDBOX: &str = "sandbox";
/// Who may see `config`, which would otherwise leak everywhere.
const SEE_CONFIG: [&str; 5] = ["config", "app", "reload", "cli", "main"];
/// Who may start the sandbox.
const SEE_SANDBOX: [&str; 3] = [SANDBOX, "cli", "main"];
/// Whose files may hold a vendor's scroll id.
const SEE_SCROLL_IDS: [&str; 1] = ["vendors"];
/// The only files that may turn a vendor key into bytes.
const SEE_KEY_BYTES: [&str; 2] = ["src/secrets.rs", "src/middleware/outbound/sign.rs"];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] = [
    "service", "services", "util", "utils", "common", "manager", "helper", "helpers", "misc",
];
/// Lines at which a file is named in the test's output, and at which it fails.
const LINES_NOTED: usize = 700;
const LINES_MAX: usize = 900;

/// A rule: everything in a source that breaks it, each as `path:line: what`.
type Rule = fn(&Source) -> Vec<String>;

/// Fails with every finding of `rule` in the crate and its tests.
fn hold(why: &str, rule: Rule) {
    let found: Vec<_> = sources().iter().flat_map(rule).collect();
    assert!(found.is_empty(), "\n{why}\n  {}\n", found.join("\n  "));
}

/// Whether `rule` finds something in exactly this line of a snippet.
fn bites(rule: Rule, path: &str, text: &str, line: usize) -> bool {
    let found = rule(&Source::new(path, text));
    let at = format!("{path}:{line}: ");
    !found.is_empty() && found.iter().all(|finding| finding.starts_with(&at))
}

fn rank(room: &str) -> Option<usize> {
    let top = (room == "main").then_some(LADDER.len());
    top.or_else(|| LADDER.iter().position(|peers| peers.contains(&room)))
}

// ------------------------------------------------------------------------------------------------
// Imports
// ------------------------------------------------------------------------------------------------

fn wrong_imports(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    let imports = source.imports();
    let wrong = imports.iter().filter_map(|(line, other)| {
        let fine = match (rank(room), rank(other)) {
            _ if other == room => true,
            (Some(_), _) if other == SANDBOX => SEE_SANDBOX.contains(&room),
            (Some(own), Some(other)) => other < own,
            _ if room == SANDBOX => other == "clock",
            _ => false,
        };
        (!fine).then(|| source.at(*line, &format!("`{room}` may not import `{other}`")))
    });
    wrong.collect()
}

/// Paths that leave their room through `super`, where `imports` would not see them.
fn escapes(source: &Source) -> Vec<String> {
    let Some(depth) = source.module_depth() else {
        return Vec::new();
    };
    let paths = source.paths();
    let out = paths.iter().filter_map(|path| {
        let ups = path.segments.iter().take_while(|s| *s == "super").count();
        // One `super` at depth 1 is the crate itself.
        (ups >= depth + path.inner)
            .then(|| source.at(path.line, "leaves its room by `super`; write `crate::…`"))
    });
    out.collect()
}

/// Findings in the imports that `wrong` picks by the importing and the imported room.
fn imports_where(source: &Source, wrong: fn(&str, &str) -> bool, message: &str) -> Vec<String> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    let imports = source.imports().into_iter();
    imports
        .filter(|(_, other)| wrong(room, other))
        .map(|(line, _)| source.at(line, message))
        .collect()
}

fn cache_knows_upstream(source: &Source) -> Vec<String> {
    let wrong = |room: &str, other: &str| room == "cache" && other == "upstream";
    imports_where(
        source,
        wrong,
        "`cache` does not know how answers are fetched",
    )
}

fn sees_config(source: &Source) -> Vec<String> {
    let wrong = |room: &str, other: &str| other == "config" && !SEE_CONFIG.contains(&room);
    imports_where(source, wrong, "only app, reload and cli see `config`")
}

fn sandbox_shares(source: &Source) -> Vec<String> {
    let wrong = |room: &str, other: &str| room == SANDBOX && other != "clock" && other != SANDBOX;
    imports_where(
        source,
        wrong,
        "the sandbox shares nothing with the gateway but `clock`",
    )
}

#[test]
fn rooms_import_only_from_the_rooms_below_them() {
    hold(
        "Imports point one way (LADDER in tests/tidy.rs):",
        wrong_imports,
    );
    let wrong = |path, text, line| assert!(bites(wrong_imports, path, text, line), "{text}");
    wrong("src/cache/local.rs", "//!\nuse crate::reads::Reads;", 2);
    wrong("src/cache/local.rs", "use crate::vendors::Wiv;", 1);
    wrong(
        "src/upstream/wire.rs",
        "fn f() {\n  crate::cache::f();\n}",
        2,
    );
    wrong(
        "src/api/mod.rs",
        "use crate::{\n  clock,\n  middleware::inbound,\n};",
        3,
    );
    wrong("src/domain/ids.rs", "use crate::clock::Clock;", 1);
    wrong("src/sandbox/wiv.rs", "use crate::domain::Vendor;", 1);
    wrong("src/app.rs", "use crate::sandbox::Sandbox;", 1);
    wrong("src/access/mod.rs", "use crate::*;", 1);
    let fine = Source::new(
        "src/stack.rs",
        "use crate::{api, clock::Clock};\nuse self::x;",
    );
    assert_eq!(wrong_imports(&fine), Vec::<String>::new());
    // Words in comments and texts are no imports.
    let words = Source::new(
        "src/clock.rs",
        "// crate::cli\nconst A: &str = \"crate::cli\";",
    );
    assert_eq!(wrong_imports(&words), Vec::<String>::new());
}

#[test]
fn no_path_leaves_its_room_by_super() {
    hold("Rooms are named where they are imported:", escapes);
    assert!(bites(escapes, "src/stack.rs", "use super::cli;", 1));
    assert!(bites(escapes, "src/cache/mod.rs", "use super::cli;", 1));
    assert!(bites(
        escapes,
        "src/cache/key.rs",
        "\nuse super::super::cli;",
        2
    ));
    let inner = "mod tests {\n  use super::super::cli;\n}";
    assert!(bites(escapes, "src/clock.rs", inner, 2));
    let fine = "use super::x;\nmod tests {\n  use super::*;\n  use super::super::y;\n}";
    assert_eq!(
        escapes(&Source::new("src/cache/key.rs", fine)),
        Vec::<String>::new()
    );
}

#[test]
fn the_cache_does_not_know_upstream() {
    hold(
        "The cache remembers; it does not fetch:",
        cache_knows_upstream,
    );
    let bad = "use crate::{clock, upstream};";
    assert!(bites(cache_knows_upstream, "src/cache/flight.rs", bad, 1));
}

#[test]
fn only_those_who_build_see_the_settings() {
    hold("The root of the settings never travels:", sees_config);
    assert!(bites(
        sees_config,
        "src/server/mod.rs",
        "use crate::config;",
        1
    ));
}

#[test]
fn the_sandbox_shares_nothing_with_the_gateway() {
    hold("Tests must not mock what they test:", sandbox_shares);
    let bad = "use crate::upstream::Fault;";
    assert!(bites(sandbox_shares, "src/sandbox/world.rs", bad, 1));
}

#[test]
fn the_crate_lists_its_rooms_in_reading_order() {
    let rooms = source::rooms_in_lib();
    let mut listed = rooms.clone();
    assert_eq!(
        listed.pop().as_deref(),
        Some(SANDBOX),
        "sandbox stands last"
    );
    let before = |pair: &&[String]| rank(&pair[0]) > rank(&pair[1]);
    let wrong = listed.windows(2).find(before);
    assert_eq!(wrong, None, "src/lib.rs lists these two in the wrong order");
    listed.sort();
    let mut known: Vec<_> = LADDER.concat().into_iter().map(str::to_owned).collect();
    known.sort();
    assert_eq!(listed, known, "src/lib.rs and LADDER name different rooms");
}

// ------------------------------------------------------------------------------------------------
// Time
// ------------------------------------------------------------------------------------------------

/// In product code nobody but `clock.rs` reads the time. In test code `Instant` may be asked, for
/// it can only be the clock's, which paused time moves.
fn reads_time(source: &Source) -> Vec<String> {
    if source.path == "src/clock.rs" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for path in source.paths() {
        let has = |parts: &[&str]| path.segments.windows(parts.len()).any(|at| at == parts);
        let foreign = has(&["std", "time"])
            || has(&["core", "time"])
            || has(&["tokio", "time"])
            || has(&["SystemTime"])
            || has(&["clock_gettime"])
            || has(&["Timestamp", "now"])
            || has(&["Zoned", "now"]);
        let own = !path.test && has(&["Instant", "now"]);
        if foreign || own {
            let text = path.segments.join("::");
            found.push(source.at(path.line, &format!("`{text}`; use `crate::clock`")));
        }
    }
    for call in source.calls("elapsed").filter(|call| !call.test) {
        found.push(source.at(call.line, "`.elapsed()` reads the time; ask a `Clock`"));
    }
    found
}

/// In a file of `tests/it` that sleeps, every asynchronous test runs in paused time; in `src`,
/// every test that sleeps does.
fn really_sleeps(source: &Source) -> Vec<String> {
    let sleepy = ["sleep", "sleep_until", "interval"];
    let whole_file = source.path.starts_with("tests/");
    let file_sleeps = sleepy.iter().any(|name| source.mentions(name));
    let tests = source.async_tests();
    let awake = tests.iter().filter(|test| !test.paused);
    awake
        .filter(|test| match whole_file {
            true => file_sleeps,
            false => sleepy.iter().any(|name| test.mentions(name)),
        })
        .map(|test| source.at(test.line, "sleeps in real time; add `start_paused = true`"))
        .collect()
}

#[test]
fn only_the_clock_reads_time() {
    hold(
        "Time comes through crate::clock, so that tests can pause it:",
        reads_time,
    );
    for bad in [
        "use std::time::Instant;",
        "use std::{fmt, time::Duration};",
        "fn f() { tokio::time::sleep(d) }",
        "use tokio::time;",
        "fn f() { Timestamp::now() }",
        "fn f() { rustix::time::clock_gettime(id) }",
        "fn f() { std::time::SystemTime::now() }",
        "fn f() { Instant::now() }",
        "fn f() { since.elapsed() }",
    ] {
        assert!(bites(reads_time, "src/reads/mod.rs", bad, 1), "{bad}");
    }
    let test = "#[cfg(test)]\nmod tests { fn f() { Instant::now().elapsed() } }\nfn g() {}";
    assert_eq!(
        reads_time(&Source::new("src/a.rs", test)),
        Vec::<String>::new()
    );
    assert!(bites(
        reads_time,
        "tests/it/a.rs",
        "use std::time::Instant;",
        1
    ));
}

#[test]
fn no_test_sleeps_in_real_time() {
    hold("Tests run in paused time:", really_sleeps);
    let bad = "use msp_gateway::clock::sleep;\n#[tokio::test]\nasync fn a() {}";
    assert!(bites(really_sleeps, "tests/it/a.rs", bad, 2));
    let bad = "#[tokio::test]\nasync fn a() { sleep(d).await }";
    assert!(bites(really_sleeps, "src/a.rs", bad, 1));
    let fine = "#[tokio::test(start_paused = true)]\nasync fn a() { sleep(d).await }";
    assert_eq!(
        really_sleeps(&Source::new("tests/it/a.rs", fine)),
        Vec::<String>::new()
    );
}

// ------------------------------------------------------------------------------------------------
// Secrets
// ------------------------------------------------------------------------------------------------

fn touches_key_bytes(source: &Source) -> Vec<String> {
    if SEE_KEY_BYTES.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let holds_keys = ["VendorKey", "VendorKeys", "VendorKeyring", "Chosen"];
    let holds_keys = holds_keys.iter().any(|name| source.mentions(name));
    let calls = source.calls("header_value");
    calls
        .filter(|call| holds_keys || call.receiver.as_deref() == Some("key"))
        .map(|call| {
            source.at(
                call.line,
                "the bytes of a vendor key are for the sign layer only",
            )
        })
        .collect()
}

fn holds_scroll_ids(source: &Source) -> Vec<String> {
    let mut named = source
        .tokens
        .iter()
        .filter(|token| token.text == "ScrollId");
    let room = source.room().unwrap_or("tests");
    let product = named.find(|token| !token.test && !SEE_SCROLL_IDS.contains(&room));
    let found = product.map(|t| source.at(t.line, "scroll ids never leave vendors"));
    found.into_iter().collect()
}

#[test]
fn only_the_sign_layer_touches_key_bytes() {
    hold(
        "A vendor key leaves secrets.rs on the wire only:",
        touches_key_bytes,
    );
    let bad = "fn f(keys: &VendorKeys) {\n  keys.primary.header_value();\n}";
    assert!(bites(touches_key_bytes, "src/app.rs", bad, 2));
    let bad = "fn f() { chosen.key().header_value() }";
    assert!(bites(touches_key_bytes, "src/reads/mod.rs", bad, 1));
}

#[test]
fn scroll_ids_stay_inside() {
    hold("A scroll id works like a key:", holds_scroll_ids);
    let bad = "use crate::vendors::wiv::ScrollId;";
    assert!(bites(holds_scroll_ids, "src/reads/cases.rs", bad, 1));
}

// ------------------------------------------------------------------------------------------------
// What never appears
// ------------------------------------------------------------------------------------------------

/// Marks of unfinished work, silenced checks and debugging.
fn unfinished(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let prints = source
        .room()
        .is_some_and(|room| room != "cli" && room != "main");
    for (at, token) in source.tokens.iter().enumerate() {
        let next = |step: usize| source.tokens.get(at + step).map(|t| t.text.as_str());
        let text = token.text.as_str();
        let is_macro = next(1) == Some("!") && next(2) != Some("=");
        let bad = match text {
            "todo" | "unimplemented" | "dbg" => is_macro,
            "println" | "print" | "eprintln" | "eprint" => is_macro && prints && !token.test,
            "unsafe" | "dead_code" => true,
            "ignore" => source.in_attribute(at),
            "thread" => next(1) == Some("::") && next(2) == Some("sleep"),
            _ => false,
        };
        if bad {
            found.push(source.at(token.line, &format!("`{text}` may not stand here")));
        }
    }
    found
}

fn empty_names(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for part in source.path.trim_end_matches(".rs").split('/') {
        if EMPTY_NAMES.contains(&part) {
            found.push(source.at(1, &format!("no module is named `{part}`")));
        }
    }
    for pair in source.tokens.windows(2) {
        if pair[0].text == "mod" && EMPTY_NAMES.contains(&pair[1].text.as_str()) {
            let message = format!("no module is named `{}`", pair[1].text);
            found.push(source.at(pair[1].line, &message));
        }
    }
    found
}

fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines > LINES_NOTED {
        println!("{}: {lines} lines: is it still one purpose?", source.path);
    }
    let message = format!("{lines} lines; {LINES_MAX} is the most");
    (lines > LINES_MAX)
        .then(|| source.at(1, &message))
        .into_iter()
        .collect()
}

fn says_not_what_it_is(source: &Source) -> Vec<String> {
    let says = source.text.starts_with("//! ");
    let message = "begins without a `//!` line that says what it is";
    (!says).then(|| source.at(1, message)).into_iter().collect()
}

#[test]
fn nothing_is_unfinished_or_silenced() {
    hold("No stubs, no debugging, no silenced checks:", unfinished);
    for bad in [
        "fn f() { todo!() }",
        "fn f() { unimplemented!(\"later\") }",
        "fn f() { dbg!(1); }",
        "fn f() { println!(\"x\"); }",
        "#[ignore]\nfn f() {}",
        "#[ignore = \"flaky\"]\nfn f() {}",
        "#[cfg_attr(ci, ignore)]\nfn f() {}",
        "#![allow(dead_code)]",
        "fn f() { unsafe { g() } }",
        "use std::thread::sleep;",
        "fn f() { thread::sleep(d) }",
    ] {
        assert!(bites(unfinished, "src/reads/mod.rs", bad, 1), "{bad}");
    }
    let fine = "// todo!()\nfn f() { let ignore = 1; if print != 2 {} }";
    assert_eq!(
        unfinished(&Source::new("src/a.rs", fine)),
        Vec::<String>::new()
    );
}

#[test]
fn modules_have_names_that_say_something() {
    hold("Names say what is inside:", empty_names);
    assert!(bites(empty_names, "src/cache/util.rs", "//! x", 1));
    assert!(bites(empty_names, "src/common/x.rs", "//! x", 1));
    assert!(bites(empty_names, "src/a.rs", "\nmod manager {}", 2));
}

#[test]
fn files_have_one_purpose_and_say_it() {
    hold("Files stay small:", too_long);
    hold("Every file says what it is:", says_not_what_it_is);
    assert!(bites(too_long, "src/a.rs", &"\n".repeat(LINES_MAX + 1), 1));
    assert!(bites(says_not_what_it_is, "src/a.rs", "use x;", 1));
}
