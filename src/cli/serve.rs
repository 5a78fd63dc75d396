//! `msp-gateway serve`: runs the gateway with the vendors in the settings.

use std::path::Path;
use std::sync::Arc;

use super::outputs::{LogFormat, Outputs, with_outputs};
use super::run::Signals;
use super::{FINE, run};
use crate::app::App;
use crate::clock::Clock;
use crate::config::SettingsAt;
use crate::metrics::Metrics;
use crate::reload::Reloader;
use crate::secrets::forbid_core_dumps;
use crate::server::{Inherited, Listeners};

/// Serves until a signal ends it. Returns the exit code.
pub fn run(path: &Path, log_format: Option<LogFormat>) -> i32 {
    // This comes first: later, other files could have the descriptors of these sockets.
    let inherited = Inherited::from_environment();
    with_outputs(log_format, |outputs, metrics, clock| {
        let inherited = inherited.map_err(|error| error.to_string())?;
        serve(path, inherited, outputs, metrics, clock)
    })
}

fn serve(
    path: &Path,
    inherited: Inherited,
    outputs: &Outputs,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<i32, String> {
    let at = SettingsAt::named(path).map_err(|refusal| refusal.to_string())?;
    let settings = at.load().map_err(|refusal| refusal.to_string())?;
    // Core dumps are forbidden before the first secret is read. A failure is logged once there is a
    // log.
    let core_dumps = forbid_core_dumps();
    let secrets = settings
        .read_secrets()
        .map_err(|refusal| refusal.to_string())?;
    for warning in settings.warnings.iter().chain(&secrets.warnings) {
        outputs.warn(warning);
    }
    let level = outputs
        .take_events(settings.log.level.as_str())
        .map_err(|why| format!("log.level: {why}"))?;
    if let Err(why) = core_dumps {
        tracing::warn!(why, "core dumps could not be switched off");
    }
    let log = outputs.access_log();
    let runtime = run::runtime().map_err(|why| format!("the runtime cannot be started: {why}"))?;
    let code = runtime.block_on(async {
        let app = App::build(&settings, &secrets, log, clock, metrics)
            .map_err(|error| error.to_string())?;
        drop(secrets);
        let reloader = Reloader::of(at, &settings).with_level(level);
        let listeners = Listeners::bind(&settings.server, inherited)
            .await
            .map_err(|error| error.to_string())?;
        let signals = Signals::take()?;
        let scheme = |tls: bool| if tls { "https" } else { "http" };
        let public = scheme(settings.server.public_tls.is_some());
        let admin = scheme(settings.server.admin_tls.is_some());
        // The gateway is useful without these lines, so a failure to print them ends nothing.
        outputs.announce(&format!(
            "public {public}://{}\nadmin {admin}://{}",
            listeners.public_address(),
            listeners.admin_address()
        ));
        run::until_told(app, listeners, signals, Some(reloader)).await;
        Ok(FINE)
    });
    // Blocking threads are not waited for, because a name lookup or a check of a file may hang for
    // any time.
    runtime.shutdown_background();
    code
}
