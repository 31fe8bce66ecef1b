//! Addresses that we have told the peer (ADD_ADDR, RFC 8684 §3.4.1), repeated until it echoes them.

use alloc::vec::Vec;
use core::net::IpAddr;
use smallvec::SmallVec;
use umptcp_types::{AddressId, Duration, Instant};

/// ADD_ADDRs sent before giving up on an echo.
const TRIES: u8 = 4;

/// An address that we tell the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Advertised {
    pub(crate) id: AddressId,
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

#[derive(Debug)]
struct Advert {
    what: Advertised,
    /// The ports that the peer may take it to mean: its own, or those of the subflows that carried it (RFC
    /// 8684 §3.4.1).
    ports: SmallVec<[u16; 2]>,
    /// The address of a path of ours that it stands for; it goes when that goes.
    local: Option<IpAddr>,
    echoed: bool,
    resend: Option<Instant>,
    tries: u8,
}

/// What is to be done about an address whose time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// Send it, for the first time or again; that often it has been sent.
    Send(Advertised, u8),
    /// It was never echoed.
    GivenUp,
}

/// The addresses that we have told the peer.
#[derive(Debug, Default)]
pub(crate) struct Adverts {
    list: Vec<Advert>,
}

impl Adverts {
    /// The peer is to be told `what`. Told again, it is news to the peer: an address that failed may be tried
    /// once more (RFC 8684 §3.4.1).
    pub(crate) fn push(&mut self, now: Instant, what: Advertised, local: Option<IpAddr>) {
        self.list.retain(|a| (a.what.id, a.what.port) != (what.id, what.port));
        let ports = what.port.into_iter().collect();
        self.list.push(Advert { what, ports, local, echoed: false, resend: Some(now), tries: 0 });
    }

    /// How many there are: the bound of the index of [`take_due`](Self::take_due).
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// What is to be done about number `k`, if its time has come. The next time is a timeout away, doubled
    /// each time.
    pub(crate) fn take_due(&mut self, k: usize, now: Instant, rto: Duration) -> Option<Due> {
        let a = self.list.get_mut(k).filter(|a| a.resend.is_some_and(|t| t <= now))?;
        if a.echoed || a.tries >= TRIES {
            a.resend = None;
            return (!a.echoed).then_some(Due::GivenUp);
        }
        a.resend = Some(now + rto.saturating_mul(1 << a.tries));
        Some(Due::Send(a.what, a.tries))
    }

    /// Number `k` goes out on a subflow from `port`.
    pub(crate) fn on_sent(&mut self, k: usize, port: u16) {
        let Some(a) = self.list.get_mut(k) else { return };
        a.tries += 1;
        let meant = a.what.port.unwrap_or(port);
        if !a.ports.contains(&meant) {
            a.ports.push(meant);
        }
    }

    /// The peer has echoed `what`.
    pub(crate) fn on_echo(&mut self, what: Advertised) {
        for a in self.list.iter_mut().filter(|a| a.what == what) {
            a.echoed = true;
            a.resend = None;
        }
    }

    /// These addresses are taken back.
    pub(crate) fn remove(&mut self, ids: &[AddressId]) {
        self.list.retain(|a| !ids.contains(&a.what.id));
    }

    /// None is repeated any more, and none counts.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// The peer has reason to join to `port`.
    pub(crate) fn offers_port(&self, port: u16) -> bool {
        self.list.iter().any(|a| a.ports.contains(&port))
    }

    pub(crate) fn has_id(&self, id: AddressId) -> bool {
        self.list.iter().any(|a| a.what.id == id)
    }

    /// The addresses told.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.list.iter().map(|a| a.what.address).collect()
    }

    /// IDs of those that stand for a local address of which `gone` holds.
    pub(crate) fn ids_of(&self, gone: impl Fn(IpAddr) -> bool) -> SmallVec<[AddressId; 8]> {
        self.list.iter().filter(|a| a.local.is_some_and(&gone)).map(|a| a.what.id).collect()
    }

    /// When the next is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.list.iter().filter_map(|a| a.resend).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: Advertised =
        Advertised { id: AddressId(1), address: IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), port: None };
    const RTO: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_repeated_with_growing_pauses_and_then_given_up() {
        let mut a = Adverts::default();
        let mut now = Instant::ZERO;
        a.push(now, WHAT, None);
        for n in 0..TRIES {
            assert_eq!(a.take_due(0, now, RTO), Some(Due::Send(WHAT, n)));
            a.on_sent(0, 1000 + u16::from(n));
            assert_eq!(a.take_due(0, now, RTO), None);
            now += RTO.saturating_mul(1 << n);
            assert_eq!(a.next_deadline(), Some(now));
        }
        assert_eq!(a.take_due(0, now, RTO), Some(Due::GivenUp));
        assert_eq!((a.next_deadline(), a.len()), (None, 1));
        assert!(a.offers_port(1000) && a.offers_port(1003) && !a.offers_port(1004));
    }

    #[test]
    fn an_echo_ends_it_and_a_second_push_begins_anew() {
        let mut a = Adverts::default();
        a.push(Instant::ZERO, WHAT, None);
        a.on_echo(Advertised { port: Some(1), ..WHAT });
        assert!(a.next_deadline().is_some());
        a.on_echo(WHAT);
        assert_eq!(a.next_deadline(), None);
        a.push(Instant::ZERO, WHAT, None);
        assert_eq!((a.len(), a.next_deadline()), (1, Some(Instant::ZERO)));
        a.remove(&[AddressId(1)]);
        assert_eq!(a.len(), 0);
    }
}
