//! Runs a built app until it has left: listeners, signals, readiness.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::clock;
use crate::reload::Reloader;
use crate::server::Listeners;

/// Creates a runtime with one thread per core. On a single core it has no scheduler that shares
/// work among threads, because that would cost more than a tenth of a hit (see
/// `tests/bench/RESULTS.md`).
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = if cores == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.enable_all().thread_name("msp-gateway").build()
}

/// The signals that end or reload the program. From the moment they are taken, none of them ends
/// the process by itself.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals.
    ///
    /// # Errors
    /// Returns one line that says that they cannot be received.
    pub fn take() -> Result<Self, String> {
        let taken = |kind| signal(kind).map_err(|why| format!("signals cannot be received: {why}"));
        Ok(Self {
            terminate: taken(SignalKind::terminate())?,
            interrupt: taken(SignalKind::interrupt())?,
            hangup: taken(SignalKind::hangup())?,
        })
    }
}

/// Serves on the `listeners` until a signal asks the app to leave, and leaves in order.
pub async fn until_told(
    app: Arc<App>,
    listeners: Listeners,
    signals: Signals,
    reloader: Option<Reloader>,
) {
    let Signals {
        mut terminate,
        mut interrupt,
        mut hangup,
    } = signals;
    notify("READY=1");
    let drain = app.drain().clone();
    let running = app.run(listeners);
    let mut running = std::pin::pin!(running);
    let (ask, asked) = mpsc::channel(1);
    let reloading = reloader.map(|reloader| {
        let run = reloader.run(app.clone(), asked, notify);
        tokio::spawn(run)
    });
    // The reload task ends with this one, so a reload that hangs delays nothing.
    let _ends = AbortOnDrop(reloading);
    let mut told = false;
    loop {
        tokio::select! {
            () = &mut running => return,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {
                // The channel is full: a reload was already requested.
                let _ = ask.try_send(());
                continue;
            }
        }
        if told {
            // The second signal ends at once what the first one lets finish.
            drain.cut();
            continue;
        }
        told = true;
        notify("STOPPING=1");
        drain.begin();
    }
}

struct AbortOnDrop(Option<JoinHandle<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Notifies the service manager, if there is one (the datagram of `sd_notify`).
fn notify(state: &str) {
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        None => SocketAddr::from_pathname(Path::new(&path)),
    };
    let mut text = state.to_owned();
    if state == "RELOADING=1" {
        let now = clock::monotonic_since_boot().as_micros();
        text.push_str(&format!("\nMONOTONIC_USEC={now}"));
    }
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        // A service manager that does not read must not delay the gateway.
        socket.set_nonblocking(true)?;
        socket.send_to_addr(text.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
