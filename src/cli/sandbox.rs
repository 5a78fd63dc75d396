//! `msp-gateway sandbox`: both vendors, simulated.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{FINE, refuse, run};
use crate::clock::Clock;
use crate::sandbox::{NABLE_ACCOUNT, NABLE_KEY, Options, Sandbox, WIV_KEY};

/// Serves until told to leave; returns the exit code.
pub fn run(listen: SocketAddr, seed: u64, cases: usize, requests_per_minute: u32) -> i32 {
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(format!("the runtime cannot be started: {error}")),
    };
    runtime.block_on(async {
        let listener = match bind(listen, "--listen").await {
            Ok(listener) => listener,
            Err(why) => return refuse(why),
        };
        let address = match listener.local_addr() {
            Ok(address) => address,
            Err(error) => return refuse(error),
        };
        let clock = Clock::system();
        let quota = (requests_per_minute > 0).then_some(requests_per_minute);
        let options = Options {
            seed,
            cases,
            today: clock.today(&jiff::tz::TimeZone::UTC),
            wiv_requests_per_minute: quota,
            nable_requests_per_minute: quota,
            ..Options::default()
        };
        println!("wiv    http://{address}  X-API-Key: {WIV_KEY}");
        println!(
            "nable  http://{address}/ws/rest/V1/PSA_API  x-api-key: {NABLE_KEY}  account: {NABLE_ACCOUNT}"
        );
        println!("control http://{address}/__sandbox/counts");
        Sandbox::new(options, clock).serve(listener, told()).await;
        FINE
    })
}

/// A listener, or one line that names the flag to change.
pub async fn bind(listen: SocketAddr, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}; choose another with {flag}"))
}

/// Ends with the first signal to leave.
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
