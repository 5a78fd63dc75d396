//! A store in an existing Valkey or Redis server, shared by all gateways that use this server.
//!
//! ```text
//! call, ask ─▶ queue (1,024 commands, 64 MiB) ─▶ keeper's task ─▶ one connection ─▶ scripts
//!      ◀───────────────── reply, or 50 ms without one ────────────────┘
//! ```
//!
//! - One task, the *keeper*, owns the connection. It sends commands in the order of the calls, and
//!   replies arrive in that order. If a caller stops waiting, the keeper receives its reply.
//! - After three late replies in a row or a broken connection, the engine is *away*. Then
//!   operations fail at once, and the keeper reconnects after pauses of 250 ms to 2 s.
//! - A second connection receives the rings of the bell (`listen.rs`). It begins and ends with the
//!   first one. Without it, gateways wait for each other by looking only.
//! - Every change is one script (`scripts.rs`), so that it is atomic.
//! - `connect.rs` checks every new connection, and says in one line what is wrong with it.
//!
//! What must never happen here: a start or a request waits for the server; a reply reaches another
//! operation; the clocks of two machines are compared.

mod connect;
mod listen;
mod replies;
mod scripts;
mod wire;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::{Condvar, Mutex};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use self::connect::{Live, connect};
pub use self::connect::{ValkeyAccess, ValkeyAddress};
use self::listen::ListenTask;
use self::scripts::Scripts;
pub use self::wire::ValkeyLives;
use self::wire::{Command, ValkeyWire};
use super::away::WhenAway;
use super::bell::RingHook;
use super::engine::{Engine, EngineState, StoreFault, StoreFuture, StoreOp};
use super::fleet::{Fleet, FleetFuture, FleetOp};
use crate::clock::{Clock, Duration, Instant, sleep, sleep_until, timeout};
use crate::metrics::StoreMetrics;

/// Commands that may wait to be sent: some seconds of a busy gateway.
const QUEUE_MAX: usize = 1_024;
/// The most bytes in queued and sent commands: 64 vendor pages of the largest kind.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// The most commands that were sent and wait for their replies.
const SENT_MAX: usize = 256;
/// Late replies in a row before the engine is away.
const LATE_MAX: u32 = 3;
/// The first pause before reconnecting. It doubles each time.
const RECONNECT: Duration = Duration::from_millis(250);
/// The longest such pause. With it, the store is in use again three seconds after its return.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// How long another reason why the engine is away is not logged.
const REASON_EVERY: Duration = Duration::from_secs(10);
/// How often an idle connection is tested, so that a lost or emptied server is noticed before a
/// request needs it.
const BEAT_EVERY: Duration = Duration::from_millis(500);

/// The commands that the gateway's user needs, beside access to the keys under its prefix and to
/// the channel of the bell.
pub const ACL_COMMANDS: &str = "+evalsha +script|load +hget +hmget +hgetall +hset +hsetnx +hdel +hincrby +exists +pttl +pexpire +unlink +zadd +zrem +zcard +zrange +zremrangebyscore +publish +subscribe +time +info";

/// The address of the server and how it is used.
#[derive(Clone)]
pub struct ValkeyOptions {
    /// How to connect to the server.
    pub access: ValkeyAccess,
    /// The prefix of every key.
    pub prefix: String,
    /// How long an operation may take. Vendor pages may take twice as long.
    pub timeout: Duration,
    /// How long a gateway that was heard of no more keeps the search that it walks.
    pub lease: Duration,
    /// How long records live.
    pub lives: ValkeyLives,
    /// Minimum number of gateways that share it. While it is away, each gateway takes one part in
    /// this many of the vendors' budgets.
    pub replicas_min: u32,
    /// What this gateway does while it is away.
    pub when_away: WhenAway,
}

/// A store that several gateways share.
pub struct Valkey {
    shared: Arc<ValkeyShared>,
    jobs: mpsc::Sender<Job>,
    /// The keeper takes it when it starts.
    receiver: Mutex<Option<mpsc::Receiver<Job>>>,
    keeper: Mutex<Option<AbortHandle>>,
}

struct ValkeyShared {
    access: ValkeyAccess,
    wire: ValkeyWire,
    limit: Duration,
    lease: Duration,
    replicas_min: u32,
    when_away: WhenAway,
    phase: watch::Sender<EngineState>,
    metrics: Arc<StoreMetrics>,
    /// The id of the contents that were seen last.
    id: Mutex<Option<Bytes>>,
    /// The number of connections so far.
    sessions: AtomicU64,
    pending: Arc<Pending>,
    /// Hears the rings of all gateways.
    on_ring: OnceLock<RingHook>,
}

/// The number and bytes of commands that are queued or sent.
#[derive(Default)]
struct Pending {
    bytes: AtomicUsize,
    jobs: Mutex<usize>,
    none: Condvar,
}

/// One command in progress.
struct Job {
    command: Command,
    limit: Duration,
    reply: oneshot::Sender<Result<Value, StoreFault>>,
    _counted: Counted,
}

/// Counts a job until it is dropped.
struct Counted {
    pending: Arc<Pending>,
    bytes: usize,
}

impl Counted {
    fn new(pending: &Arc<Pending>, bytes: usize) -> Self {
        pending.bytes.fetch_add(bytes, Ordering::Relaxed);
        *pending.jobs.lock() += 1;
        Self {
            pending: pending.clone(),
            bytes,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.pending.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let mut jobs = self.pending.jobs.lock();
        *jobs = jobs.saturating_sub(1);
        if *jobs == 0 {
            self.pending.none.notify_all();
        }
    }
}

/// How a command ended, for the keeper.
enum Sent {
    Replied,
    Late,
    /// The connection can no longer be used.
    Broken(String),
}

impl Valkey {
    /// Creates a store that connects when it is first used.
    pub fn new(options: ValkeyOptions, clock: Clock, metrics: Arc<StoreMetrics>) -> Self {
        Self::over(options, Scripts::new(), clock, metrics)
    }

    fn over(
        options: ValkeyOptions,
        scripts: Scripts,
        clock: Clock,
        metrics: Arc<StoreMetrics>,
    ) -> Self {
        metrics.up.set(0);
        let (jobs, receiver) = mpsc::channel(QUEUE_MAX);
        let shared = ValkeyShared {
            access: options.access,
            wire: ValkeyWire {
                prefix: options.prefix,
                lives: options.lives,
                scripts,
                clock,
            },
            limit: options.timeout,
            lease: options.lease,
            replicas_min: options.replicas_min,
            when_away: options.when_away,
            phase: watch::Sender::new(EngineState::Opening),
            metrics,
            id: Mutex::default(),
            sessions: AtomicU64::new(0),
            pending: Arc::default(),
            on_ring: OnceLock::new(),
        };
        Self {
            shared: Arc::new(shared),
            jobs,
            receiver: Mutex::new(Some(receiver)),
            keeper: Mutex::default(),
        }
    }

    /// Starts the keeper, unless it was started.
    fn begin(&self) {
        if let Some(jobs) = self.receiver.lock().take() {
            let keeper = Keeper {
                shared: self.shared.clone(),
                jobs,
                logged: LoggedReason::default(),
            };
            *self.keeper.lock() = Some(tokio::spawn(keeper.run()).abort_handle());
        }
    }

    /// Queues a command. Returns its reply as a future.
    fn send(
        &self,
        command: Command,
        bytes: usize,
        limit: Duration,
    ) -> Result<oneshot::Receiver<Result<Value, StoreFault>>, StoreFault> {
        self.begin();
        if *self.shared.phase.borrow() == EngineState::Away {
            return Err(StoreFault::Away);
        }
        let pending = &self.shared.pending;
        if pending.bytes.load(Ordering::Relaxed).saturating_add(bytes) > QUEUE_BYTES_MAX {
            return Err(StoreFault::Full);
        }
        let (reply, replied) = oneshot::channel();
        let job = Job {
            command,
            limit,
            reply,
            _counted: Counted::new(pending, bytes),
        };
        self.jobs.try_send(job).map_err(|_| StoreFault::Full)?;
        Ok(replied)
    }
}

impl Engine for Valkey {
    fn call(&self, op: StoreOp) -> StoreFuture<'_> {
        let wire = &self.shared.wire;
        let at = wire.clock.stamp();
        let command = wire.store_command(&op, at);
        let limit = match op {
            StoreOp::Append { .. } => self.shared.limit * 2,
            _ => self.shared.limit,
        };
        let sent = self.send(command, op.bytes(), limit);
        Box::pin(async move {
            let value = sent?.await.unwrap_or(Err(StoreFault::Away))?;
            wire.store_reply(&op, value, at)
        })
    }

    fn state(&self) -> EngineState {
        *self.shared.phase.borrow()
    }

    fn resets(&self) -> u64 {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    fn close(&self, limit: Duration) {
        let pending = &self.shared.pending;
        let mut jobs = pending.jobs.lock();
        let some = |jobs: &mut usize| *jobs > 0;
        pending.none.wait_while_for(&mut jobs, some, limit);
    }

    fn fleet(&self) -> Option<&dyn Fleet> {
        Some(self)
    }

    fn wait_max(&self) -> Duration {
        self.shared.limit
    }

    fn rest(&self) -> Duration {
        RECONNECT
    }

    fn replicas_min(&self) -> u32 {
        self.shared.replicas_min
    }

    fn when_away(&self) -> WhenAway {
        self.shared.when_away
    }
}

impl Fleet for Valkey {
    fn ask(&self, op: FleetOp) -> FleetFuture<'_> {
        let wire = &self.shared.wire;
        let at = wire.clock.stamp();
        let command = wire.fleet_command(&op, at);
        let sent = self.send(command, op.bytes(), self.shared.limit);
        Box::pin(async move {
            let value = sent?.await.unwrap_or(Err(StoreFault::Away))?;
            wire.fleet_reply(&op, value, at)
        })
    }

    fn on_ring(&self, hook: RingHook) {
        // An engine belongs to one store.
        let _ = self.shared.on_ring.set(hook);
    }

    fn lease(&self) -> Duration {
        self.shared.lease
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.lock().take() {
            keeper.abort();
        }
    }
}

/// The task that owns the connection.
struct Keeper {
    shared: Arc<ValkeyShared>,
    jobs: mpsc::Receiver<Job>,
    logged: LoggedReason,
}

/// The reason that was last logged for an engine that is away, and when.
#[derive(Default)]
struct LoggedReason(Option<(String, Instant)>);

impl LoggedReason {
    /// Returns whether to log `why`: the first reason, and later ones that differ from the last.
    /// One lost connection ends in several words within a second, so not each of them.
    fn is_news(&mut self, why: &str, now: Instant) -> bool {
        let is_news = match &self.0 {
            None => true,
            Some((last, at)) => last != why && now >= *at + REASON_EVERY,
        };
        if is_news {
            self.0 = Some((why.to_owned(), now));
        }
        is_news
    }
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = RECONNECT;
        loop {
            match connect(&self.shared.access, &self.shared.wire).await {
                Ok(live) => {
                    pause = RECONNECT;
                    self.take_over(&live);
                    let why = self.serve(&live).await;
                    self.away(format!("{} {why}", live.address));
                }
                Err(why) => self.away(why),
            }
            sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    fn take_over(&mut self, live: &Live) {
        self.shared.see(&live.id);
        self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        self.logged = LoggedReason::default();
        tracing::info!(address = %live.address, "the store is connected");
        if let Some(advice) = &live.advice {
            tracing::warn!(address = %live.address, "the store works, but {advice}");
        }
        self.shared.turn(EngineState::Ok);
    }

    fn away(&mut self, why: String) {
        self.shared.turn(EngineState::Away);
        if self.logged.is_news(&why, self.shared.wire.clock.now()) {
            tracing::warn!(why, "{}", self.shared.when_away.sentence());
        }
        // Queued operations need not wait any longer.
        while let Ok(job) = self.jobs.try_recv() {
            // The caller may have stopped waiting.
            let _ = job.reply.send(Err(StoreFault::Away));
        }
    }

    /// Sends commands until the connection can no longer be used. Returns the reason.
    async fn serve(&mut self, live: &Live) -> String {
        let shared = self.shared.clone();
        let _listens = ListenTask::begin(shared.clone(), live.address.clone());
        let mut sent = FuturesUnordered::new();
        let mut late_in_row = 0;
        let mut beat_at = shared.wire.clock.now() + BEAT_EVERY;
        loop {
            let ended = tokio::select! {
                Some(ended) = sent.next(), if !sent.is_empty() => ended,
                job = self.jobs.recv(), if sent.len() < SENT_MAX => {
                    let Some(job) = job else {
                        return "is no longer needed".to_owned();
                    };
                    let mut sending = send_job(shared.clone(), live.connection.clone(), job).boxed();
                    // The first poll queues the command behind earlier ones.
                    match (&mut sending).now_or_never() {
                        Some(ended) => ended,
                        None => {
                            sent.push(sending);
                            continue;
                        }
                    }
                }
                () = sleep_until(beat_at) => {
                    beat_at = shared.wire.clock.now() + BEAT_EVERY;
                    sent.push(send_beat(shared.clone(), live.connection.clone()).boxed());
                    continue;
                }
            };
            match ended {
                Sent::Replied => late_in_row = 0,
                Sent::Late => late_in_row += 1,
                Sent::Broken(why) => return why,
            }
            if late_in_row >= LATE_MAX {
                return "does not answer in time".to_owned();
            }
        }
    }
}

async fn send_job(
    shared: Arc<ValkeyShared>,
    mut connection: MultiplexedConnection,
    job: Job,
) -> Sent {
    let Job {
        command,
        limit,
        reply,
        _counted,
    } = job;
    let value = timeout(limit, shared.run(&mut connection, &command)).await;
    let (value, ended) = match value {
        Err(_) => (Err(StoreFault::Away), Sent::Late),
        Ok(Ok(value)) => (Ok(value), Sent::Replied),
        Ok(Err(error)) => {
            let (fault, ended) = judge(&error);
            (Err(fault), ended)
        }
    };
    // The caller may have stopped waiting.
    let _ = reply.send(value);
    ended
}

/// Tests a connection that may be idle, and checks that the contents are the same.
async fn send_beat(shared: Arc<ValkeyShared>, mut connection: MultiplexedConnection) -> Sent {
    let beat = shared.wire.look_at_id();
    match timeout(shared.limit * 2, shared.run(&mut connection, &beat)).await {
        Err(_) => Sent::Late,
        Ok(Ok(value)) => {
            // A new connection puts back what is gone, the id of the contents first.
            let lost = match value {
                Value::BulkString(id) => shared.see(&id.into()),
                _ => true,
            };
            match lost {
                true => Sent::Broken("lost its data".to_owned()),
                false => Sent::Replied,
            }
        }
        Ok(Err(error)) => judge(&error).1,
    }
}

impl ValkeyShared {
    async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        command: &Command,
    ) -> Result<Value, RedisError> {
        let reply = send_once(connection, command).await;
        let unknown =
            |error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
        match (reply, command.script) {
            (Err(error), Some(name)) if unknown(&error) => {
                // The server lost its scripts, as after a failover or SCRIPT FLUSH.
                if let Some(script) = self.wire.scripts.get(name) {
                    let mut load = redis::cmd("SCRIPT");
                    load.arg("LOAD").arg(&script.text);
                    connection
                        .send_packed_command(&load)
                        .await?
                        .extract_error()?;
                }
                send_once(connection, command).await
            }
            (reply, _) => reply,
        }
    }

    /// Records the id of the contents, and counts a reset if it changed. Returns whether it did.
    fn see(&self, id: &Bytes) -> bool {
        let known = self.id.lock().replace(id.clone());
        let changed = known.is_some_and(|known| known != *id);
        if changed {
            self.metrics.resets.inc();
            tracing::warn!("the store was emptied or replaced; it fills again");
        }
        changed
    }

    fn turn(&self, phase: EngineState) {
        self.metrics.up.set(i64::from(phase == EngineState::Ok));
        self.phase.send_replace(phase);
    }
}

async fn send_once(
    connection: &mut MultiplexedConnection,
    command: &Command,
) -> Result<Value, RedisError> {
    let value = connection.send_packed_command(&command.command).await?;
    value.extract_error()
}

/// Returns the meaning of an error for the operation and for the connection.
fn judge(error: &RedisError) -> (StoreFault, Sent) {
    if error.is_connection_dropped() || error.is_io_error() {
        return (
            StoreFault::Away,
            Sent::Broken("closed the connection".to_owned()),
        );
    }
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ReadOnly) => (
            StoreFault::Away,
            Sent::Broken("has become a replica".to_owned()),
        ),
        ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown) => (
            StoreFault::Away,
            Sent::Broken("cannot be used at the moment".to_owned()),
        ),
        ErrorKind::Parse => (
            StoreFault::Away,
            Sent::Broken("sent a reply that the gateway does not understand".to_owned()),
        ),
        _ => match error.code() {
            // The server is full or cannot write its own file. Reads still work.
            Some("OOM" | "MISCONF" | "NOREPLICAS") => (StoreFault::Full, Sent::Replied),
            _ => {
                tracing::debug!(%error, "the store refused an operation");
                (StoreFault::Failed, Sent::Replied)
            }
        },
    }
}

#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
