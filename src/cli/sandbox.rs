//! `msp-gateway sandbox`: simulates both vendors.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::outputs::{Outputs, with_outputs};
use super::{FINE, run};
use crate::clock::Clock;
use crate::sandbox::{NABLE_ACCOUNT, NABLE_KEY, Options, Sandbox, WIV_KEY};

/// Returns options with this quota for each vendor; 0: none.
pub fn with_quota(requests_per_minute: u32) -> Options {
    let quota = (requests_per_minute > 0).then_some(requests_per_minute);
    Options {
        wiv_requests_per_minute: quota,
        nable_requests_per_minute: quota,
        ..Options::default()
    }
}

/// Serves until a signal ends it. The last day of the world is today. Returns the exit code.
pub fn run(listen: SocketAddr, options: Options) -> i32 {
    with_outputs(None, |outputs, _, clock| {
        let options = Options {
            today: clock.today(&jiff::tz::TimeZone::UTC),
            ..options
        };
        serve(listen, options, clock, outputs)
    })
}

fn serve(
    listen: SocketAddr,
    options: Options,
    clock: Clock,
    outputs: &Outputs,
) -> Result<i32, String> {
    let runtime = run::runtime().map_err(|why| format!("the runtime cannot be started: {why}"))?;
    runtime.block_on(async {
        let listener = bind(listen, "--listen").await?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        outputs.announce(&format!(
            "wiv    http://{address}  X-API-Key: {WIV_KEY}\n\
             nable  http://{address}/ws/rest/V1/PSA_API  x-api-key: {NABLE_KEY}  account: {NABLE_ACCOUNT}\n\
             control http://{address}/__sandbox/counts"
        ));
        Sandbox::new(options, clock).serve(listener, told()).await;
        Ok(FINE)
    })
}

/// Binds a listener.
///
/// # Errors
/// Returns one line that names the flag to change.
pub async fn bind(listen: SocketAddr, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}; choose another with {flag}"))
}

/// Returns on the first signal that ends the program.
async fn told() {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    if let (Ok(mut terminate), Ok(mut interrupt)) = signals {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
