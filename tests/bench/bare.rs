//! `bare LISTEN cache|origin PATH=FILE…`: serves the bodies of these files over loopback. With
//! `cache` it is the peer without a product around it, with `origin` the origin behind the other
//! peers.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A tool: it may end at the first surprise.

mod shelf;

use std::collections::HashMap;

use shelf::Shelf;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1);
    let listen = words.next().expect("LISTEN");
    let cached = words.next().expect("cache or origin") == "cache";
    let bodies: HashMap<_, _> = words
        .map(|word| {
            let (path, file) = word.split_once('=').expect("PATH=FILE");
            let body = std::fs::read(file).expect("a readable file");
            (path.to_owned(), body.into())
        })
        .collect();
    let shelf = Shelf::new(bodies, cached);
    let listener = TcpListener::bind(listen).await.expect("a free address");
    println!("ready");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        stream.set_nodelay(true).unwrap();
        tokio::spawn(shelf.clone().serve(stream));
    }
}
