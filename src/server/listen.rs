//! The two listeners, and the order in which they leave.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ServerOptions;
use super::connection::{Answering, Connections, Ending};
use super::date::DATES;
use super::descriptors::room_for;
use super::drain::{Drain, DrainPhase};
use super::inherit::Inherited;
use super::peers::Peers;
use super::tls::Tls;
use crate::cache::FiledBodies;
use crate::clock::{self, Clock, Duration};
use crate::metrics::Metrics;

/// Maximum connections on the admin listener: a few scrapers and people.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Pause after a failure to accept. It mostly means that no descriptor is free, and without a pause
/// the loop would spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// How long the connections of the admin listener may take at the end.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// A listener could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The setting or variable that names the address.
    pub setting: &'static str,
    why: String,
}

impl BindError {
    pub(super) fn new(setting: &'static str, why: impl Into<String>) -> Self {
        Self {
            setting,
            why: why.into(),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.why)
    }
}

impl std::error::Error for BindError {}

/// Both listeners, bound.
#[derive(Debug)]
pub struct Listeners {
    public: Listener,
    admin: Listener,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    /// Other processes hold it too, and accept its waiting connections after we leave.
    shared: bool,
}

impl Listeners {
    /// Takes inherited sockets and binds the others. Binds both or none.
    ///
    /// # Errors
    /// Fails if an address cannot be bound, or an inherited socket has another address.
    pub async fn bind(
        options: &ServerOptions,
        mut inherited: Inherited,
    ) -> Result<Self, BindError> {
        let public = inherited.take_public(options.public)?;
        let admin = inherited.take_admin(options.admin)?;
        Ok(Self {
            public: bind("listen.public", options.public, public).await?,
            admin: bind("listen.admin", options.admin, admin).await?,
        })
    }

    /// Returns the address for callers. With port 0 in the settings, it has the port that was
    /// found.
    pub fn public_address(&self) -> SocketAddr {
        self.public.address
    }

    /// Returns the address for operators.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }
}

async fn bind(
    setting: &'static str,
    address: SocketAddr,
    inherited: Option<std::net::TcpListener>,
) -> Result<Listener, BindError> {
    let failed = |why: io::Error| {
        let why = match why.kind() {
            io::ErrorKind::AddrInUse => {
                "another program already listens on this address".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => why.to_string(),
        };
        BindError::new(setting, format!("cannot listen on {address}: {why}"))
    };
    let shared = inherited.is_some();
    let socket = match inherited {
        Some(socket) => TcpListener::from_std(socket).map_err(failed)?,
        None => TcpListener::bind(address).await.map_err(failed)?,
    };
    Ok(Listener {
        address: socket.local_addr().map_err(failed)?,
        socket,
        shared,
    })
}

/// The outcome of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Number of connections that had not ended within the grace and were cut.
    pub cut: usize,
}

/// Everything the listeners need.
pub struct Server {
    /// Limits and addresses.
    pub options: ServerOptions,
    /// The clock.
    pub clock: Clock,
    /// The metrics of connections.
    pub metrics: Arc<Metrics>,
    /// Answers callers.
    pub public: Answering,
    /// Answers operators.
    pub admin: Answering,
    /// TLS for callers. `None`: no TLS.
    pub public_tls: Option<Arc<Tls>>,
    /// TLS for operators. `None`: no TLS.
    pub admin_tls: Option<Arc<Tls>>,
    /// The drain, which says when to leave.
    pub drain: Drain,
    /// Bodies that can be sent without copying them.
    pub files: FiledBodies,
}

impl Server {
    /// Serves until [`Drain::begin`] was called and everything has ended. Readiness then fails for
    /// `drain_delay`. After that no connection is accepted, and requests in flight have
    /// `drain_grace`. The admin listener stops last, so that the drain can be observed.
    pub async fn run(self, listeners: Listeners) -> Drained {
        let Self {
            options,
            clock,
            metrics,
            public,
            admin,
            public_tls,
            admin_tls,
            drain,
            files,
        } = self;
        let patience = options.patience();
        let wall = clock.clone();
        let connections_max = room_for(options.connections_max).min(Semaphore::MAX_PERMITS);
        let shown = i64::try_from(connections_max).unwrap_or(i64::MAX);
        metrics.state.connections_max.set(shown);
        let public = Gatherer {
            slots: Arc::new(Semaphore::new(connections_max)),
            cuts: Arc::default(),
            peers: Peers::up_to(options.connections_per_peer_max),
            metrics: Some(metrics),
            tls: public_tls,
            connections: Connections {
                answering: public,
                patience,
                clock: clock.clone(),
                drain: drain.clone(),
                files,
            },
        };
        // The admin listener has its own drain. It ends after the public listener has.
        let admin_drain = Drain::default();
        let admin = Gatherer {
            slots: Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX)),
            cuts: Arc::default(),
            // There are few peers, and one Prometheus may be all of them.
            peers: Peers::up_to(ADMIN_CONNECTIONS_MAX),
            metrics: None,
            tls: admin_tls,
            connections: Connections {
                answering: admin,
                patience,
                clock,
                drain: admin_drain.clone(),
                files: FiledBodies::default(),
            },
        };
        let cuts = public.cuts.clone();
        let public_slots = public.slots.clone();
        let admin_slots = admin.slots.clone();
        let leave = async {
            drain.reached(DrainPhase::Leaving).await;
            tracing::info!("draining: readiness fails, requests are still accepted");
            let cut = drain.reached(DrainPhase::Cut);
            // Ends early if the gateway must leave at once.
            let _ = clock::timeout(options.drain_delay, cut).await;
            drain.advance(DrainPhase::Closing);
            let ended = all_back(&public_slots, connections_max);
            let ended = async {
                tokio::select! {
                    () = ended => {}
                    () = drain.reached(DrainPhase::Cut) => {}
                }
            };
            let _ = clock::timeout(options.drain_grace, ended).await;
            drain.advance(DrainPhase::Cut);
            all_back(&public_slots, connections_max).await;
            admin_drain.advance(DrainPhase::Closing);
            let ended = all_back(&admin_slots, ADMIN_CONNECTIONS_MAX);
            let _ = clock::timeout(ADMIN_GRACE, ended).await;
            admin_drain.advance(DrainPhase::Cut);
            Drained {
                cut: cuts.load(Ordering::Relaxed),
            }
        };
        let serving = async {
            tokio::join!(
                leave,
                public.accept(listeners.public),
                admin.accept(listeners.admin)
            )
        };
        let (drained, (), ()) = tokio::select! {
            ended = serving => ended,
            never = DATES.keep(&wall) => match never {},
        };
        tracing::info!(cut = drained.cut, "drained");
        drained
    }
}

/// Waits until every slot is free again.
async fn all_back(slots: &Semaphore, total: usize) {
    // One at a time, because a semaphore gives out at most 2^32 at once. Slots are never closed.
    let mut held = Vec::with_capacity(total.min(1024));
    for _ in 0..total {
        if let Ok(slot) = slots.acquire().await {
            held.push(slot);
        }
    }
}

/// Accepts the connections of one listener.
struct Gatherer {
    slots: Arc<Semaphore>,
    cuts: Arc<AtomicUsize>,
    peers: Peers,
    metrics: Option<Arc<Metrics>>,
    tls: Option<Arc<Tls>>,
    connections: Connections,
}

impl Gatherer {
    async fn accept(self, from: Listener) {
        let listener = from.socket;
        let drain = self.connections.drain.clone();
        let mut closing = std::pin::pin!(drain.reached(DrainPhase::Closing));
        loop {
            // A slot is taken first. Connections beyond the limit wait in the system's queue, where
            // they need no descriptor.
            let next = async {
                let slot = self.slots.clone().acquire_owned().await.ok()?;
                Some((slot, listener.accept().await))
            };
            let accepted = tokio::select! {
                biased;
                () = &mut closing => break,
                accepted = next => accepted,
            };
            match accepted {
                None => break,
                Some((slot, Ok((stream, peer)))) => self.take(slot, stream, peer),
                Some((_, Err(why))) => {
                    if is_the_peers(&why) {
                        continue;
                    }
                    tracing::warn!(%why, "cannot accept connections");
                    clock::sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
        if from.shared {
            // Callers that wait at a socket that outlives us are accepted by the next gateway.
            return;
        }
        // Connections that the system has accepted, but this loop has not, would be reset.
        while let Ok(slot) = self.slots.clone().try_acquire_owned() {
            match listener.accept().now_or_never() {
                Some(Ok((stream, peer))) => self.take(slot, stream, peer),
                Some(Err(why)) if is_the_peers(&why) => {}
                Some(Err(_)) | None => break,
            }
        }
    }

    fn take(&self, slot: OwnedSemaphorePermit, stream: TcpStream, peer: SocketAddr) {
        let Some(seat) = self.peers.sit(peer.ip()) else {
            // Closed at once, so that the connections of one peer leave room for others.
            if let Some(metrics) = &self.metrics {
                metrics.connections_refused.inc();
            }
            return;
        };
        // The last packet of an answer must not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let connections = self.connections.clone();
        let cuts = self.cuts.clone();
        let counted = self.metrics.clone().map(Counted::new);
        let tls = self.tls.clone();
        tokio::spawn(async move {
            let end = match &tls {
                None => connections.serve(stream, Some(peer)).await,
                // Boxed, because a connection without TLS need not be as large as one with it.
                Some(tls) => Box::pin(connections.serve_tls(tls, stream, Some(peer))).await,
            };
            if end == Ending::Cut {
                cuts.fetch_add(1, Ordering::Relaxed);
            }
            drop((counted, seat, slot));
        });
    }
}

/// Returns whether the failure concerns one connection and not the listener.
fn is_the_peers(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Counts an open connection until it is dropped.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
