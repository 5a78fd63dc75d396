//! Broken settings, generated: each setting × each wrong form, in the file and in the environment.
//! Each is refused with one line that names the setting, and no line shows what was written.

use toml::{Table, Value};

use super::{from_text, load};

/// Stands for a secret in the wrong place.
const CANARY: &str = "cAnArY-7f3a9c";
/// The same where nearly any text is right.
const CONTROL: &str = "cAnArY\u{7}\n7f3a9c";

/// Settings with every key given.
const WHOLE: &str = r#"
[listen]
public = "127.0.0.1:0"
admin = "127.0.0.1:0"
admin_hosts = ["a.example"]
docs = true
[listen.public_tls]
certificate_file = "/a"
private_key_file = "/b"
client_ca_file = "/c"
client_auth = "optional"
[auth]
mode = "keys"
[cors]
origins = ["https://a.example", "http://localhost:3000"]
[[callers]]
name = "a"
key_hash = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
client_san = ["a.internal", "spiffe://corp.example/a"]
role = "operator"
customers = ["*"]
billing = true
requests_per_minute = 10
expires = "2031-12-31T00:00:00Z"
[[callers]]
name = "b"
key_hash = ["sha256:0000000000000000000000000000000000000000000000000000000000000002"]
role = "reader"
customers = ["org_1"]
[wiv]
base_url = "https://a.example"
api_key_header = "X-API-Key"
api_key_env = "A"
api_key_file = ""
api_key_fallback_env = "B"
api_key_fallback_file = ""
optional = true
credential = "wiv"
[nable]
base_url = "https://a.example"
api_key_header = "X-API-Key"
api_key_env = ""
api_key_file = "/a"
api_key_fallback_env = ""
api_key_fallback_file = "/b"
optional = true
account_id_env = ""
account_id_file = "/c"
[cases]
recent_days = 7
time_zone = "UTC"
derive_customer = true
strict_members = true
[pagination]
token_key_env = ""
token_key_file = ""
token_key_previous_env = ""
token_key_previous_file = ""
[store.valkey]
addresses = ["valkey.internal:6379", "[::1]:6379"]
tls = true
ca_file = "/a"
username = "gateway"
password_env = ""
password_file = "/b"
prefix = "msp"
when_away = "open"
timeout = "50ms"
lease = "6s"
replicas_min = 2
[[links]]
customer_id = "org_1"
client_id = "4711"
[[links]]
customer_id = "org_2"
client_name = "x"
"#;

fn whole() -> Table {
    // Everything with a default, then what has none.
    let defaults = from_text("c", "auth.mode = \"open\"\nwiv.api_key_env = \"A\"", []).unwrap();
    let mut all: Table = toml::from_str(&defaults.effective()).unwrap();
    for (name, value) in toml::from_str::<Table>(WHOLE).unwrap() {
        match (all.get_mut(&name), value) {
            (Some(Value::Table(into)), Value::Table(from)) => into.extend(from),
            (_, value) => {
                all.insert(name, value);
            }
        }
    }
    all
}

/// Every path that leads to a value, and to a table, as they are shown.
fn paths(table: &Table, before: &str, leaves: &mut Vec<String>, tables: &mut Vec<String>) {
    for (name, value) in table {
        let here = format!("{before}{name}");
        match value {
            Value::Table(below) => {
                tables.push(here.clone());
                paths(below, &format!("{here}."), leaves, tables);
            }
            Value::Array(items) if items.first().is_some_and(Value::is_table) => {
                for (i, item) in items.iter().enumerate() {
                    let here = format!("{here}[{i}]");
                    tables.push(here.clone());
                    paths(
                        item.as_table().unwrap(),
                        &format!("{here}."),
                        leaves,
                        tables,
                    );
                }
            }
            _ => leaves.push(here),
        }
    }
}

/// The table with `value` at the path as shown.
fn with(mut table: Table, path: &str, value: Value) -> Table {
    let mut steps: Vec<String> = Vec::new();
    for level in path.split('.') {
        match level.trim_end_matches(']').split_once('[') {
            Some((name, index)) => steps.extend([name.to_owned(), index.to_owned()]),
            None => steps.push(level.to_owned()),
        }
    }
    let (last, way) = steps.split_last().unwrap();
    let mut at = table.get_mut(&steps[0]);
    for step in way.iter().skip(1) {
        at = match at.unwrap() {
            Value::Table(below) => below.get_mut(step),
            Value::Array(items) => items.get_mut(step.parse::<usize>().unwrap()),
            _ => panic!("{path}"),
        };
    }
    match (way.is_empty(), at) {
        (true, _) => drop(table.insert(last.clone(), value)),
        (_, Some(Value::Table(below))) => drop(below.insert(last.clone(), value)),
        (_, Some(Value::Array(items))) => items[last.parse::<usize>().unwrap()] = value,
        _ => panic!("{path}"),
    }
    table
}

fn refused_with(path: &str, table: &Table, variables: Vec<(String, String)>) {
    let text = toml::to_string(table).unwrap();
    let shown = match from_text("c.toml", &text, variables) {
        Ok(_) => panic!("{path} was accepted"),
        Err(refusal) => refusal.to_string(),
    };
    assert_eq!(shown.lines().count(), 1, "{path}: {shown}");
    assert!(shown.contains(&format!(" {path}: ")), "{path}: {shown}");
    assert!(
        !shown.contains("cAnArY") && !shown.contains("7f3a9c"),
        "{shown}"
    );
}

/// Wrong values for the setting at this path.
fn wrong(path: &str) -> Vec<Value> {
    let key = path.rsplit('.').next().unwrap();
    let free = key.ends_with("_file")
        || [
            "credential",
            "account_id",
            "directory",
            "client_id",
            "client_name",
            "api_key_header",
            "username",
            "prefix",
        ]
        .contains(&key);
    let id = key == "customer_id";
    let may_be_empty = ["origins", "admin_hosts", "addresses"].contains(&key);
    let flag = [
        "access",
        "billing",
        "concurrency_adaptive",
        "derive_customer",
        "docs",
        "enabled",
        "learn_rate",
        "optional",
        "refresh_ahead",
        "strict_members",
        "tls",
        "token_heal",
    ]
    .contains(&key);
    let number = ["account_id", "client_id"].contains(&key);
    let nothing = key.ends_with("_env")
        || key.ends_with("_file")
        || ["directory", "otlp_endpoint", "username"].contains(&key);
    let mut values = vec![
        Value::from(CONTROL),
        Value::from(-1),
        Value::from(1.5),
        Value::from(f64::NAN),
        Value::Table(Table::from_iter([(CANARY.to_owned(), Value::from(CANARY))])),
        Value::Array(vec![Value::from(CONTROL), Value::from(5)]),
        Value::Array(vec![Value::Array(vec![Value::from(CONTROL)])]),
    ];
    if !may_be_empty {
        values.push(Value::Array(vec![]));
    }
    if !free && !id {
        values.push(Value::from(CANARY));
        values.push(Value::from(format!("5s {CANARY}")));
    }
    if !number {
        values.push(Value::from(i64::MAX));
    }
    if !flag {
        values.push(Value::from(true));
    }
    if !nothing {
        values.push(Value::from(""));
    }
    values
}

#[test]
fn the_whole_is_accepted() {
    let settings = from_text("c.toml", &toml::to_string(&whole()).unwrap(), []).unwrap();
    assert_eq!(
        (settings.callers.len(), settings.policy.links.len()),
        (2, 2)
    );
}

#[test]
fn every_setting_refuses_every_wrong_form_in_one_line_without_showing_it() {
    let (mut leaves, mut tables) = (Vec::new(), Vec::new());
    let whole = whole();
    paths(&whole, "", &mut leaves, &mut tables);
    let mut count = 0;
    for path in &leaves {
        for value in wrong(path) {
            refused_with(path, &with(whole.clone(), path, value), vec![]);
            count += 1;
        }
    }
    for path in &tables {
        for value in [Value::from(CANARY), Value::from(7), Value::from(true)] {
            refused_with(path, &with(whole.clone(), path, value), vec![]);
            count += 1;
        }
        for neighbour in ["api_key", "token", "hoelle"] {
            let path = format!("{path}.{neighbour}");
            refused_with(
                &path,
                &with(whole.clone(), &path, Value::from(CANARY)),
                vec![],
            );
            count += 1;
        }
    }
    for path in ["api_key", "callers", "links", "wiv_api_key"] {
        refused_with(
            path,
            &with(whole.clone(), path, Value::from(CANARY)),
            vec![],
        );
        count += 1;
    }
    assert!(
        leaves.len() > 90 && count > 1_000,
        "{count} of {}",
        leaves.len()
    );
}

#[test]
fn the_environment_refuses_alike() {
    let (mut leaves, mut tables) = (Vec::new(), Vec::new());
    let whole = whole();
    paths(&whole, "", &mut leaves, &mut tables);
    let variable = |path: &str| format!("MSP_GATEWAY__{}", path.to_uppercase().replace('.', "__"));
    let mut count = 0;
    for path in leaves.iter().filter(|path| !path.contains('[')) {
        for value in wrong(path) {
            let text = match &value {
                Value::String(text) => text.clone(),
                value => value.to_string(),
            };
            // What is no number, flag or list is a text; a table's braces are read as one.
            let fine = matches!(value, Value::Float(_))
                && [
                    "_file",
                    "_header",
                    "credential",
                    "account_id",
                    "directory",
                    "username",
                    "prefix",
                ]
                .iter()
                .any(|end| path.ends_with(end));
            if !fine {
                let variables = vec![(variable(path), text)];
                refused_with(path, &whole, variables);
                count += 1;
            }
        }
    }
    let odd = vec![(
        "MSP_GATEWAY__NOTHING__AT__ALL".to_owned(),
        CANARY.to_owned(),
    )];
    refused_with("nothing", &whole, odd);
    for path in ["wiv.api_key", "wiv", "nothing", "callers", "links"] {
        refused_with(path, &whole, vec![(variable(path), CANARY.to_owned())]);
    }
    for name in [
        "MSP_GATEWAY__",
        "MSP_GATEWAY__A__B__C__D",
        "MSP_GATEWAY__wiv__timeout",
        "MSP_GATEWAY__WIV____TIMEOUT",
        "MSP_GATEWAY__cAnArY 7f3a9c",
    ] {
        let variables = vec![(name.to_owned(), CANARY.to_owned())];
        let text = toml::to_string(&whole).unwrap();
        let shown = from_text("c", &text, variables).unwrap_err().to_string();
        assert!(shown.starts_with("MSP_GATEWAY__") && shown.lines().count() == 1);
        assert!(!shown.contains("cAnArY"), "{shown}");
    }
    assert!(count > 500, "{count}");
}

#[test]
fn broken_files_name_the_line_and_quote_nothing() {
    for (broken, line) in [
        ("[wiv]\ntimeout = cAnArY", 2),
        ("[wiv]\n\napi_key_env = \"cAnArY", 3),
        ("cAnArY", 1),
        ("[cAnArY", 1),
        ("a = 1\na = \"cAnArY\"", 2),
        ("[wiv]\n[wiv]\nx = \"cAnArY\"", 2),
        ("x = \"\\q cAnArY\"", 1),
        ("x = 2031-99-99 cAnArY", 1),
        ("x = {a = cAnArY}", 1),
        ("x = [1, cAnArY", 1),
    ] {
        let shown = from_text("c.toml", broken, []).unwrap_err().to_string();
        assert!(
            shown.starts_with(&format!("c.toml:{line}: ")),
            "{broken}: {shown}"
        );
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(!shown.contains("cAnArY"), "{shown}");
    }
    // Depth is bounded where it could hurt.
    let deep = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(from_text("c", &deep, []).unwrap_err().problems.len(), 1);
}

#[test]
fn rules_between_settings_name_one_of_them() {
    let open = "auth.mode = \"open\"\n";
    let caller = "[[callers]]\nname = \"a\"\nkey_hash = \"sha256:0000000000000000000000000000000000000000000000000000000000000001\"\ncustomers = [\"*\"]\n";
    let twice = format!("{caller}{}", caller.replace("\"a\"", "\"b\""));
    let same_name = format!("{caller}{}", caller.replace("1\"", "2\""));
    for (text, path) in [
        (String::new(), "callers"),
        (format!("{open}listen.public = \"0.0.0.0:80\""), "auth.mode"),
        (format!("{open}listen.admin = \"0.0.0.0:81\""), "auth.mode"),
        (
            format!("listen.admin = \"0.0.0.0:81\"\n{caller}"),
            "listen.admin",
        ),
        (
            format!("{open}listen.admin = \"127.0.0.1:8080\""),
            "listen.admin",
        ),
        (twice, "callers[1].key_hash"),
        (same_name, "callers[1].name"),
        (
            format!(
                "{caller}[[callers]]\nname = \"b\"\nkey_hash = \"sha256:0000000000000000000000000000000000000000000000000000000000000002\""
            ),
            "callers[1].customers",
        ),
        (
            format!("{open}wiv.api_key_env = \"A\"\nwiv.api_key_file = \"/a\""),
            "wiv.api_key_file",
        ),
        (
            format!("{open}wiv.api_key_fallback_env = \"A\""),
            "wiv.api_key_env",
        ),
        (
            format!("{open}nable.api_key_env = \"A\""),
            "nable.account_id",
        ),
        (
            format!("{open}nable.account_id = \"A\"\nnable.account_id_env = \"A\""),
            "nable.account_id",
        ),
        (
            format!("{open}wiv.connect_timeout = \"11s\""),
            "wiv.connect_timeout",
        ),
        (
            format!("{open}pagination.scroll_idle_max = \"5m\""),
            "pagination.scroll_idle_max",
        ),
        (
            format!("{open}pagination.token_lifetime = \"25h\""),
            "pagination.token_lifetime",
        ),
        (
            format!("{open}pagination.walk_bytes_max = \"1GiB\""),
            "pagination.walk_bytes_max",
        ),
        (
            format!("{open}pagination.token_key_env = \"A\"\npagination.token_key_file = \"/a\""),
            "pagination.token_key_file",
        ),
        (
            format!("{open}[[links]]\ncustomer_id = \"a\""),
            "links[0].client_id",
        ),
        (
            format!("{open}[[links]]\nclient_id = \"a\""),
            "links[0].customer_id",
        ),
        (
            format!("{open}[[links]]\ncustomer_id = \"a\"\nclient_id = 1\nclient_name = \"b\""),
            "links[0].client_name",
        ),
        (
            format!("{open}cases.time_zone = \"Nowhere/Land\""),
            "cases.time_zone",
        ),
        (
            format!("{open}[[callers]]\nname = \"a\"\nkey_hash = []\ncustomers = [\"*\", \"a\"]"),
            "callers[0].customers",
        ),
    ] {
        let refusal = from_text("c", &text, []).unwrap_err();
        assert!(
            refusal.problems.iter().any(|p| p.path == path),
            "{text}: {refusal}"
        );
    }
}

#[test]
fn all_problems_are_told_in_the_order_of_the_file() {
    let text =
        "[wiv]\ntimout = \"1s\"\nconcurrency = 0\n[listen]\npublic = 1\n[auth]\nmode = \"open\"\n";
    let variables = [("MSP_GATEWAY__LOG__LEVEL".to_owned(), "loud".to_owned())];
    let shown = from_text("c.toml", text, variables)
        .unwrap_err()
        .to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(
        lines,
        [
            "c.toml:2: wiv.timout: unknown setting; did you mean timeout?",
            "c.toml:3: wiv.concurrency: must be a whole number from 1 to 1024",
            "c.toml:5: listen.public: must be an IP address and a port, such as \"127.0.0.1:8080\"",
            "MSP_GATEWAY__LOG__LEVEL: log.level: must be \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ]
    );
    let many: String = (0..500).map(|i| format!("k{i} = 1\n")).collect();
    assert_eq!(from_text("c", &many, []).unwrap_err().problems.len(), 50);
}

#[test]
fn the_environment_overrides_and_takes_back() {
    let text = "auth.mode = \"open\"\nwiv.api_key_env = \"A\"\nwiv.timeout = \"9s\"\n[[callers]]\nname = 5\n";
    let settings = from_text(
        "c.toml",
        text,
        [
            ("MSP_GATEWAY__WIV__API_KEY_ENV", ""),
            ("MSP_GATEWAY__WIV__TIMEOUT", "8s"),
            ("MSP_GATEWAY__WIV__CONCURRENCY", "3"),
            ("MSP_GATEWAY__NABLE__ACCOUNT_ID", "00123"),
            ("MSP_GATEWAY__NABLE__API_KEY_FILE", "/run/secrets/n"),
            ("MSP_GATEWAY__CASES__OPEN__FRESH", "3m"),
            (
                "MSP_GATEWAY__CALLERS",
                "[{name = \"z\", customers = [\"a\"], key_hash = \"sha256:0000000000000000000000000000000000000000000000000000000000000001\"}]",
            ),
            ("MSP_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned())),
    )
    .unwrap();
    assert!(settings.vendors.wiv.is_none());
    assert_eq!(settings.callers[0].name, "z");
    let nable = settings.vendors.nable.as_ref().unwrap();
    assert!(matches!(&nable.account, super::AccountSource::Given(id) if id.as_str() == "00123"));
    let shown = settings.effective();
    for line in [
        "timeout = \"8s\" # MSP_GATEWAY__WIV__TIMEOUT",
        "concurrency = 3 # MSP_GATEWAY__WIV__CONCURRENCY",
        "mode = \"open\" # c.toml",
        "name = \"z\" # MSP_GATEWAY__CALLERS",
        "key_hash = \"sha256:00000000…\" # MSP_GATEWAY__CALLERS",
        "fresh = \"3m\" # MSP_GATEWAY__CASES__OPEN__FRESH",
        "level = \"info\" # default",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}\n{shown}");
    }
}

#[test]
fn variables_that_name_no_setting_are_refused_with_the_nearest_one() {
    let text = "auth.mode = \"open\"\nwiv.api_key_env = \"MSP_GATEWAY_KEY_OF_WIV\"\n";
    let refused = |name: &str, value: &str| {
        let settings = from_text("c.toml", text, [(name.to_owned(), value.to_owned())]);
        settings.err().map(|refusal| refusal.to_string())
    };
    let write_it = "write it like MSP_GATEWAY__LISTEN__PUBLIC";
    for (name, told) in [
        (
            "MSP_GATEWAY_WIV_TIMEOUT",
            "did you mean MSP_GATEWAY__WIV__TIMEOUT?",
        ),
        (
            "MSP_GATEWAY_WIV__TIMEOUT",
            "did you mean MSP_GATEWAY__WIV__TIMEOUT?",
        ),
        (
            "MSP_GATEWAY__WIV_TIMEOUT",
            "did you mean MSP_GATEWAY__WIV__TIMEOUT?",
        ),
        (
            "MSP_GATEWAY___WIV__TIMEOUT",
            "did you mean MSP_GATEWAY__WIV__TIMEOUT?",
        ),
        (
            "MSP_GATEWAY__wiv__timeout",
            "did you mean MSP_GATEWAY__WIV__TIMEOUT?",
        ),
        (
            "MSP_GATEWAY_LISTEN_PUBLC",
            "did you mean MSP_GATEWAY__LISTEN__PUBLIC?",
        ),
        (
            "MSP_GATEWAY_CASES_OPEN_FRESH",
            "did you mean MSP_GATEWAY__CASES__OPEN__FRESH?",
        ),
        ("MSP_GATEWAY_ACCOUNT_ID", write_it),
        (
            "MSP_GATEWAY_NABLE_ACCOUNT_ID",
            "did you mean MSP_GATEWAY__NABLE__ACCOUNT_ID?",
        ),
        ("MSP_GATEWAY_SOMETHING_ELSE", write_it),
        ("MSP_GATEWAY_PORT", write_it),
        ("MSP_GATEWAY_", write_it),
    ] {
        let shown = refused(name, CANARY).unwrap_or_else(|| panic!("{name} was accepted"));
        assert_eq!(shown.lines().count(), 1, "{name}: {shown}");
        assert!(shown.contains(told), "{name}: {shown}");
        assert!(
            shown.starts_with("MSP_GATEWAY_") && !shown.contains("cAnArY"),
            "{shown}"
        );
    }
    // Each is named, not only the first.
    let two = ["MSP_GATEWAY_A", "MSP_GATEWAY_B"].map(|name| (name.to_owned(), String::new()));
    let shown = from_text("c.toml", text, two).unwrap_err().to_string();
    assert_eq!(shown.lines().count(), 2, "{shown}");
    for (name, value) in [
        // Named by a setting.
        ("MSP_GATEWAY_KEY_OF_WIV", CANARY),
        // What Kubernetes sets for Services of these names.
        ("MSP_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("MSP_GATEWAY_ADMIN_SERVICE_PORT", "9180"),
        ("MSP_GATEWAY_SERVICE_PORT_HTTP", "8080"),
        ("MSP_GATEWAY_PORT", "tcp://10.0.0.1:8080"),
        ("MSP_GATEWAY_ADMIN_PORT_9180_TCP", "tcp://10.0.0.1:9180"),
        ("MSP_GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        // Of another program.
        ("MSP_GATEWAYS", ""),
    ] {
        assert_eq!(refused(name, value), None, "{name}");
    }
}

#[test]
fn without_a_vendor_nothing_starts() {
    let refused = |text: &str| {
        let text = format!("auth.mode = \"open\"\n{text}");
        let settings = from_text("c.toml", &text, []);
        settings.err().map(|refusal| refusal.to_string())
    };
    for text in [
        "",
        "wiv.timeout = \"9s\"\n",
        "nable.account_id = \"A\"\n",
        "wiv.api_key_env = \"\"\n",
    ] {
        let shown = refused(text).unwrap_or_else(|| panic!("{text} was accepted"));
        assert!(
            shown.starts_with("c.toml: no vendor has a key: "),
            "{text}: {shown}"
        );
        assert_eq!(shown.lines().count(), 1, "{text}: {shown}");
    }
    // What is wrong with the one that is there is said alone.
    for text in [
        "nable.api_key_env = \"K\"\n",
        "wiv.api_key_env = 5\n",
        "wiv.api_key_fallback_env = \"K\"\n",
    ] {
        let shown = refused(text).unwrap_or_else(|| panic!("{text} was accepted"));
        assert!(!shown.contains("no vendor"), "{text}: {shown}");
        assert_eq!(shown.lines().count(), 1, "{text}: {shown}");
    }
    for text in [
        "wiv.api_key_env = \"K\"\n",
        "wiv.api_key_file = \"/k\"\n",
        "nable.api_key_file = \"/k\"\nnable.account_id = \"A\"\n",
    ] {
        assert_eq!(refused(text), None, "{text}");
    }
}

#[test]
fn secrets_in_the_place_of_their_names_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    for setting in [
        "wiv.api_key_file",
        "nable.api_key_file",
        "nable.account_id_file",
        "pagination.token_key_file",
    ] {
        let path = dir.path().join("config.toml");
        let more = "auth.mode = \"open\"\n[nable]\n";
        let more = match setting.strip_prefix("nable.") {
            Some("api_key_file") => {
                format!("{more}account_id = \"a\"\napi_key_file = \"{CANARY}\"")
            }
            Some(_) => format!("{more}api_key_file = \"{CANARY}\"\naccount_id_file = \"{CANARY}\""),
            None if setting.starts_with("wiv.") => format!("{setting} = \"{CANARY}\"\n{more}"),
            None => format!("wiv.api_key_env = \"PATH\"\n{setting} = \"{CANARY}\"\n{more}"),
        };
        std::fs::write(&path, more).unwrap();
        let shown = load(Some(&path))
            .unwrap()
            .read_secrets()
            .unwrap_err()
            .to_string();
        assert!(
            shown.contains(&format!("{setting}: the file it names")),
            "{shown}"
        );
        assert!(!shown.contains("cAnArY"), "{shown}");
    }
}

#[test]
fn a_lifetime_below_the_idle_time_of_walks_is_warned_of() {
    let warned = |more: &str| {
        let vendor = "[wiv]\nbase_url = \"http://127.0.0.1:1\"\napi_key_env = \"PATH\"\n";
        let text = format!("auth.mode = \"open\"\n{vendor}{more}");
        from_text("c", &text, Vec::new()).unwrap().warnings
    };
    assert_eq!(warned(""), Vec::<String>::new());
    for kind in ["open", "recent", "closed"] {
        let short = format!("[cases.{kind}]\nfresh = \"44s\"\n");
        let warnings = warned(&short);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let start = format!("cases.{kind}.fresh: shorter than pagination.scroll_idle_max; ");
        assert!(warnings[0].starts_with(&start), "{warnings:?}");
        let lower = format!("{short}[pagination]\nscroll_idle_max = \"44s\"\n");
        assert_eq!(warned(&lower), Vec::<String>::new());
    }
}

#[test]
fn secrets_are_read_and_open_files_are_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let (key, old) = (file("k", CANARY, 0o600), file("o", "older-one\n", 0o644));
    let account = file("a", "001H\n", 0o600);
    let text = format!(
        "auth.mode = \"open\"\n[nable]\napi_key_file = \"{key}\"\napi_key_fallback_file = \"{old}\"\naccount_id_file = \"{account}\"\n[pagination]\ntoken_key_file = \"{key}\"\n"
    );
    let settings = from_text("c", &text, []).unwrap();
    let secrets = settings.read_secrets().unwrap();
    assert_eq!(secrets.warnings.len(), 1, "{:?}", secrets.warnings);
    assert!(secrets.warnings[0].starts_with("nable.api_key_fallback_file: "));
    assert!(secrets.vendors.wiv.is_none() && secrets.token_key.is_some());
    let shown = format!("{settings:?} {secrets:?} {}", settings.effective());
    assert!(
        !shown.contains("cAnArY") && !shown.contains("older"),
        "{shown}"
    );
    let nable = secrets.vendors.nable.unwrap();
    assert_eq!(nable.account.as_str(), "001H");
    assert!(nable.keys.fallback.is_some());
    // Keys that could stand in any answer.
    for short in ["k", "hunter2\n"] {
        file("o", short, 0o644);
        let shown = settings.read_secrets().unwrap_err().to_string();
        let named = format!("nable.api_key_fallback_file: the file {old} is shorter than 8 bytes");
        assert!(
            shown.contains(&named) && !shown.contains("hunter2"),
            "{shown}"
        );
    }
    file("o", "hunter23", 0o644);
    assert!(settings.read_secrets().is_ok());
    // An account that would change the path it is put into.
    file("a", "../x", 0o600);
    let shown = settings.read_secrets().unwrap_err().to_string();
    assert!(
        shown.contains("nable.account_id_file: ") && !shown.contains("../x"),
        "{shown}"
    );
    file("a", "", 0o600);
    let shown = settings.read_secrets().unwrap_err().to_string();
    assert!(
        shown.contains("nable.account_id_file: ") && shown.ends_with("is empty"),
        "{shown}"
    );
}
