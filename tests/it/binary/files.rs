//! Files that never answer: what stands in the place of settings, keys and certificates hangs.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use super::encrypted::Encrypted;
use crate::authority::{Authority, Files, NAME};
use crate::process::{Process, everyone, settings, write_key};

/// A pipe that nobody writes to.
fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
}

/// Puts a pipe where a file is; returns where the file is now.
fn replace_by_pipe(path: &Path) -> PathBuf {
    let aside = path.with_extension("aside");
    std::fs::rename(path, &aside).unwrap();
    make_pipe(path);
    aside
}

/// A program's files, all good.
struct Prepared {
    dir: tempfile::TempDir,
    tls: Files,
}

impl Prepared {
    fn new(authority: &Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = settings("127.0.0.1:1", dir.path(), &everyone("alice"));
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        write_key(&dir.path().join("nable.key"), "canary-of-a-key");
        write_key(&dir.path().join("token.key"), "canary-of-a-token-key");
        let tls = Files::of(&authority.server(NAME, (2020, 2100)));
        Self { dir, tls }
    }

    fn path(&self, name: &str) -> PathBuf {
        match name.starts_with("tls.") {
            true => self.tls.path(name),
            false => self.dir.path().join(name),
        }
    }

    fn start(&self, command: &str) -> Process {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        let tls = "MSP_GATEWAY__LISTEN__PUBLIC_TLS__";
        let environment = [
            ("WIV_CANARY_KEY".to_owned(), "canary-of-a-key".to_owned()),
            (
                "MSP_GATEWAY__PAGINATION__TOKEN_KEY_FILE".to_owned(),
                path("token.key"),
            ),
            (format!("{tls}CERTIFICATE_FILE"), path("tls.crt")),
            (format!("{tls}PRIVATE_KEY_FILE"), path("tls.key")),
        ];
        let environment = environment
            .each_ref()
            .map(|(name, value)| (&**name, &**value));
        Process::start(&[command, "--config", &path("config.toml")], &environment)
    }
}

#[test]
fn a_start_over_a_file_that_hangs_ends_with_a_line_that_names_it() {
    let authority = Authority::new();
    let cases = [
        ("check", "config.toml", "config.toml: "),
        ("serve", "config.toml", "config.toml: "),
        ("serve", "nable.key", "nable.api_key_file: "),
        ("serve", "token.key", "pagination.token_key_file: "),
        ("serve", "tls.crt", "listen.public_tls.certificate_file: "),
        ("serve", "tls.key", "listen.public_tls.private_key_file: "),
    ];
    // All at once, for each takes its time.
    let started = cases.map(|(command, name, setting)| {
        let files = Prepared::new(&authority);
        replace_by_pipe(&files.path(name));
        (files.start(command), setting, files)
    });
    for (program, setting, _files) in started {
        let ended = program.ended();
        assert_eq!(ended.code, Some(1), "{setting}{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(setting), "{}", ended.stderr);
        let why = "no answer within 5 s";
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
    // A pipe that somebody writes to is read, once.
    let files = Prepared::new(&authority);
    let config = files.path("config.toml");
    let aside = replace_by_pipe(&config);
    let checked = files.start("check");
    std::fs::write(&config, std::fs::read(&aside).unwrap()).unwrap();
    assert_eq!(checked.ended().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_hang_while_it_runs_change_nothing_and_hold_nobody_up() {
    let token_keys = tempfile::tempdir().unwrap();
    let token_key = token_keys.path().join("token.key");
    write_key(&token_key, "canary-of-a-token-key");
    let gateway = Encrypted::start(&[
        (
            "MSP_GATEWAY__PAGINATION__TOKEN_KEY_FILE",
            token_key.to_str().unwrap(),
        ),
        ("MSP_GATEWAY__LOG__LEVEL", "info"),
    ]);
    let world = &gateway.world;
    let config = world.config();
    let nable_key = world.dir.path().join("nable.key");
    let certificate = gateway.files.path("tls.crt");
    let still_serves = async || {
        assert_eq!(gateway.customers().await, 200);
        let ready = world.web.get(&format!("{}/readyz", world.admin)).await;
        assert_eq!(ready.status, 200);
    };
    let refused = "the new settings were rejected; the old ones stay in force";
    for (at, path) in [&config, &nable_key, &token_key, &certificate]
        .into_iter()
        .enumerate()
    {
        let aside = replace_by_pipe(path);
        world.gateway.until_stderr(refused, at + 1);
        still_serves().await;
        assert_eq!(
            world.metric("config_last_reload_successful").await,
            0.0,
            "{path:?}"
        );
        std::fs::rename(aside, path).unwrap();
        world.gateway.until_stderr("\"settings reloaded\"", at + 1);
        still_serves().await;
        assert_eq!(
            world.gateway.stderr().matches(refused).count(),
            at + 1,
            "told once"
        );
    }
    // New settings name a pipe: they are given up, others are taken afterwards.
    let pipe = world.dir.path().join("pipe");
    make_pipe(&pipe);
    let good = std::fs::read_to_string(&config).unwrap();
    let key = nable_key.to_str().unwrap();
    std::fs::write(&config, good.replace(key, pipe.to_str().unwrap())).unwrap();
    world
        .gateway
        .until_stderr("nable.api_key_file: the file ", 1);
    still_serves().await;
    std::fs::write(&config, good).unwrap();
    world.gateway.until_stderr("\"settings reloaded\"", 5);
    // The end does not wait for what hangs.
    replace_by_pipe(&config);
    world.gateway.signal(Signal::HUP);
    world.gateway.until_stderr(refused, 6);
    gateway.world.gateway.signal(Signal::TERM);
    assert_eq!(gateway.world.gateway.ended().code, Some(0));
}
