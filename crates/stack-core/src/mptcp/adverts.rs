//! Addresses that we have told the peer (ADD_ADDR, RFC 8684 §3.4.1), repeated until it echoes them, and then,
//! with growing pauses, until it joins them.
//!
//! One at a time: Linux handles one ADD_ADDR and drops what comes before that is done. The next follows the
//! echo, or comes when the echo is overdue. Addresses of the connection's own family go first: they are the
//! likelier to be of use to the peer.
//!
//! A peer tries an address once, when it is told (§3.4.1, §3.9.3), and Linux does so at once: if our network
//! is not yet ready then, or the peer's own, nothing comes of it until we say it again.
//!
//! By example: `docs/src/by-example/add-addr.md`, `docs/src/by-example/remove-addr.md`.

use alloc::vec::Vec;
use core::net::IpAddr;
use smallvec::SmallVec;
use umptcp_types::{AddressId, Duration, Instant};

/// ADD_ADDRs sent before giving up on an echo.
const TRIES: u8 = 4;
/// How often an address that was echoed is told again if nobody joins it.
const REFRESHES: u8 = 7;
/// The time from the echo to the first of them, doubled each time: the last one comes two minutes after the
/// first echo.
const REFRESH: Duration = Duration::from_secs(1);

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
    /// When to send it: anew as long as it has not been echoed, then as a refresh.
    resend: Option<Instant>,
    /// Times sent without an echo.
    tries: u8,
    echoed: bool,
    refreshed: u8,
}

impl Advert {
    /// Told again because nobody joined.
    fn refresh(&mut self) {
        (self.echoed, self.tries) = (false, 0);
        self.refreshed += 1;
    }
}

/// What is to be done about an address whose time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// Send it, for the first time or again; that often it has come to nothing.
    Send(Advertised, u8),
    /// It was never echoed.
    GivenUp,
}

/// The addresses that we have told the peer.
#[derive(Debug)]
pub(crate) struct Adverts {
    list: Vec<Advert>,
    /// The family of the first subflow's addresses.
    ipv4: bool,
    /// The last one sent is unanswered; the next waits until then.
    unanswered: Option<(Advertised, Instant)>,
}

impl Adverts {
    /// None yet, on a connection that was begun from `first`.
    pub(crate) fn new(first: IpAddr) -> Self {
        Adverts { list: Vec::new(), ipv4: first.is_ipv4(), unanswered: None }
    }

    /// The peer is to be told `what`. Told again, it is news to the peer: an address that failed may be tried
    /// once more (RFC 8684 §3.4.1).
    pub(crate) fn push(&mut self, now: Instant, what: Advertised, local: Option<IpAddr>) {
        self.list.retain(|a| (a.what.id, a.what.port) != (what.id, what.port));
        let ports = what.port.into_iter().collect();
        let resend = Some(now);
        self.list.push(Advert { what, ports, local, resend, tries: 0, echoed: false, refreshed: 0 });
    }

    /// What is to be done at `now`, and about which number. `None`: nothing, or the last one is unanswered.
    /// The next time is a timeout away, doubled each time. `joined`: a subflow uses what was told, which
    /// stands for that local address.
    pub(crate) fn take_due(
        &mut self,
        now: Instant,
        rto: Duration,
        joined: impl Fn(&Advertised, Option<IpAddr>) -> bool,
    ) -> Option<(usize, Due)> {
        for a in self.list.iter_mut().filter(|a| a.echoed && a.resend.is_some_and(|t| t <= now)) {
            if joined(&a.what, a.local) {
                a.resend = None;
            }
        }
        if self.unanswered.is_some_and(|(_, until)| now < until) {
            return None;
        }
        let is_due = |a: &&(usize, &Advert)| a.1.resend.is_some_and(|t| t <= now);
        let ipv4 = self.ipv4;
        // Those that have been sent often wait for the others.
        let order =
            |a: &(usize, &Advert)| (a.1.echoed, a.1.refreshed, a.1.tries, a.1.what.address.is_ipv4() != ipv4);
        let k = self.list.iter().enumerate().filter(|a| is_due(&a)).min_by_key(order)?.0;
        let a = &mut self.list[k];
        if a.echoed {
            a.refresh();
        }
        if a.tries >= TRIES {
            a.resend = None;
            return Some((k, Due::GivenUp));
        }
        a.resend = Some(now + rto.saturating_mul(1 << a.tries));
        Some((k, Due::Send(a.what, a.refreshed + a.tries)))
    }

    /// Number `k` goes out on a subflow from `port`. The next waits for its echo, for `rto` at most.
    pub(crate) fn on_sent(&mut self, now: Instant, k: usize, port: u16, rto: Duration) {
        let Some(a) = self.list.get_mut(k) else { return };
        a.tries += 1;
        self.unanswered = Some((a.what, now + rto));
        let meant = a.what.port.unwrap_or(port);
        if !a.ports.contains(&meant) {
            a.ports.push(meant);
        }
    }

    /// The peer has echoed `what`.
    pub(crate) fn on_echo(&mut self, now: Instant, what: Advertised) {
        for a in self.list.iter_mut().filter(|a| a.what == what && !a.echoed) {
            a.echoed = true;
            a.resend = (a.refreshed < REFRESHES).then(|| now + REFRESH.saturating_mul(1 << a.refreshed));
        }
        if self.unanswered.is_some_and(|(sent, _)| sent == what) {
            self.unanswered = None;
        }
    }

    /// These addresses are taken back.
    pub(crate) fn remove(&mut self, ids: &[AddressId]) {
        self.list.retain(|a| !ids.contains(&a.what.id));
        if self.unanswered.is_some_and(|(sent, _)| ids.contains(&sent.id)) {
            self.unanswered = None;
        }
    }

    /// None is repeated any more, and none counts.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.unanswered = None;
    }

    /// The peer has reason to join to `port`.
    pub(crate) fn offers_port(&self, port: u16) -> bool {
        self.list.iter().any(|a| a.ports.contains(&port))
    }

    pub(crate) fn has_id(&self, id: AddressId) -> bool {
        self.list.iter().any(|a| a.what.id == id)
    }

    /// The ID has been told for an address other than this.
    pub(crate) fn is_of_another(&self, id: AddressId, address: IpAddr) -> bool {
        self.list.iter().any(|a| a.what.id == id && a.what.address != address)
    }

    /// What was told.
    pub(crate) fn told(&self) -> Vec<(IpAddr, Option<u16>)> {
        self.list.iter().map(|a| (a.what.address, a.what.port)).collect()
    }

    /// The ID of an address that stands for `local` and was told with this port.
    pub(crate) fn id_at(&self, local: IpAddr, port: u16) -> Option<AddressId> {
        let at = |a: &&Advert| a.local == Some(local) && a.what.port == Some(port);
        self.list.iter().find(at).map(|a| a.what.id)
    }

    /// IDs of those that stand for a local address of which `gone` holds.
    pub(crate) fn ids_of(&self, gone: impl Fn(IpAddr) -> bool) -> SmallVec<[AddressId; 8]> {
        self.list.iter().filter(|a| a.local.is_some_and(&gone)).map(|a| a.what.id).collect()
    }

    /// When the next is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let next = self.list.iter().filter_map(|a| a.resend).min()?;
        Some(self.unanswered.map_or(next, |(_, until)| next.max(until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    const WHAT: Advertised =
        Advertised { id: AddressId(1), address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: None };
    const RTO: Duration = Duration::from_secs(1);

    /// Nobody has joined.
    fn due(a: &mut Adverts, now: Instant) -> Option<(usize, Due)> {
        a.take_due(now, RTO, |_, _| false)
    }

    fn adverts() -> Adverts {
        Adverts::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    #[test]
    fn it_is_repeated_with_growing_pauses_and_then_given_up() {
        let mut a = adverts();
        let mut now = Instant::ZERO;
        a.push(now, WHAT, None);
        for n in 0..TRIES {
            assert_eq!(due(&mut a, now), Some((0, Due::Send(WHAT, n))));
            a.on_sent(now, 0, 1000 + u16::from(n), RTO);
            assert_eq!(due(&mut a, now), None);
            now += RTO.saturating_mul(1 << n);
            assert_eq!(a.next_deadline(), Some(now));
        }
        assert_eq!(due(&mut a, now), Some((0, Due::GivenUp)));
        assert_eq!(a.next_deadline(), None);
        assert!(a.offers_port(1000) && a.offers_port(1003) && !a.offers_port(1004));
    }

    #[test]
    fn an_echo_ends_it_and_a_second_push_begins_anew() {
        let mut a = adverts();
        a.push(Instant::ZERO, WHAT, None);
        a.on_echo(Instant::ZERO, Advertised { port: Some(1), ..WHAT });
        assert!(a.next_deadline().is_some());
        a.on_echo(Instant::ZERO, WHAT);
        assert_eq!(a.next_deadline(), Some(Instant::ZERO + REFRESH));
        a.push(Instant::ZERO, WHAT, None);
        assert_eq!(a.next_deadline(), Some(Instant::ZERO));
        a.remove(&[AddressId(1)]);
        assert_eq!(a.next_deadline(), None);
    }

    #[test]
    fn one_at_a_time_with_the_own_family_first_and_paced_by_the_echo() {
        let mut a = adverts();
        let what = |id, address| Advertised { id: AddressId(id), address, port: None };
        let first = what(3, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (second, third) =
            (what(1, IpAddr::V6(Ipv6Addr::LOCALHOST)), what(2, IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        for what in [second, third, first] {
            a.push(Instant::ZERO, what, None);
        }
        let send = |a: &mut Adverts, now| {
            let Some((k, Due::Send(what, _))) = due(a, now) else { return None };
            a.on_sent(now, k, 1, RTO);
            Some(what)
        };
        let now = Instant::ZERO;
        assert_eq!((send(&mut a, now), send(&mut a, now)), (Some(first), None));
        a.on_echo(now, second);
        assert_eq!(send(&mut a, now), None, "that echo was not awaited");
        a.on_echo(now, first);
        assert_eq!((send(&mut a, now), send(&mut a, now)), (Some(third), None));
        // No echo: it is said again after those that have not been said at all.
        assert_eq!(a.next_deadline(), Some(now + RTO));
        a.push(now, first, None);
        assert_eq!((send(&mut a, now + RTO), send(&mut a, now + RTO)), (Some(first), None));
        a.remove(&[first.id]);
        assert_eq!(send(&mut a, now + RTO), Some(third));
    }

    #[test]
    fn what_was_echoed_is_told_again_until_somebody_joins() {
        let mut a = adverts();
        let mut now = Instant::ZERO;
        a.push(now, WHAT, None);
        let mut times = 0;
        while let Some(next) = a.next_deadline() {
            now = next;
            let Some((k, Due::Send(what, said))) = due(&mut a, now) else {
                panic!("nothing is due at {now:?}")
            };
            assert_eq!((what, said), (WHAT, times));
            times += 1;
            a.on_sent(now, k, 1, RTO);
            a.on_echo(now, WHAT);
            // One that arrives twice changes nothing.
            a.on_echo(now + REFRESH, WHAT);
        }
        assert_eq!(
            (times, now),
            (1 + REFRESHES, Instant::ZERO + REFRESH.saturating_mul((1 << REFRESHES) - 1))
        );

        a.push(now, WHAT, None);
        let (k, _) = due(&mut a, now).expect("it is told anew");
        a.on_sent(now, k, 1, RTO);
        a.on_echo(now, WHAT);
        assert_eq!(a.take_due(now + REFRESH, RTO, |what, _| *what == WHAT), None);
        assert_eq!(a.next_deadline(), None, "somebody has joined");
    }
}
