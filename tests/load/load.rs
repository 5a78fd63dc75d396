//! Loads a running gateway over loopback until its standard input ends. Then prints the results as
//! one JSON line. `overload`, `restarts` and `slow` beside this file use it.

mod caller;
mod open;

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};

use clap::Parser;
use msp_gateway::clock::Duration;

use caller::{Load, Progress, within};

#[derive(Parser)]
struct Arguments {
    /// Where the gateway listens; loopback only
    #[arg(long)]
    address: SocketAddr,
    /// The address to connect from
    #[arg(long)]
    from: Option<IpAddr>,
    /// A caller key
    #[arg(long, default_value = "")]
    key: String,
    /// Connections that ask one request after the other
    #[arg(long, default_value_t = 48)]
    busy: usize,
    /// Connections that pause before each request
    #[arg(long, default_value_t = 0)]
    pausing: usize,
    /// The longest pause, in milliseconds
    #[arg(long, default_value_t = 3000)]
    pause: u64,
    /// Requests a second of the busy ones; 0 for as many as are answered
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Requests a second, up to a thousand, at random times, whatever the answers do; --busy is how
    /// many may wait for theirs at once
    #[arg(long, conflicts_with = "rate", conflicts_with = "pausing")]
    open: Option<f64>,
    /// Asks this search only; @ stands for the request's number
    #[arg(long)]
    search: Option<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    if !arguments.address.ip().is_loopback() {
        return Err("loads loopback addresses only".into());
    }
    let load = Load {
        address: arguments.address,
        from: arguments.from,
        key: arguments.key,
        busy: arguments.busy,
        pausing: (arguments.pausing, Duration::from_millis(arguments.pause)),
        rate: arguments.rate,
        search: arguments.search,
    };
    let progress = Progress::default();
    let theirs = progress.clone();
    std::thread::spawn(move || {
        // One line for each byte read, so that the script that runs it knows how far the load is.
        let mut byte = [0];
        while let Ok(1) = std::io::stdin().read(&mut byte) {
            println!("{}", theirs.asked());
        }
        theirs.stop();
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (tally, seconds) = runtime.block_on(async {
        match arguments.open {
            Some(rate) => open::run(&load, rate, &progress).await,
            None => (load.run(&progress).await, Vec::new()),
        }
    });
    let times = |sorted: &[f32]| {
        serde_json::json!({
            "count": sorted.len(),
            "p50_ms": within(sorted, 0.5) * 1e3,
            "p99_ms": within(sorted, 0.99) * 1e3,
            "max_ms": within(sorted, 1.0) * 1e3,
        })
    };
    let told = serde_json::json!({
        "good": tally.good,
        "failed": tally.failures(),
        "why": tally.failed,
        "connections": tally.connections,
        "closed_idle": tally.closed_idle,
        "took": times(&tally.took),
        "refused": times(&tally.refused),
        "unadvised": tally.unadvised,
        "seconds": seconds,
    });
    println!("{told}");
    Ok(())
}
