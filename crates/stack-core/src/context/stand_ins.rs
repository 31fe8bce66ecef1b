//! Paths that stand in for others: the same NIC, with each segment inside UDP, for networks that strip options of TCP or
//! swallow its SYNs. What is remembered here says which of the two is tried first.
//!
//! All of it is forgotten when a path may lead into another network: it has other addresses, or its link was down.

use crate::info::NativeTrouble;
use alloc::collections::BTreeMap;
use core::net::SocketAddr;
use umptcp_types::{Duration, Instant, PathId};

/// How long a network is known to strip or change what is native, the first time; each further time in a row doubles
/// it.
const STRIPPED: Duration = Duration::from_secs(600);
/// The same where SYNs were not answered in time, which may have been chance.
const SWALLOWED: Duration = Duration::from_secs(60);
/// How long a server is not asked by UDP that has not answered.
const SILENT: Duration = Duration::from_secs(60);
/// The longest of these times.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long a server is known to speak MPTCP.
const SPEAKS: Duration = Duration::from_secs(3600);
/// Most servers remembered of a kind. Who is remembered for the shortest time to come makes room.
const MAX_SERVERS: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Memory {
    /// How often in a row it was found.
    times: u32,
    until: Instant,
}

impl Memory {
    fn again(&mut self, now: Instant, period: Duration) {
        if now < self.until && self.times > 0 {
            // Connections that began at the same time find it at the same time: that counts once.
            self.until = self.until.max(now + period);
            return;
        }
        let doubled = period.saturating_mul(1 << self.times.min(10)).min(LONGEST);
        self.until = now + doubled;
        self.times += 1;
    }
}

/// What is remembered of native paths and of servers.
#[derive(Debug, Default)]
pub(crate) struct StandIns {
    /// Native paths whose network is in the way, for IPv4 or IPv6.
    bad: BTreeMap<(PathId, bool), Memory>,
    /// Servers that have not answered inside UDP, by that path.
    silent: BTreeMap<(PathId, SocketAddr), Memory>,
    /// Servers that speak MPTCP, until when that is believed.
    speak: BTreeMap<SocketAddr, Instant>,
}

impl StandIns {
    /// A native path was found to be in the way. True: that is new.
    pub(crate) fn native_failed(
        &mut self,
        now: Instant,
        native: PathId,
        v6: bool,
        what: NativeTrouble,
    ) -> bool {
        let new = !self.is_bad(now, native, v6);
        let period = match what {
            NativeTrouble::Stripped => STRIPPED,
            NativeTrouble::Swallowed => SWALLOWED,
        };
        self.bad.entry((native, v6)).or_insert(Memory { times: 0, until: now }).again(now, period);
        new
    }

    /// MPTCP has come through a native path.
    pub(crate) fn native_works(&mut self, native: PathId, v6: bool) {
        self.bad.remove(&(native, v6));
    }

    /// Whether the network of a native path is known to be in the way.
    pub(crate) fn is_bad(&self, now: Instant, native: PathId, v6: bool) -> bool {
        self.bad.get(&(native, v6)).is_some_and(|memory| now < memory.until)
    }

    /// A server has not answered inside UDP.
    pub(crate) fn on_silent(&mut self, now: Instant, udp: PathId, remote: SocketAddr) {
        if self.silent.len() >= MAX_SERVERS && !self.silent.contains_key(&(udp, remote)) {
            let first = self.silent.iter().min_by_key(|(_, memory)| memory.until).map(|(key, _)| *key);
            first.map(|key| self.silent.remove(&key));
        }
        self.silent.entry((udp, remote)).or_insert(Memory { times: 0, until: now }).again(now, SILENT);
    }

    /// A server is not to be asked inside UDP for `time`, however often it has not answered before.
    pub(crate) fn leave_alone(&mut self, now: Instant, udp: PathId, remote: SocketAddr, time: Duration) {
        if self.silent.len() < MAX_SERVERS {
            let memory = self.silent.entry((udp, remote)).or_insert(Memory { times: 0, until: now });
            memory.until = memory.until.max(now + time);
        }
    }

    /// A server has answered inside UDP.
    pub(crate) fn on_answered(&mut self, udp: PathId, remote: SocketAddr) {
        self.silent.remove(&(udp, remote));
    }

    /// Whether a server has lately not answered inside UDP.
    pub(crate) fn is_silent(&self, now: Instant, udp: PathId, remote: SocketAddr) -> bool {
        self.silent.get(&(udp, remote)).is_some_and(|memory| now < memory.until)
    }

    /// A server speaks MPTCP.
    pub(crate) fn on_mptcp(&mut self, now: Instant, remote: SocketAddr) {
        if self.speak.len() >= MAX_SERVERS && !self.speak.contains_key(&remote) {
            let first = self.speak.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key);
            first.map(|key| self.speak.remove(&key));
        }
        self.speak.insert(remote, now + SPEAKS);
    }

    /// Whether a server has lately spoken MPTCP.
    pub(crate) fn speaks(&self, now: Instant, remote: SocketAddr) -> bool {
        self.speak.get(&remote).is_some_and(|until| now < *until)
    }

    /// The path may lead into another network now, or there is none any more.
    pub(crate) fn forget(&mut self, path: PathId, v6: bool) {
        self.bad.remove(&(path, v6));
        self.silent.retain(|(udp, remote), _| *udp != path || remote.is_ipv6() != v6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: PathId = PathId(1);
    const UDP: PathId = PathId(2);

    fn server(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], n))
    }

    fn second(n: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(n)
    }

    #[test]
    fn a_network_in_the_way_is_tried_again_later_and_later_and_forgiven_at_once() {
        let mut s = StandIns::default();
        let mut now = second(0);
        for seconds in [600, 1_200, 2_400, 3_600, 3_600] {
            assert!(s.native_failed(now, NATIVE, false, NativeTrouble::Stripped));
            assert!(
                !s.native_failed(now, NATIVE, false, NativeTrouble::Swallowed),
                "found twice in one period"
            );
            assert!(
                s.is_bad(now, NATIVE, false) && !s.is_bad(now, NATIVE, true) && !s.is_bad(now, UDP, false)
            );
            now += Duration::from_secs(seconds);
            assert!(!s.is_bad(now, NATIVE, false));
        }
        s.native_works(NATIVE, false);
        s.native_failed(now, NATIVE, false, NativeTrouble::Swallowed);
        assert!(!s.is_bad(now + SWALLOWED, NATIVE, false), "that it worked did not end the doubling");
    }

    #[test]
    fn what_is_known_of_a_network_goes_with_it() {
        let mut s = StandIns::default();
        for v6 in [false, true] {
            s.native_failed(second(0), NATIVE, v6, NativeTrouble::Stripped);
        }
        s.on_silent(second(0), UDP, server(1));
        s.forget(NATIVE, false);
        assert!(!s.is_bad(second(1), NATIVE, false) && s.is_bad(second(1), NATIVE, true));
        assert!(s.is_silent(second(1), UDP, server(1)) && !s.is_silent(second(1), UDP, server(2)));
        s.forget(UDP, true);
        assert!(s.is_silent(second(1), UDP, server(1)), "the other family");
        s.forget(UDP, false);
        assert!(!s.is_silent(second(1), UDP, server(1)));
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_was_said_and_within_bounds() {
        let mut s = StandIns::default();
        let time = Duration::from_secs(5);
        s.leave_alone(second(1), UDP, server(0), time);
        assert!(s.is_silent(second(5), UDP, server(0)) && !s.is_silent(second(6), UDP, server(0)));
        // A shorter time does not end a longer one.
        s.leave_alone(second(1), UDP, server(0), Duration::from_secs(1));
        assert!(s.is_silent(second(5), UDP, server(0)));
        for n in 1..3_000 {
            s.leave_alone(second(1), UDP, server(n), time);
        }
        assert_eq!(s.silent.len(), MAX_SERVERS);
    }

    #[test]
    fn servers_are_remembered_for_a_time_and_within_bounds() {
        let mut s = StandIns::default();
        for n in 0..3_000u16 {
            s.on_silent(second(u64::from(n) / 100), UDP, server(n));
            s.on_mptcp(second(u64::from(n)), server(n));
        }
        assert_eq!((s.silent.len(), s.speak.len()), (MAX_SERVERS, MAX_SERVERS));
        assert!(s.speaks(second(3_000), server(2_999)) && !s.speaks(second(3_000), server(0)));
        assert!(!s.speaks(second(2_999) + SPEAKS, server(2_999)));
        assert!(s.is_silent(second(30), UDP, server(2_999)));
        s.on_answered(UDP, server(2_999));
        assert!(!s.is_silent(second(30), UDP, server(2_999)));
    }
}
