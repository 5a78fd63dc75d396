//! Listens to the channel of the bell, over a connection of its own.
//!
//! It is a second connection because a server limits what may wait for a subscriber (32 MiB by
//! default). Large replies on the first connection would reach that limit, and would delay rings.
//!
//! The task that drives the connection hands each ring on at once, so no ring waits in a queue
//! here. A lost connection is replaced after a pause. Rings in between are lost, and gateways look
//! as often as without the bell.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::task::JoinHandle;

use super::connect::{CONNECT_MAX, ValkeyAddress, open, told};
use super::{LoggedReason, RECONNECT, RECONNECT_MAX, ValkeyShared};
use crate::clock::{Duration, Instant, sleep, timeout};
use crate::store::bell::Ring;

/// How often an idle connection is tested. A connection that is lost without a word costs this
/// long, for which gateways look as often as without the bell.
const TEST_EVERY: Duration = Duration::from_secs(5);
/// How long a lost bell is not logged. If the store itself is lost, that is noticed within this
/// time, and ends the task.
const UNLOGGED: Duration = Duration::from_secs(1);
/// What the channel is tested with. It is no ring, so nobody looks.
const TEST: &[u8] = b"??";

/// The task that listens. It is stopped when this is dropped.
pub(super) struct ListenTask(JoinHandle<()>);

impl ListenTask {
    /// Begins to listen at the server that the store uses.
    pub fn begin(shared: Arc<ValkeyShared>, address: ValkeyAddress) -> Self {
        Self(tokio::spawn(listen(shared, address)))
    }
}

impl Drop for ListenTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection that is subscribed to the channel.
pub(super) struct Subscription {
    connection: MultiplexedConnection,
    /// The task that drives the connection.
    driver: JoinHandle<()>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn listen(shared: Arc<ValkeyShared>, address: ValkeyAddress) {
    let (mut logged, mut warned, mut pause) = (LoggedReason::default(), false, RECONNECT);
    let mut lost: Option<Instant> = None;
    loop {
        let why = match timeout(CONNECT_MAX, subscribe(&shared, &address)).await {
            Ok(Ok(subscription)) => {
                pause = RECONNECT;
                if std::mem::take(&mut warned) {
                    tracing::info!(%address, "the bell of the store is heard again");
                }
                logged = LoggedReason::default();
                lost = None;
                until_lost(subscription).await
            }
            Ok(Err(why)) => why,
            Err(_) => "did not answer within a second".to_owned(),
        };
        let (why, now) = (format!("{address} {why}"), shared.wire.clock.now());
        let since = *lost.get_or_insert(now);
        if now >= since + UNLOGGED && logged.is_news(&why, now) {
            warned = true;
            tracing::warn!(
                why,
                "the store works, but its bell is not heard: gateways wait longer for each other"
            );
        }
        sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

pub(super) async fn subscribe(
    shared: &Arc<ValkeyShared>,
    address: &ValkeyAddress,
) -> Result<Subscription, String> {
    let (channel, hears) = (shared.wire.channel(), shared.clone());
    let hook = move |push| {
        if let (Some(hook), Some(ring)) = (hears.on_ring.get(), ring_of(&push)) {
            hook(ring);
        }
    };
    let (connection, driver) = open(address, &shared.access, Some(Box::new(hook))).await?;
    let mut subscription = Subscription { connection, driver };
    let connection = &mut subscription.connection;
    let subscribed = connection.subscribe(&channel).await;
    subscribed.map_err(|error| told(&error))?;
    // The scripts go on without this right, so it is tested here.
    let mut publish = redis::cmd("PUBLISH");
    let published = publish.arg(&channel).arg(TEST).exec_async(connection).await;
    published.map_err(|error| told(&error))?;
    Ok(subscription)
}

/// Waits until a connection is lost. Returns the reason.
async fn until_lost(mut subscription: Subscription) -> String {
    loop {
        tokio::select! {
            // Only the end of the connection ends it.
            _ = &mut subscription.driver => return "closed the connection".to_owned(),
            () = sleep(TEST_EVERY) => {}
        }
        let time = redis::cmd("TIME");
        let answered = subscription.connection.send_packed_command(&time);
        match timeout(CONNECT_MAX, answered).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return told(&error),
            Err(_) => return "did not answer within a second".to_owned(),
        }
    }
}

/// Reads a ring. `None` for anything else that the server sends.
fn ring_of(push: &PushInfo) -> Option<Ring> {
    match (&push.kind, push.data.as_slice()) {
        (PushKind::Message, [_, Value::BulkString(message)]) => Ring::of_bytes(message),
        _ => None,
    }
}
