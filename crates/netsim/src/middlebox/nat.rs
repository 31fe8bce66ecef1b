//! Network address and port translation.

use super::interface::{Middlebox, Output};
use crate::direction::Direction;
use crate::packet::Packet;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use umptcp_types::{Duration, Instant};

/// Translates the address and port that forward packets come from, and back (RFC 3022), as the box at a
/// home's end of a line does: endpoint-independent mapping, endpoint-independent filtering of what it knows
/// (RFC 5382 §4, §5).
///
/// It keeps no state of the TCP connection: a mapping lives as long as packets use it.
#[derive(Debug)]
pub struct Nat {
    /// Address that the far side sees; `None`: the inner one, so that only ports change.
    pub public: Option<IpAddr>,
    /// A mapping unused for so long is forgotten; a packet from within then makes another, with another port.
    /// `None`: never. RFC 5382 asks for 2 hours 4 minutes; many boxes forget after minutes.
    pub expiry: Option<Duration>,
    /// Packets from outside that no mapping is for, dropped.
    pub unsolicited: u64,
    next_port: u16,
    outgoing: HashMap<SocketAddr, SocketAddr>,
    incoming: HashMap<SocketAddr, (SocketAddr, Instant)>,
    /// When all mappings are forgotten at once.
    rebind: BTreeMap<Instant, ()>,
}

impl Default for Nat {
    fn default() -> Self {
        Nat {
            public: None,
            expiry: None,
            unsolicited: 0,
            next_port: 20_000,
            outgoing: HashMap::new(),
            incoming: HashMap::new(),
            rebind: BTreeMap::new(),
        }
    }
}

impl Nat {
    /// Translates ports, keeps addresses, forgets nothing.
    pub fn new() -> Self {
        Nat::default()
    }

    /// Forgets mappings that were unused for `expiry`.
    pub fn expiring(self, expiry: Duration) -> Self {
        Nat { expiry: Some(expiry), ..self }
    }

    /// Forgets everything at `at`, as when the box is started again or its line gets another address: the
    /// next packet of each connection comes from another port.
    pub fn rebinding(mut self, at: Instant) -> Self {
        self.rebind.insert(at, ());
        self
    }

    fn forget(&mut self, now: Instant) {
        while self.rebind.first_key_value().is_some_and(|(at, ())| *at <= now) {
            self.rebind.pop_first();
            self.outgoing.clear();
            self.incoming.clear();
        }
        if let Some(expiry) = self.expiry {
            self.incoming.retain(|_, (_, used)| now - *used < expiry);
            let incoming = &self.incoming;
            self.outgoing.retain(|_, outer| incoming.contains_key(outer));
        }
    }
}

impl Middlebox for Nat {
    fn process(&mut self, now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        self.forget(now);
        let (Some(source), Some(destination)) = (packet.tcp_source(), packet.tcp_destination()) else {
            return out.send(direction, packet);
        };
        match direction {
            Direction::Forward => {
                let outer = *self.outgoing.entry(source).or_insert_with(|| {
                    self.next_port += 1;
                    SocketAddr::new(self.public.unwrap_or(source.ip()), self.next_port)
                });
                self.incoming.insert(outer, (source, now));
                packet.rewrite(Some(outer), None);
                out.send(direction, packet);
            }
            Direction::Reverse => match self.incoming.get_mut(&destination) {
                Some((inner, used)) => {
                    *used = now;
                    let inner = *inner;
                    packet.rewrite(None, Some(inner));
                    out.send(direction, packet);
                }
                None => self.unsolicited += 1,
            },
        }
    }
}
