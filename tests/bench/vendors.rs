//! `vendors LISTEN CUSTOMERS CASES`: the simulated vendors with a world of this size and no quota.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A tool: it may end at the first surprise.

use msp_gateway::clock::Clock;
use msp_gateway::sandbox::{Options, Sandbox};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1);
    let listen = words.next().expect("LISTEN");
    let mut number = || words.next().expect("a number").parse().expect("a number");
    let (customers, cases) = (number(), number());
    let clock = Clock::system();
    let options = Options {
        customers,
        cases,
        wiv_requests_per_minute: None,
        nable_requests_per_minute: None,
        ..Options::default()
    };
    let listener = TcpListener::bind(listen).await.expect("a free address");
    println!("ready");
    Sandbox::new(options, clock)
        .serve(listener, std::future::pending())
        .await;
}
