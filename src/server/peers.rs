//! Limits the connections of each peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts connections by peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
    max: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A peer's connection. It is counted until it is dropped.
#[derive(Debug)]
pub struct Seat {
    peers: Peers,
    who: IpAddr,
}

impl Peers {
    /// Creates counts that allow each peer `max` connections.
    pub fn up_to(max: usize) -> Self {
        Self {
            max,
            open: Arc::default(),
        }
    }

    /// Counts one more connection of this peer. `None` if the peer has as many as it may.
    pub fn sit(&self, peer: IpAddr) -> Option<Seat> {
        let who = one_peer(peer);
        let mut open = self.open.lock();
        let count = open.entry(who).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Seat {
            peers: self.clone(),
            who,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock();
        if let Some(count) = open.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.who);
            }
        }
    }
}

/// Returns the address under which a peer is counted. An IPv6 host owns a whole network of 64 bits,
/// so its network is counted.
fn one_peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_count_which_ends_with_its_connections() {
        let peers = Peers::up_to(2);
        let at = |text: &str| peers.sit(text.parse().unwrap());
        let one = at("10.0.0.1").unwrap();
        let two = at("::ffff:10.0.0.1").unwrap();
        assert!(at("10.0.0.1").is_none());
        let other = at("10.0.0.2");
        assert!(other.is_some());
        drop(one);
        assert!(at("10.0.0.1").is_some());
        let near = [at("2001:db8::1"), at("2001:db8::2:3")];
        assert!(near.iter().all(Option::is_some) && at("2001:db8::4").is_none());
        assert!(at("2001:db8:0:1::4").is_some());
        drop((two, other, near));
        assert!(peers.open.lock().is_empty());
    }
}
