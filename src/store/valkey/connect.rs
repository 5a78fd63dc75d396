//! Connects to the primary and checks the server. A server that cannot be used is rejected with one
//! line.

use std::fmt;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ErrorKind, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError,
    ServerErrorKind,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::wire::ValkeyWire;
use crate::clock::{Duration, timeout};
use crate::secrets::Secret;

/// The time limit for connecting, TLS and all checks.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(1);
/// How soon an idle connection is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long written bytes may go unacknowledged.
const UNACKNOWLEDGED_MAX_MS: u32 = 2_000;
/// Commands that wait in the connection, beside those that were sent.
const BUFFERED_MAX: usize = 64;

/// Longest host name, as DNS has it.
const HOST_BYTES_MAX: usize = 253;

/// An address at which the primary may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValkeyAddress {
    /// A host name or an IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl ValkeyAddress {
    /// Reads `host:port`, with brackets around an IPv6 address. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let fits = (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(good);
        fits.then(|| Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Returns whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        let ip = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for ValkeyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How the server is reached.
#[derive(Clone)]
pub struct ValkeyAccess {
    /// The addresses to try, in this order. The first primary is used.
    pub addresses: Vec<ValkeyAddress>,
    /// `None` means without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// `None` means the default user.
    pub username: Option<String>,
    /// `None` means that the server needs no password.
    pub password: Option<Secret>,
}

/// A connection that passed all checks.
pub(super) struct Live {
    pub connection: MultiplexedConnection,
    /// The task that drives the connection. It ends with the connection.
    pub driver: JoinHandle<()>,
    /// Identifies the contents of the engine, so that an emptied server is noticed.
    pub id: bytes::Bytes,
    /// What an operator should change in the server's settings. The store works without it.
    pub advice: Option<String>,
    pub address: ValkeyAddress,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects to the first address that is a primary.
pub(super) async fn connect(access: &ValkeyAccess, wire: &ValkeyWire) -> Result<Live, String> {
    let mut reasons = Vec::new();
    for address in &access.addresses {
        match timeout(CONNECT_MAX, connect_to(address, access, wire)).await {
            Ok(Ok(live)) => return Ok(live),
            Ok(Err(why)) => reasons.push(format!("{address} {why}")),
            Err(_) => reasons.push(format!("{address} did not answer within a second")),
        }
    }
    Err(reasons.join("; "))
}

async fn connect_to(
    address: &ValkeyAddress,
    access: &ValkeyAccess,
    wire: &ValkeyWire,
) -> Result<Live, String> {
    let (connection, driver) = open(address, access, None).await?;
    let mut live = Live {
        connection,
        driver,
        id: bytes::Bytes::new(),
        advice: None,
        address: address.clone(),
    };
    look(&mut live, wire).await?;
    Ok(live)
}

/// Called by the task that drives a connection, for each message that is no reply. It must not
/// wait.
pub(super) type PushHook = Box<dyn Fn(PushInfo) + Send + Sync>;

/// Opens a connection, and a task that drives it. With a hook, the server may send messages that
/// are no replies.
pub(super) async fn open(
    address: &ValkeyAddress,
    access: &ValkeyAccess,
    hook: Option<PushHook>,
) -> Result<(MultiplexedConnection, JoinHandle<()>), String> {
    let socket = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .map_err(|error| format!("cannot be reached: {error}"))?;
    set_options(&socket).map_err(|error| format!("cannot be reached: {error}"))?;
    match &access.tls {
        None => set_up(socket, access, hook).await,
        Some(config) => {
            let name = ServerName::try_from(address.host.clone())
                .map_err(|_| "has a host name that TLS cannot check".to_owned())?;
            let stream = TlsConnector::from(config.clone())
                .connect(name, socket)
                .await
                .map_err(|error| format!("could not set up TLS: {error}"))?;
            set_up(stream, access, hook).await
        }
    }
}

fn set_options(socket: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEP_ALIVE)?;
    sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED_MAX_MS)?;
    Ok(())
}

async fn set_up<S>(
    stream: S,
    access: &ValkeyAccess,
    hook: Option<PushHook>,
) -> Result<(MultiplexedConnection, JoinHandle<()>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(username) = &access.username {
        info = info.set_username(username);
    }
    if let Some(password) = &access.password {
        info = info.set_password(password.reveal());
    }
    let mut config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(BUFFERED_MAX);
    if let Some(hook) = hook {
        info = info.set_protocol(ProtocolVersion::RESP3);
        config = config.set_push_sender(move |push| {
            hook(push);
            Ok::<_, redis::aio::SendError>(())
        });
    }
    let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
        .await
        .map_err(|error| told(&error))?;
    Ok((connection, tokio::spawn(driver)))
}

/// Returns the meaning of a server's error, as the end of a sentence that begins with its address.
pub(super) fn told(error: &RedisError) -> String {
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            "rejected the user name or the password of store.valkey".to_owned()
        }
        ErrorKind::Server(ServerErrorKind::NoPerm) => too_narrow(detail),
        ErrorKind::Server(ServerErrorKind::BusyLoading) => "is still loading its data".to_owned(),
        ErrorKind::Server(ServerErrorKind::ReadOnly) => IS_REPLICA.to_owned(),
        ErrorKind::Io => format!("closed the connection: {error}"),
        // The script may run, but not the commands in it.
        _ if is_narrow(detail) => too_narrow(detail),
        _ => match error.code() {
            Some("NOAUTH") => {
                "requires a password: set store.valkey.password_file or password_env".to_owned()
            }
            Some("WRONGTYPE") => {
                "holds keys of another program under store.valkey.prefix; choose another prefix"
                    .to_owned()
            }
            Some(code) => format!("answered {code}: {detail}"),
            None => "sent a reply that the gateway does not understand".to_owned(),
        },
    }
}

/// Returns whether a script lacked a right. The wording differs between Valkey and releases of
/// Redis.
fn is_narrow(detail: &str) -> bool {
    let words = [
        "ACL failure",
        "No permissions",
        "can't run this command",
        "can't access at least one of the keys",
        "can't access at least one of the channels",
    ];
    words.iter().any(|words| detail.contains(words))
}

fn too_narrow(detail: &str) -> String {
    format!(
        "denies the user of store.valkey a command, key or channel that the gateway needs ({detail}); docs/operations.md lists the rights"
    )
}

const IS_REPLICA: &str = "is a replica: store.valkey.addresses must name the primary";

/// The first release with script flags, in Redis' numbering. Every Valkey reports at least this.
const VERSION_MIN: (u32, u32) = (7, 0);

/// Checks that the server has what the gateway needs.
async fn look(live: &mut Live, wire: &ValkeyWire) -> Result<(), String> {
    let connection = &mut live.connection;
    let info: String = redis::cmd("INFO")
        .query_async(connection)
        .await
        .map_err(|error| told(&error))?;
    let fact = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    };
    if fact("cluster_enabled") == Some("1") {
        return Err("is a node of a cluster, which is not supported".to_owned());
    }
    if fact("role") != Some("master") {
        return Err(IS_REPLICA.to_owned());
    }
    let version = fact("redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let known = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if known < VERSION_MIN {
        return Err("is too old: Valkey 7.2 or later, or Redis 7.0 or later, is needed".to_owned());
    }
    let policy = fact("maxmemory_policy").unwrap_or_default();
    let full_at = fact("maxmemory").unwrap_or("0");
    live.advice = match (policy.starts_with("allkeys-"), full_at) {
        (true, _) => Some(format!(
            "its maxmemory-policy is {policy}, which may evict records that must stay, such as purges: set volatile-ttl"
        )),
        (false, "0") => Some(
            "it has no maxmemory, so it may use all memory of its machine: set maxmemory, and maxmemory-policy volatile-ttl".to_owned(),
        ),
        (false, _) if policy == "noeviction" => Some(
            "its maxmemory-policy is noeviction, so a full server keeps nothing new: set volatile-ttl".to_owned(),
        ),
        (false, _) => None,
    };
    for script in wire.scripts.all() {
        let _: String = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(&script.text)
            .query_async(connection)
            .await
            .map_err(|error| told(&error))?;
    }
    // Runs every command and touches every kind of key that the gateway uses, so that missing
    // rights are noticed now.
    for probe in wire.probes() {
        let reply = connection.send_packed_command(&probe.command).await;
        match reply.and_then(|value| value.extract_error()) {
            // The server is full, but records can still be read.
            Err(error) if error.code() != Some("OOM") => return Err(told(&error)),
            Err(_) | Ok(_) => {}
        }
    }
    let who = wire.beat(&[], 0, wire.clock.stamp());
    let value = connection
        .send_packed_command(&who.command)
        .await
        .map_err(|error| told(&error))?;
    let foreign = |_| {
        "holds keys of another program under store.valkey.prefix; choose another prefix".to_owned()
    };
    let (id, _) = wire.beat_reply(value).map_err(foreign)?;
    if id.len() != 32 || !id.iter().all(u8::is_ascii_hexdigit) {
        return Err(foreign(crate::store::StoreFault::Failed));
    }
    live.id = id;
    Ok(())
}
