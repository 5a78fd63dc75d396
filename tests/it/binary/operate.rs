//! What operators ask of a running gateway with the program itself.

use std::io::{Seek as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use msp_gateway::sandbox::WIV_KEY;
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Ended, Process, Vendors, Web, World, everyone};

fn operate(world: &World, arguments: &[&str]) -> Ended {
    let admin = ["--admin", world.admin.as_str()];
    Process::run(&[arguments, &admin].concat(), &[])
}

/// The text of a command that went well.
fn fine(world: &World, arguments: &[&str]) -> String {
    let ended = operate(world, arguments);
    assert_eq!(
        (ended.code, &*ended.stderr),
        (Some(0), ""),
        "{arguments:?} {}",
        ended.stdout
    );
    ended.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_gateway_is_looked_at_purged_and_told_to_go_on() {
    let world = World::start(600, &everyone("alice"), &[]);
    assert_eq!(world.get("alice", "/msp/customers").await.status, 200);

    let told = fine(&world, &["status"]);
    for words in [
        "msp-gateway 0.1.0, up ",
        "wiv    ok, budget ",
        "nable  ok, budget ",
        "alice ",
        " caused        1 ",
    ] {
        assert!(told.contains(words), "{words:?} in {told}");
    }
    let json: Value = serde_json::from_str(&fine(&world, &["status", "--format", "json"])).unwrap();
    assert_eq!(json["vendors"]["wiv"]["state"], "ok");

    let told = fine(&world, &["explain", "/msp/customers?fields=id"]);
    assert!(
        told.contains("It is fresh: it would be served as it is."),
        "{told}"
    );
    assert!(told.contains("No vendor would be called."), "{told}");
    let search = ["explain", "/v2/cases/msp/search", "--body", "{}"];
    let told = fine(&world, &search);
    assert!(told.contains("Nothing is in memory for it."), "{told}");
    assert!(
        told.contains("The vendor wiv would be called (search), in the lane interactive."),
        "{told}"
    );

    assert!(
        fine(&world, &["purge", "--kind", "customers"])
            .starts_with("purged 1 (all customers): fetched again")
    );
    let told = fine(&world, &["explain", "/msp/customers"]);
    assert!(told.contains("It is stale"), "{told}");
    assert!(
        fine(&world, &["purge", "--all", "--hard"]).starts_with("purged 1 (everything): removed")
    );
    assert_eq!(fine(&world, &["resume", "wiv"]), "wiv asked for no wait\n");
    assert_eq!(fine(&world, &["healthcheck"]), "{\"alive\":true}\n");
    assert!(fine(&world, &["healthcheck", "--ready"]).contains("\"ready\":true"));

    // The gateway's own words where it refuses.
    for (arguments, words) in [
        (&["purge", "--kind", "case"][..], "invalid_body"),
        (&["explain", "/nothing"], "target"),
        (&["resume", "nobody"], "invalid_body"),
    ] {
        let ended = operate(&world, arguments);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{arguments:?}");
        assert_eq!(ended.stderr.lines().count(), 1);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    world.hold().await;
}

/// Beyond loopback, an operator's key; here the listener only believes to be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_loopback_a_key_is_needed_and_never_shown() {
    let made = Process::run(&["caller", "new", "ops", "--role", "operator"], &[]);
    let (key, stanza) = made.stdout.split_once("\n\n").unwrap();
    let all = [("MSP_GATEWAY__LISTEN__ADMIN", "0.0.0.0:0")];
    let world = World::start(600, &(everyone("alice") + stanza), &all);
    let port = world.admin.rsplit_once(':').unwrap().1;
    let admin = format!("http://127.0.0.1:{port}");
    let purge = ["purge", "--all", "--admin", &admin];
    let ended = Process::run(&purge, &[]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("401 authentication_required"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("--key-env"), "{}", ended.stderr);
    let with_key = [&purge[..], &["--key-env", "OPS_KEY"]].concat();
    let ended = Process::run(&with_key, &[("OPS_KEY", key)]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let ended = Process::run(&with_key, &[("OPS_KEY", "canary-0123456789")]);
    assert_eq!(ended.code, Some(1));
    assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    assert_eq!(Process::run(&with_key, &[]).code, Some(1));
    // The probe of a container needs none.
    let probe = ["healthcheck", "--admin", &admin];
    assert_eq!(Process::run(&probe, &[]).code, Some(0));
}

#[test]
fn a_gateway_that_is_not_there_is_one_line_and_wrong_usage_is_2() {
    let port = {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap().port()
    };
    let admin = format!("http://127.0.0.1:{port}");
    for command in [
        &["status"][..],
        &["explain", "/msp/customers"],
        &["purge", "--all"],
        &["resume", "wiv"],
        &["healthcheck"],
        &["healthcheck", "--ready"],
    ] {
        let ended = Process::run(&[command, &["--admin", &admin]].concat(), &[]);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{command:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(&admin), "{}", ended.stderr);
    }
    for wrong in [
        &["purge"][..],
        &["purge", "--all", "--kind", "cases"],
        &["resume"],
        &["explain"],
        &["status", "--admin", "ftp://x"],
        &["status", "--format", "xml"],
        &["completions", "dos"],
        &["check", "--schema", "--changed"],
    ] {
        assert_eq!(Process::run(wrong, &[]).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn what_packages_hold_is_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = Process::run(&["completions", shell], &[]);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{shell}");
        assert!(ended.stdout.contains("healthcheck"), "{shell}");
    }
    let page = Process::run(&["man"], &[]);
    assert_eq!((page.code, &*page.stderr), (Some(0), ""));
    assert!(page.stdout.contains(".TH msp-gateway 1"));
    let schema = Process::run(&["check", "--schema"], &[]);
    assert_eq!((schema.code, &*schema.stderr), (Some(0), ""));
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(
        schema["properties"]["listen"]["properties"]["admin"]["default"],
        "127.0.0.1:9180"
    );
}

#[test]
fn settings_are_checked_from_standard_input() {
    let check = |text: &str| {
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.rewind().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_msp-gateway"));
        command
            .args(["check", "--config", "-", "--changed"])
            .env_clear();
        command.env("VENDOR_KEY", "0123456789");
        Process::spawn_over(command, Stdio::from(input)).ended()
    };
    let good = "auth.mode = \"open\"\nwiv.api_key_env = \"VENDOR_KEY\"\n";
    let ended = check(good);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert!(
        ended.stdout.contains("mode = \"open\" # standard input"),
        "{}",
        ended.stdout
    );
    let ended = check("auth.mode = \"opened\"\n");
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    assert!(
        ended.stderr.contains("standard input:1: auth.mode: "),
        "{}",
        ended.stderr
    );
}

/// Settings from standard input, as from a secret store: they stay what they were, keys and
/// certificates are exchanged as ever.
#[tokio::test]
async fn the_gateway_serves_with_settings_from_standard_input() {
    let web = Web::new();
    let vendors = Vendors::start(50, &web);
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("wiv.key");
    std::fs::write(&key, "wrong-key-at-first").unwrap();
    let text = format!(
        "auth.mode = \"open\"\nlimits.drain_delay = \"0s\"\n[listen]\npublic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[wiv]\nbase_url = \"http://{}\"\napi_key_file = \"{}\"\n",
        vendors.address,
        key.display()
    );
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    input.rewind().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_msp-gateway"));
    command.args(["serve", "--config", "-"]).env_clear();
    let gateway = Process::spawn_over(command, Stdio::from(input));
    gateway.until_stdout("admin http://");
    let printed = gateway.stdout();
    let at = |name: &str| {
        let line = printed.lines().find(|line| line.starts_with(name)).unwrap();
        line.split(' ').nth(1).unwrap().to_owned()
    };
    let (public, admin) = (at("public"), at("admin"));
    let customers = format!("{public}/msp/customers");
    assert_eq!(
        web.get(&customers).await.code(),
        "vendor_credential_rejected"
    );
    std::fs::write(&key, WIV_KEY).unwrap();
    gateway.until_stderr("settings reloaded", 1);
    assert_eq!(web.get(&customers).await.status, 200);
    gateway.signal(Signal::HUP);
    gateway.until_stderr("settings reloaded", 2);
    let settings = web.get(&format!("{admin}/admin/settings")).await.json();
    let told = settings["settings"].as_array().unwrap();
    let mode = told
        .iter()
        .find(|one| one["setting"] == "auth.mode")
        .unwrap();
    assert_eq!(
        (&mode["value"], &mode["source"]),
        (&"\"open\"".into(), &"standard input".into())
    );
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code, Some(0));
}
