//! What the program says to wrong settings and wrong usage, and how it makes caller keys.

use std::net::TcpListener;

use crate::process::{Ended, Process, World, everyone};

const SECRET: &str = "canary-of-a-secret-0123456789";

fn serve(text: &str, environment: &[(&str, &str)]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    Process::run(&["serve", "--config", path.to_str().unwrap()], environment)
}

/// One line that holds `words`, exit code 1, and no secret.
fn refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stdout, "");
    // Events may come before it, where the settings themselves are good.
    let plain = ended.stderr.lines().filter(|line| !line.starts_with('{'));
    assert_eq!(plain.count(), 1, "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word} in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
}

#[test]
fn bad_settings_are_one_clear_line() {
    let open = "auth.mode = \"open\"\nlisten.public = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nwiv.api_key_env = \"VENDOR_KEY\"\n";
    let env: &[(&str, &str)] = &[("VENDOR_KEY", SECRET)];
    /// Lines of settings, environment, and words of the refusal.
    type Bad<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let bad: [Bad<'_>; 12] = [
        (
            "wiv.requests_per_minute = \"many\"\n",
            env,
            &["config.toml:5", "wiv.requests_per_minute"],
        ),
        ("wiv.timeout = 10\n", env, &["config.toml:5", "wiv.timeout"]),
        (
            "wiv.colour = \"red\"\n",
            env,
            &["config.toml:5", "wiv.colour"],
        ),
        (
            "[wiv.keys]\nfirst = \"canary-of-a-secret-0123456789\"\n",
            env,
            &["wiv.keys"],
        ),
        (
            "wiv.api_key = \"canary-of-a-secret-0123456789\"\n",
            env,
            &["config.toml:5", "wiv.api_key"],
        ),
        (
            "nable.api_key_env = \"UNSET_VARIABLE\"\nnable.account_id = \"A\"\n",
            env,
            &["nable.api_key_env", "UNSET_VARIABLE"],
        ),
        (
            "nable.api_key_file = \"/no/such/file\"\nnable.account_id = \"A\"\n",
            env,
            &["nable.api_key_file", "/no/such/file"],
        ),
        ("", &[], &["wiv.api_key_env", "VENDOR_KEY"]),
        (
            "",
            &[("VENDOR_KEY", "")],
            &["wiv.api_key_env", "VENDOR_KEY"],
        ),
        (
            "",
            &[
                ("VENDOR_KEY", SECRET),
                ("MSP_GATEWAY__WIV__TIMEOUT", "soon"),
            ],
            &["MSP_GATEWAY__WIV__TIMEOUT"],
        ),
        (
            "",
            &[
                ("VENDOR_KEY", SECRET),
                ("MSP_GATEWAY__WIV__API_KEY", SECRET),
            ],
            &["MSP_GATEWAY__WIV__API_KEY"],
        ),
        (
            "[[callers]]\nname = \"a\"\nkey_hash = \"canary-of-a-secret-0123456789\"\ncustomers = [\"*\"]\n",
            env,
            &["key_hash"],
        ),
    ];
    for (more, environment, words) in bad {
        refused(&serve(&format!("{open}{more}"), environment), words);
    }
    let missing = Process::run(&["serve", "--config", "/no/such/config.toml"], &[]);
    refused(&missing, &["/no/such/config.toml"]);
    // Broken TOML, with a secret in the broken line.
    refused(
        &serve("[wiv\napi_key = canary-of-a-secret-0123456789\n", &[]),
        &["config.toml:1"],
    );
}

/// A key that is not there, or empty as where a service manager has none to hand over.
#[test]
fn an_optional_vendor_without_a_key_is_disabled_and_one_must_have_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, empty, short) = (file("good", SECRET), file("empty", ""), file("short", "x"));
    let line_feed = file("line_feed", "\n");
    let absent = dir.path().join("absent").to_str().unwrap().to_owned();
    let check = |wiv: &str, nable: &str, optional: bool| {
        let text = format!(
            "auth.mode = \"open\"\n[wiv]\napi_key_file = \"{wiv}\"\noptional = {optional}\n[nable]\napi_key_file = \"{nable}\"\naccount_id_file = \"{nable}\"\noptional = {optional}\n"
        );
        let config = file("config.toml", &text);
        Process::run(&["check", "--config", &config], &[])
    };
    for none in [&absent, &empty, &line_feed] {
        let ended = check(&good, none, true);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let warned = ended.stderr.lines().any(|line| {
            line.starts_with("warning: nable: disabled, because the file ")
                && line.ends_with(" (nable.optional = true)")
        });
        assert!(warned, "{}", ended.stderr);
        // Without the setting it is refused, and so is a gateway without any vendor.
        let ended = check(&good, none, false);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
        assert!(ended.stderr.contains("nable.api_key_file: "));
        let ended = check(none, none, true);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
        for vendor in ["wiv", "nable"] {
            let line = format!("{vendor}.api_key_file: the file ");
            assert!(ended.stderr.contains(&line), "{}", ended.stderr);
        }
    }
    // A key that cannot be one is no absence.
    let ended = check(&good, &short, true);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("is shorter than"), "{}", ended.stderr);
}

#[test]
fn an_address_in_use_names_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for setting in ["public", "admin"] {
        let other = if setting == "public" {
            "admin"
        } else {
            "public"
        };
        let text = format!(
            "auth.mode = \"open\"\nlisten.{setting} = \"{address}\"\nlisten.{other} = \"127.0.0.1:0\"\nwiv.api_key_env = \"VENDOR_KEY\"\n"
        );
        let ended = serve(&text, &[("VENDOR_KEY", SECRET)]);
        refused(&ended, &[&format!("listen.{setting}"), &address]);
    }
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let wrong: [&[&str]; 7] = [
        &[],
        &["run"],
        &["serve"],
        &["serve", "--config"],
        &["sandbox", "--listen", "here"],
        &["demo", "--port", "1"],
        &["caller", "new", "Not A Name"],
    ];
    for arguments in wrong {
        let ended = Process::run(arguments, &[]);
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [["--help"], ["--version"]] {
        let ended = Process::run(&arguments, &[]);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        assert!(ended.stdout.contains("msp-gateway"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_caller_is_pasted_checked_and_let_in() {
    let made = Process::run(&["caller", "new", "carol", "--customers", "org_2"], &[]);
    assert_eq!((made.code, &*made.stderr), (Some(0), ""));
    let (key, stanza) = made.stdout.split_once("\n\n").unwrap();
    assert!(!key.contains(char::is_whitespace));
    let world = World::start(600, &(everyone("alice") + stanza), &[]);
    let bearer = format!("Bearer {key}");
    let target = "/msp/customers?fields=id";
    let answer = world
        .send("GET", target, &[("authorization", &bearer)], "")
        .await;
    assert_eq!(
        (answer.status, answer.text()),
        (200, "[{\"customer_id\":\"org_2\"}]")
    );

    // `check` shows what is in force, and where from, but no secret.
    let config = world.config();
    let environment = [
        ("WIV_CANARY_KEY", SECRET),
        ("MSP_GATEWAY__WIV__TIMEOUT", "7s"),
    ];
    let checked = Process::run(
        &["check", "--config", config.to_str().unwrap()],
        &environment,
    );
    assert_eq!((checked.code, &*checked.stderr), (Some(0), ""));
    let line = |start: &str| {
        let line = checked.stdout.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("{}", checked.stdout))
            .to_owned()
    };
    assert!(line("timeout = \"7s\"").contains("MSP_GATEWAY__WIV__TIMEOUT"));
    assert!(line("api_key_env = \"WIV_CANARY_KEY\"").contains("config.toml"));
    assert!(line("derive_customer = true").ends_with("# default"));
    assert!(!checked.stdout.contains(SECRET) && !checked.stdout.contains(key));
    assert!(!checked.stdout.contains("sandbox-nable-key"));
    toml::from_str::<toml::Table>(&checked.stdout).unwrap();
    let refused = Process::run(&["check", "--config", config.to_str().unwrap()], &[]);
    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
    assert!(
        refused.stderr.contains("WIV_CANARY_KEY"),
        "{}",
        refused.stderr
    );
    world.hold_to_openapi("alice").await;
    world.hold().await;
}
