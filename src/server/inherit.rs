//! Sockets that the service manager binds for the gateway and keeps across restarts.
//!
//! systemd passes them in `LISTEN_FDS` and `LISTEN_FDNAMES`. While no gateway accepts, callers wait
//! in the socket's queue instead of being refused. The next gateway accepts them from there.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::listen::BindError;

/// The inherited sockets by purpose. Each can be taken once.
#[derive(Debug, Default)]
pub struct Inherited {
    public: Option<TcpListener>,
    admin: Option<TcpListener>,
}

impl Inherited {
    /// Takes the sockets that the environment names. Call it before anything else opens descriptors
    /// or starts threads, because it also removes the names from the environment.
    ///
    /// # Errors
    /// Fails if a socket has no name of ours, is not a listening TCP socket, or is named twice.
    pub fn from_environment() -> Result<Self, BindError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let mut taken = Self::default();
        for (at, name) in named(&names, sockets.len())?.into_iter().enumerate() {
            let place = match name {
                Name::Public => &mut taken.public,
                Name::Admin => &mut taken.admin,
            };
            let refused =
                |why| BindError::new(name.setting(), format!("the inherited socket {why}"));
            let socket = sockets
                .take_tcp_listener(at)
                .ok()
                .flatten()
                .ok_or_else(|| refused("is not a TCP socket"))?;
            if !socket_acceptconn(&socket).unwrap_or(false) {
                return Err(refused("is not listening"));
            }
            if place.replace(socket).is_some() {
                return Err(refused(
                    "has the same name as another inherited socket; each name may have one address",
                ));
            }
        }
        Ok(taken)
    }

    /// Creates the sockets of a process that inherited this public one, for tests.
    pub fn public(socket: TcpListener) -> Self {
        Self {
            public: Some(socket),
            admin: None,
        }
    }

    pub(super) fn take_public(&mut self, configured: SocketAddr) -> Taken {
        checked(Name::Public, self.public.take(), configured)
    }

    pub(super) fn take_admin(&mut self, configured: SocketAddr) -> Taken {
        checked(Name::Admin, self.admin.take(), configured)
    }
}

/// The socket, if one was inherited.
type Taken = Result<Option<TcpListener>, BindError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Public,
    Admin,
}

impl Name {
    const fn setting(self) -> &'static str {
        match self {
            Self::Public => "listen.public",
            Self::Admin => "listen.admin",
        }
    }
}

/// Returns the names of this many sockets. A single socket without a name is the public one.
fn named(names: &str, count: usize) -> Result<Vec<Name>, BindError> {
    let unnamed = || {
        BindError::new(
            "LISTEN_FDNAMES",
            "must name each inherited socket \"public\" or \"admin\" (FileDescriptorName= in its unit)",
        )
    };
    if count == 1 && names.is_empty() {
        return Ok(vec![Name::Public]);
    }
    let names: Option<Vec<Name>> = names
        .split(':')
        .filter(|_| count > 0)
        .map(|name| match name {
            "public" => Some(Name::Public),
            "admin" => Some(Name::Admin),
            _ => None,
        })
        .collect();
    names
        .filter(|names| names.len() == count)
        .ok_or_else(unnamed)
}

/// Checks a socket's address. The address in the settings decides whether callers need a key, so
/// the socket must have that address.
fn checked(name: Name, socket: Option<TcpListener>, configured: SocketAddr) -> Taken {
    let Some(socket) = socket else {
        return Ok(None);
    };
    let refused = |why: String| BindError::new(name.setting(), why);
    let address = socket
        .local_addr()
        .map_err(|why| refused(why.to_string()))?;
    let any_port = configured.port() == 0 && configured.ip() == address.ip();
    if address != configured && !any_port {
        return Err(refused(format!(
            "is {configured}, but the inherited socket listens on {address}; set both to the same address"
        )));
    }
    socket
        .set_nonblocking(true)
        .map_err(|why| refused(why.to_string()))?;
    Ok(Some(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_known_by_name() {
        let of = |names, count| named(names, count).ok();
        assert_eq!(of("", 0), Some(vec![]));
        assert_eq!(of("left:over", 0), Some(vec![]));
        assert_eq!(of("", 1), Some(vec![Name::Public]));
        assert_eq!(of("admin:public", 2), Some(vec![Name::Admin, Name::Public]));
        assert_eq!(of("public", 2), None);
        assert_eq!(of("", 2), None);
        assert_eq!(of("msp-gateway.socket", 1), None);
        assert_eq!(of("public:admin", 1), None);
    }

    #[test]
    fn an_inherited_socket_is_where_the_settings_say() {
        let bound = || {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            (Some(socket), address)
        };
        let (socket, address) = bound();
        assert!(checked(Name::Public, socket, address).unwrap().is_some());
        let (socket, _) = bound();
        let any = "127.0.0.1:0".parse().unwrap();
        assert!(checked(Name::Public, socket, any).unwrap().is_some());
        for other in ["127.0.0.1:1", "127.0.0.2:0", "[::1]:0"] {
            let (socket, _) = bound();
            let error = checked(Name::Admin, socket, other.parse().unwrap()).unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with("listen.admin: is ") && text.contains(other),
                "{text}"
            );
        }
        assert!(checked(Name::Admin, None, any).unwrap().is_none());
    }
}
