//! TCP Fast Open (RFC 7413): the cookies that this stack gives as a server, and those that it has been given
//! as a client.
//!
//! Requirement by requirement: `docs/src/conformance-rfc7413.md`.

use crate::info::FastOpenServer;
use crate::observe::Counter;
use crate::tcp::FourTuple;
use crate::wire::mptcp::keys::constant_time_eq;
use crate::wire::tcp::TcpRepr;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::{Hash as _, Hasher as _};
use core::net::{IpAddr, SocketAddr};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use siphasher::sip::SipHasher24;
use smallvec::SmallVec;
use umptcp_types::{Duration, Instant, ListenerId};

/// Servers remembered; the one heard of longest ago makes room.
const MAX_SERVERS: usize = 1024;
/// How long a server is not tried after a failure (RFC 7413 §4.1.3.1).
const DISABLED: Duration = Duration::from_secs(3600);
/// A cookie of ours is good in the period it was made in and the next (RFC 7413 §4.1.2, 5).
const PERIOD: Duration = Duration::from_secs(24 * 3600);
/// Bytes of our cookies: what a SYN/ACK with all other options and MP_CAPABLE has room for (RFC 8684 appendix
/// B.1).
const COOKIE: usize = 6;
/// Bytes taken from a SYN at most; the rest comes again.
const MAX_DATA: usize = 1460;
/// How long a request that did not become a connection still counts against the limit (RFC 7413 §5.1).
const FAILED: Duration = Duration::from_secs(60);

/// A cookie: 4 to 16 bytes.
pub(crate) type Cookie = SmallVec<[u8; 16]>;

/// What becomes of the Fast Open option of a SYN and its data.
#[derive(Clone, Default, Debug)]
pub(crate) struct FastOpenSyn {
    /// Data that are accepted: the cookie was valid. They count as a pending request until the handshake
    /// ends.
    pub(crate) data: Bytes,
    /// The cookie for the SYN/ACK.
    pub(crate) answer: Option<Cookie>,
}

/// Connections of a listener that brought data in the SYN and have not completed the handshake.
#[derive(Debug)]
struct Requests {
    limit: usize,
    pending: usize,
    /// When others failed that count for a while yet: never more than `limit`.
    failed: VecDeque<Instant>,
}

/// What the client knows of a server.
#[derive(Clone, Debug)]
struct Server {
    cookie: Cookie,
    mss: u16,
    heard: Instant,
    disabled_until: Option<Instant>,
    /// Learned by this stack, not taken over from another.
    learned: bool,
}

/// What to do with a SYN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    /// Ask for a cookie.
    Ask,
    /// Send data with this cookie, to a server with this MSS.
    Send(Cookie, u16),
    /// Neither.
    Leave,
}

/// How good a cookie is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Validity {
    Fresh,
    /// Of the former period: it is time for a new one.
    Ageing,
    Invalid,
}

/// Cookies, in both roles.
pub(crate) struct FastOpen {
    key: (u64, u64),
    requests: BTreeMap<ListenerId, Requests>,
    /// By our address and the server's with its port. Ordered, so that all ports of a server are together.
    servers: BTreeMap<(IpAddr, SocketAddr), Server>,
}

impl FastOpen {
    /// `seed` is the stack's, of which a stream of its own is used.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        rng.set_stream(1);
        let key = (rng.next_u64(), rng.next_u64());
        FastOpen { key, requests: BTreeMap::new(), servers: BTreeMap::new() }
    }

    // ---- server ----

    /// A MAC of both addresses (RFC 7413 §4.1.2). The period acts as key rotation.
    fn make(&self, client: IpAddr, server: IpAddr, period: u64) -> Cookie {
        let mut h = SipHasher24::new_with_keys(self.key.0, self.key.1);
        (client, server, period).hash(&mut h);
        SmallVec::from_slice(&h.finish().to_be_bytes()[..COOKIE])
    }

    fn period(now: Instant) -> u64 {
        now.as_millis() / PERIOD.as_millis() as u64
    }

    /// The cookie for a client.
    fn cookie(&self, now: Instant, client: IpAddr, server: IpAddr) -> Cookie {
        self.make(client, server, Self::period(now))
    }

    fn check(&self, now: Instant, client: IpAddr, server: IpAddr, cookie: &[u8]) -> Validity {
        let current = Self::period(now);
        let made_in = |p: u64| constant_time_eq(&self.make(client, server, p), cookie);
        if made_in(current) {
            Validity::Fresh
        } else if current > 0 && made_in(current - 1) {
            Validity::Ageing
        } else {
            Validity::Invalid
        }
    }

    /// A listener takes up to `limit` requests at once.
    pub(crate) fn listen(&mut self, listener: ListenerId, limit: usize) {
        if limit > 0 {
            self.requests.insert(listener, Requests { limit, pending: 0, failed: VecDeque::new() });
        }
    }

    pub(crate) fn unlisten(&mut self, listener: ListenerId) {
        self.requests.remove(&listener);
    }

    /// A request's handshake is complete.
    pub(crate) fn settled(&mut self, listener: ListenerId) {
        if let Some(r) = self.requests.get_mut(&listener) {
            r.pending = r.pending.saturating_sub(1);
        }
    }

    /// A request's handshake will not be completed. It counts for a while yet, or an attacker whose SYNs
    /// others answer with RST could go on and on (RFC 7413 §5.1).
    pub(crate) fn abandoned(&mut self, now: Instant, listener: ListenerId) {
        if let Some(r) = self.requests.get_mut(&listener) {
            r.pending = r.pending.saturating_sub(1);
            r.failed.push_back(now);
        }
    }

    /// A SYN will not be accepted.
    pub(crate) fn failed(&mut self, now: Instant, listener: ListenerId, syn: &FastOpenSyn) {
        if !syn.data.is_empty() {
            self.abandoned(now, listener);
        }
    }

    /// What to do with a SYN's Fast Open option and data (RFC 7413 §4.2.2), and what is to be observed.
    pub(crate) fn on_syn(
        &mut self,
        now: Instant,
        listener: ListenerId,
        tuple: &FourTuple,
        syn: &TcpRepr,
        payload: &Bytes,
    ) -> (FastOpenSyn, Option<Counter>) {
        let mut result = FastOpenSyn::default();
        // RFC 7413 §4.2: unless the listener has enabled it, the option is ignored.
        let (Some(cookie), Some(requests)) = (&syn.options.fast_open, self.requests.get_mut(&listener))
        else {
            return (result, None);
        };
        while requests.failed.front().is_some_and(|t| now - *t >= FAILED) {
            requests.failed.pop_front();
        }
        if requests.pending + requests.failed.len() >= requests.limit {
            return (result, Some(Counter::TcpFastOpenListenOverflow));
        }
        let (client, server) = (tuple.remote.ip(), tuple.local.ip());
        let fresh = self.cookie(now, client, server);
        if cookie.is_empty() {
            result.answer = Some(fresh);
            return (result, Some(Counter::TcpFastOpenCookieReqd));
        }
        let mut happened = None;
        let validity = self.check(now, client, server, cookie);
        if validity == Validity::Invalid {
            happened = Some(Counter::TcpFastOpenPassiveFail);
        } else if !payload.is_empty() {
            // Copied, since the buffer it came in may be much larger.
            result.data = Bytes::copy_from_slice(&payload[..payload.len().min(MAX_DATA)]);
            if let Some(r) = self.requests.get_mut(&listener) {
                r.pending += 1;
            }
        }
        result.answer = (validity != Validity::Fresh).then_some(fresh);
        (result, happened)
    }

    // ---- client ----

    /// What to do with a SYN from `local` to `remote`. A cookie is good for every port of a server (RFC 7413
    /// §4.1.3); that Fast Open failed is remembered of the one port where it did (§4.1.3.1).
    pub(crate) fn advise(&self, now: Instant, local: IpAddr, remote: SocketAddr) -> Advice {
        let known = self.servers.get(&(local, remote));
        if known.is_some_and(|s| s.disabled_until.is_some_and(|t| now < t)) {
            return Advice::Leave;
        }
        let [first, last] = [0, u16::MAX].map(|port| (local, SocketAddr::new(remote.ip(), port)));
        let with_cookie = |s: &&Server| !s.cookie.is_empty();
        let newest =
            || self.servers.range(first..=last).map(|(_, s)| s).filter(with_cookie).max_by_key(|s| s.heard);
        match known.filter(with_cookie).or_else(newest) {
            Some(s) => Advice::Send(s.cookie.clone(), s.mss),
            None => Advice::Ask,
        }
    }

    /// What was learned of servers here, those heard of least recently first.
    pub(crate) fn learned(&self, now: Instant) -> Vec<FastOpenServer> {
        let mut known: Vec<_> = self.servers.iter().filter(|(_, s)| s.learned).collect();
        known.sort_by_key(|(key, s)| (s.heard, **key));
        known
            .into_iter()
            .map(|((local, remote), s)| FastOpenServer {
                local: *local,
                remote: *remote,
                cookie: s.cookie.to_vec(),
                mss: s.mss,
                left_alone: s.disabled_until.filter(|t| *t > now).map(|t| t - now),
            })
            .collect()
    }

    /// Takes over what another stack had learned; false: it was not taken.
    pub(crate) fn take_over(&mut self, now: Instant, server: &FastOpenServer) -> bool {
        let FastOpenServer { local, remote, cookie, mss, left_alone } = server;
        let fits = cookie.is_empty() || FastOpenServer::COOKIE_LENGTHS.contains(&cookie.len());
        let known = &mut self.servers;
        if !fits || known.len() >= MAX_SERVERS || known.contains_key(&(*local, *remote)) {
            return false;
        }
        // Never for longer than we would leave it alone ourselves.
        let disabled_until = left_alone.map(|time| now + time.min(DISABLED));
        let cookie = Cookie::from_slice(cookie);
        let server = Server { cookie, mss: *mss, heard: now, disabled_until, learned: false };
        known.insert((*local, *remote), server);
        true
    }

    fn entry(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) -> &mut Server {
        if self.servers.len() >= MAX_SERVERS && !self.servers.contains_key(&(local, remote)) {
            let oldest = self.servers.iter().min_by_key(|(_, s)| s.heard).map(|(k, _)| *k);
            if let Some(oldest) = oldest {
                self.servers.remove(&oldest);
            }
        }
        let new = Server { cookie: Cookie::new(), mss: 0, heard: now, disabled_until: None, learned: true };
        self.servers.entry((local, remote)).or_insert(new)
    }

    /// The server gave a cookie.
    pub(crate) fn remember(
        &mut self,
        now: Instant,
        local: IpAddr,
        remote: SocketAddr,
        cookie: &Cookie,
        mss: u16,
    ) {
        let s = self.entry(now, local, remote);
        *s = Server { cookie: cookie.clone(), mss, heard: now, disabled_until: None, learned: true };
    }

    /// The server took data.
    pub(crate) fn works(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) {
        if let Some(s) = self.servers.get_mut(&(local, remote)) {
            (s.heard, s.learned) = (now, true);
            s.disabled_until = None;
        }
    }

    /// A SYN was lost, maybe because of the option or its data: not tried until the answer to another shows
    /// that it was not (RFC 7413 §4.1.3.1).
    pub(crate) fn doubt(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) {
        let s = self.entry(now, local, remote);
        (s.heard, s.learned) = (now, true);
        s.disabled_until = Some(now + DISABLED);
    }

    /// The server does not take it.
    pub(crate) fn disable(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) {
        self.doubt(now, local, remote);
        self.entry(now, local, remote).cookie.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> FastOpen {
        FastOpen::new([7; 32])
    }

    #[test]
    fn a_cookie_is_for_one_client_and_a_day_or_two() {
        let t = table();
        let now = Instant::ZERO + PERIOD.saturating_mul(10);
        let (a, b, server) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 9].into());
        let cookie = t.cookie(now, a, server);
        assert_eq!(cookie.len(), COOKIE);
        assert_eq!(t.check(now, a, server, &cookie), Validity::Fresh);
        assert_eq!(t.check(now, b, server, &cookie), Validity::Invalid);
        assert_eq!(t.check(now, a, b, &cookie), Validity::Invalid);
        assert_eq!(t.check(now, a, server, &cookie[..4]), Validity::Invalid);
        assert_eq!(t.check(now, a, server, &[]), Validity::Invalid);
        assert_eq!(t.check(now + PERIOD, a, server, &cookie), Validity::Ageing);
        assert_eq!(t.check(now + PERIOD.saturating_mul(2), a, server, &cookie), Validity::Invalid);
        let other = FastOpen::new([8; 32]);
        assert_eq!(other.check(now, a, server, &cookie), Validity::Invalid);
    }

    #[test]
    fn servers_are_remembered_and_left_alone_within_bounds() {
        let mut t = table();
        let local = IpAddr::from([10, 0, 0, 1]);
        let server = |n: u32| SocketAddr::from((n.to_be_bytes(), 80));
        let at = |n: u64| Instant::from_millis(n);
        assert_eq!(t.advise(at(0), local, server(1)), Advice::Ask);
        let cookie = Cookie::from_slice(&[7; 8]);
        t.remember(at(0), local, server(1), &cookie, 1400);
        assert_eq!(t.advise(at(1), local, server(1)), Advice::Send(cookie.clone(), 1400));
        assert_eq!(t.advise(at(1), [10, 0, 0, 2].into(), server(1)), Advice::Ask);
        t.doubt(at(2), local, server(1));
        assert_eq!(t.advise(at(3), local, server(1)), Advice::Leave);
        t.works(at(4), local, server(1));
        assert_eq!(t.advise(at(4), local, server(1)), Advice::Send(cookie.clone(), 1400));
        t.disable(at(5), local, server(1));
        assert_eq!(t.advise(at(6), local, server(1)), Advice::Leave);
        assert_eq!(t.advise(at(5) + DISABLED, local, server(1)), Advice::Ask);
        for n in 0..3000 {
            t.remember(at(u64::from(n)), local, server(n), &cookie, 1400);
        }
        assert_eq!(t.servers.len(), MAX_SERVERS);
        assert_eq!(t.advise(at(3000), local, server(2999)), Advice::Send(cookie, 1400));
    }

    /// RFC 7413 §4.1.3 and §4.1.3.1.
    #[test]
    fn a_cookie_is_good_for_every_port_of_a_server_and_a_failure_concerns_one() {
        let mut t = table();
        let at = |n: u64| Instant::from_millis(n);
        for (local, server) in [("10.0.0.1", "10.0.0.9"), ("fd00::1", "fd00::9")] {
            let local: IpAddr = local.parse().expect("an address");
            let server: IpAddr = server.parse().expect("an address");
            let port = |port| SocketAddr::new(server, port);
            let (old, new) = (Cookie::from_slice(&[7; 8]), Cookie::from_slice(&[8; 8]));
            t.remember(at(0), local, port(80), &old, 1400);
            t.remember(at(1), local, port(443), &new, 1300);
            assert_eq!(t.advise(at(2), local, port(8080)), Advice::Send(new.clone(), 1300));
            t.disable(at(3), local, port(8080));
            assert_eq!(t.advise(at(4), local, port(8080)), Advice::Leave);
            assert_eq!(t.advise(at(4), local, port(80)), Advice::Send(old, 1400));
            assert_eq!(t.advise(at(3) + DISABLED, local, port(8080)), Advice::Send(new, 1300));
        }
    }

    #[test]
    fn what_was_learned_goes_from_stack_to_stack() {
        let local = IpAddr::from([10, 0, 0, 1]);
        let server = |n: u32| SocketAddr::from((n.to_be_bytes(), 80));
        let at = |n: u64| Instant::from_millis(n * 1000);
        let stack = || FastOpen::new([7; 32]);
        let (mut a, mut b) = (stack(), stack());
        let cookie = Cookie::from_slice(&[7; 8]);
        a.remember(at(1), local, server(2), &cookie, 1400);
        a.remember(at(2), local, server(1), &cookie, 1300);
        a.doubt(at(3), local, server(3));
        let learned = a.learned(at(4));
        assert_eq!(learned.iter().map(|s| s.remote).collect::<Vec<_>>(), [server(2), server(1), server(3)]);
        assert_eq!(learned[2].left_alone, Some(DISABLED - Duration::from_secs(1)));
        assert!(learned.iter().all(|s| b.take_over(at(100), s)));
        assert_eq!(b.advise(at(100), local, server(1)), Advice::Send(cookie.clone(), 1300));
        assert_eq!(b.advise(at(100), local, server(3)), Advice::Leave);
        assert_eq!(b.advise(at(100) + DISABLED, local, server(3)), Advice::Ask);
        assert_eq!(b.learned(at(100)), [], "nothing of its own");
        // What it knows itself counts more, and what it learns anew is its own.
        let other = FastOpenServer { cookie: alloc::vec![9; 4], ..learned[1].clone() };
        assert!(!b.take_over(at(100), &other));
        b.works(at(101), local, server(1));
        assert_eq!(b.learned(at(102)), [learned[1].clone()]);
        // Cookies that cannot be, and more than there is room for.
        for length in [1, 3, 17] {
            let bad = FastOpenServer { remote: server(9), cookie: alloc::vec![0; length], ..other.clone() };
            assert!(!b.take_over(at(100), &bad));
        }
        let long =
            FastOpenServer { remote: server(8), left_alone: Some(DISABLED + DISABLED), ..other.clone() };
        assert!(b.take_over(at(100), &long));
        assert_ne!(b.advise(at(100) + DISABLED, local, server(8)), Advice::Leave);
        for n in 10..3000 {
            b.take_over(at(103), &FastOpenServer { remote: server(n), ..other.clone() });
        }
        assert_eq!(b.servers.len(), MAX_SERVERS);
    }
}
