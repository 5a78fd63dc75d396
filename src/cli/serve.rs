//! `msp-gateway serve`: the gateway against the vendors that the settings name.

use std::path::Path;

use super::{refuse, run};
use crate::app::App;
use crate::clock::Clock;
use crate::config;
use crate::metrics::Metrics;
use crate::reload::Reloader;
use crate::secrets::forbid_core_dumps;
use crate::server::{Inherited, Listeners};
use crate::telemetry::{LogSink, events_to_stderr, panics_to_events};

/// Serves until told to leave; returns the exit code.
pub fn run(path: &Path) -> i32 {
    // First of all: later, other files could stand where these sockets should be.
    let inherited = match Inherited::from_environment() {
        Ok(inherited) => inherited,
        Err(error) => return refuse(error),
    };
    let settings = match config::load(Some(path)) {
        Ok(settings) => settings,
        Err(refusal) => return refuse(refusal),
    };
    // Before the first secret is read; told once there is a log.
    let core_dumps = forbid_core_dumps();
    let secrets = match settings.read_secrets() {
        Ok(secrets) => secrets,
        Err(refusal) => return refuse(refusal),
    };
    for warning in settings.warnings.iter().chain(&secrets.warnings) {
        eprintln!("msp-gateway: warning: {warning}");
    }
    if let Err(why) = events_to_stderr(settings.log.level.as_str()) {
        return refuse(format!("log.level: {why}"));
    }
    // A panic's own text may hold anything a vendor or a caller sent.
    panics_to_events();
    if let Err(why) = core_dumps {
        tracing::warn!(why, "core dumps could not be switched off");
    }
    let metrics = match Metrics::new() {
        Ok(metrics) => metrics,
        Err(error) => return refuse(error),
    };
    let clock = Clock::system();
    let log = if settings.log.access {
        let out = Box::new(std::io::stdout());
        match LogSink::thread(out, metrics.clone(), clock.clone()) {
            Ok(log) => log,
            Err(error) => return refuse(format!("the access log cannot be started: {error}")),
        }
    } else {
        LogSink::off()
    };
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(format!("the runtime cannot be started: {error}")),
    };
    runtime.block_on(async {
        let app = match App::build(&settings, &secrets, log, clock, metrics) {
            Ok(app) => app,
            Err(error) => return refuse(error),
        };
        drop(secrets);
        let reloader = Reloader::new(path, &settings);
        let bound = |listeners: &Listeners| {
            let scheme = |tls: bool| if tls { "https" } else { "http" };
            let public = scheme(settings.server.public_tls.is_some());
            let admin = scheme(settings.server.admin_tls.is_some());
            println!("public {public}://{}", listeners.public_address());
            println!("admin {admin}://{}", listeners.admin_address());
        };
        run::until_told(app, &settings.server, inherited, Some(reloader), bound).await
    })
}
