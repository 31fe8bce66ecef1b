//! The packet size of a path: what ICMP reports (RFC 1191, RFC 8201) and when it is trusted (RFC 5927 §7.2),
//! black hole detection where no ICMP arrives, and the search for the largest size that passes (RFC 4821, RFC
//! 8899).
//!
//! A connection begins with the largest size that device and peer allow (RFC 4821 §7.2's eff_pmtu =
//! search_high), so that most never search at all. The phases are those of RFC 8899 §5.1.4:
//!
//! | phase | entered | left |
//! |---|---|---|
//! | Base | at first, and when packets of the size in force vanish | when a packet of the size in force has arrived |
//! | Search | from Base; when the raise timer expires | when the range is too narrow to be worth a probe, or `MAX_PROBES` in a row were lost |
//! | Complete | from Search; when ICMP names the size | when the raise timer expires: not a timer of its own, but looked at when data are sent |
//!
//! A probe is a segment of new data in a single larger packet (RFC 4821 §7). Each that is lost lowers the
//! upper bound of the search (§7.6.2), each that arrives becomes the size in force. What a lost probe means
//! for congestion control is decided in `sender/loss`.
//!
//! All sizes are of the TCP payload with options, as the MSS option counts it.

use crate::types::{Duration, Instant, SubflowOffset};
use core::ops::Range;

/// Payload of a 1280-byte IPv6 packet, which every path carries (RFC 8200 §5), and of the same in IPv4, where
/// almost every path does: the size to begin with on a path that swallows larger packets (RFC 8899 §5.1.2 has
/// 1200 bytes for this).
const BASE: u32 = 1220;
/// Smallest MTU accepted for an IPv4 path is 552 bytes, as Linux's min_pmtu: smaller packets would only help
/// an attacker.
const LEAST_V4: u32 = 512;
/// Every IPv6 path carries 1280 bytes; a smaller claim is ignored (RFC 8201 §4).
const LEAST_V6: u32 = 1220;
/// Consecutive timeouts after which a size is taken to be too large: one that never arrived, and one that
/// did.
const TIMEOUTS_UNCONFIRMED: u32 = 2;
const TIMEOUTS_CONFIRMED: u32 = 3;
/// Consecutive lost probes, of any size, that end a search (RFC 8899 §5.1.2).
const MAX_PROBES: u32 = 3;
/// Sizes that routers older than RFC 1191 may mean (its §7.1), without headers.
const PLATEAUS: [u32; 7] = [8126, 4312, 1962, 1452, 966, 468, 256];
/// MTUs that links really have (RFC 8899 §5.3.2): IPv6's least, tunnels of several kinds over Ethernet,
/// PPPoE, Ethernet, RFC 1191 §7.1's larger ones, jumbo frames.
const COMMON_MTUS: [u32; 12] = [1280, 1400, 1420, 1440, 1450, 1480, 1492, ETHERNET, 2002, 4352, 8166, 9000];
const ETHERNET: u32 = 1500;

/// How to react to a "packet too big".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// Ignore it: it is not news, or cannot be true.
    Ignore,
    /// Send packets of this size from now on.
    Obey(u32),
    /// Larger packets have arrived before, so the claim is only applied if the segment it quotes times out.
    Doubt,
}

/// Where the search stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Base {
        /// PROBE_COUNT that the search begins with.
        failures: u32,
    },
    Search {
        /// Least size that is known not to pass, or one above the largest allowed.
        beyond: u32,
        /// What to try first.
        next: Option<u32>,
        /// PROBE_COUNT.
        failures: u32,
        /// No probe before.
        not_before: Instant,
    },
    Complete {
        /// `None`: the raise timer is off.
        raise_at: Option<Instant>,
    },
}

/// A probe that is under way.
#[derive(Clone, Debug)]
struct Probe {
    range: Range<SubflowOffset>,
    size: u32,
    /// It was judged lost, and nothing else so far; its bytes have not arrived yet. What to wait then until
    /// the next.
    lost: Option<Duration>,
    /// ICMP said that it is too large: it was not congestion that it fell to.
    explained: bool,
}

/// What is known of the path's packet size for one subflow.
#[derive(Clone, Debug)]
pub(super) struct PathMtu {
    /// Most that our link and the peer's MSS option allow (MAX_PLPMTU).
    most: u32,
    /// In force (PLPMTU).
    mss: u32,
    least: u32,
    /// IP and TCP headers without options.
    headers: u32,
    /// PMTU_RAISE_TIMER; `None`: nothing is ever probed.
    raise_after: Option<Duration>,
    /// Largest that is known to have arrived.
    confirmed: u32,
    /// Largest that has ever arrived, unless ICMP or a lost probe said since that the path has become
    /// narrower.
    carried: u32,
    /// End of the first packet of the size in force.
    trial: Option<SubflowOffset>,
    /// What an ICMP message claimed that is in doubt: the quoted position and the size.
    claim: Option<(SubflowOffset, u32)>,
    phase: Phase,
    probe: Option<Probe>,
    /// Probes that failed and were not counted yet.
    failures: u32,
}

impl PathMtu {
    /// Packets of up to `most`, none sent yet. Larger ones are tried again `raise_after` after a search has
    /// ended; `None`: there are no searches.
    pub(super) fn new(most: u32, v6: bool, raise_after: Option<Duration>) -> Self {
        let least = if v6 { LEAST_V6 } else { LEAST_V4 };
        PathMtu {
            most,
            mss: most,
            least: least.min(most),
            headers: if v6 { 60 } else { 40 },
            raise_after,
            confirmed: 0,
            carried: 0,
            trial: None,
            claim: None,
            phase: Phase::Base { failures: 0 },
            probe: None,
            failures: 0,
        }
    }

    /// The size in force.
    pub(super) fn mss(&self) -> u32 {
        self.mss
    }

    /// `len` bytes of payload were sent for the first time, up to `end`; with options they fill a packet or
    /// more.
    pub(super) fn on_sent(&mut self, end: SubflowOffset, len: u64) {
        // At most 40 bytes of an MSS are options.
        let open = self.confirmed < self.mss || matches!(self.phase, Phase::Base { .. });
        if self.trial.is_none() && open && len + 40 >= u64::from(self.mss) {
            self.trial = Some(end);
        }
    }

    /// Everything below `una` has been acknowledged. The new size, if a probe has arrived.
    pub(super) fn on_acked(&mut self, now: Instant, una: SubflowOffset) -> Option<u32> {
        self.claim = self.claim.filter(|(at, _)| *at >= una);
        if self.trial.is_some_and(|end| end <= una) {
            self.trial = None;
            self.confirmed = self.mss;
            self.carried = self.carried.max(self.mss);
            if let Phase::Base { failures } = self.phase {
                self.search(now, failures);
            }
        }
        let probe = self.probe.take_if(|p| p.range.end <= una)?;
        if let Some(pause) = probe.lost {
            // By now it would be known if what followed it had been lost as well (RFC 4821 §7.5).
            self.failed(now, &probe, pause);
            return None;
        }
        (self.mss, self.confirmed, self.trial) = (probe.size, probe.size, None);
        self.carried = self.carried.max(probe.size);
        if let Phase::Search { next, failures, .. } = &mut self.phase {
            (*next, *failures) = (None, 0);
        }
        self.conclude(now);
        Some(probe.size)
    }

    /// An ICMP message says that the packet at `at`, of `quoted` bytes after its headers, exceeds a link that
    /// takes `fits`; `None`: it does not say how much. The caller has made sure that `at` is outstanding (RFC
    /// 5927 §4.1).
    pub(super) fn on_too_big(
        &mut self,
        now: Instant,
        at: SubflowOffset,
        quoted: u32,
        fits: Option<u32>,
    ) -> Claim {
        let fits = fits.or_else(|| PLATEAUS.into_iter().find(|p| *p < quoted));
        let Some(fits) = fits.map(|f| f.max(self.least)) else { return Claim::Ignore };
        if fits >= self.mss {
            // RFC 4821 §7.6.2, RFC 8899 §4.6.2: about a probe, perhaps. The size it names is the next to try.
            if let Some(probe) = self.probe.as_mut().filter(|p| p.range.contains(&at) && fits < p.size)
                && let Phase::Search { beyond, next, .. } = &mut self.phase
            {
                probe.explained = true;
                *beyond = (*beyond).min(fits + 1);
                *next = Some(fits);
            }
            return Claim::Ignore;
        }
        if self.confirmed > fits {
            self.claim = Some((at, fits));
            return Claim::Doubt;
        }
        self.carried = self.carried.min(fits);
        self.set(fits, self.complete(now));
        Claim::Obey(fits)
    }

    /// The retransmission timer expired for the `count`th time in a row, with `una` unacknowledged. `pause`:
    /// as for
    /// [`on_probe_lost`](Self::on_probe_lost). The new size, if it changes.
    pub(super) fn on_timeout(
        &mut self,
        now: Instant,
        una: SubflowOffset,
        count: u32,
        pause: Duration,
    ) -> Option<u32> {
        if let Some((at, fits)) = self.claim.take()
            && at >= una
            && fits < self.mss
        {
            // RFC 5927 §7.2: what it quotes did not arrive, so the claim may be true.
            (self.confirmed, self.carried) = (0, self.carried.min(fits));
            self.set(fits, self.complete(now));
            return Some(fits);
        }
        if let Some(probe) = self.probe.take()
            && (probe.explained || (probe.lost.is_none() && probe.range.contains(&una)))
        {
            // RFC 4821 §7.6.3: such a loss is expensive, hence five times the pause.
            self.failed(now, &probe, pause.saturating_mul(5));
        }
        let confirmed = self.confirmed >= self.mss;
        let enough = if confirmed { TIMEOUTS_CONFIRMED } else { TIMEOUTS_UNCONFIRMED };
        // Nothing as large as that is under way, or it is small enough for any path.
        if count < enough || self.mss <= self.least || (!confirmed && self.trial.is_none()) {
            return None;
        }
        let next = if self.mss > BASE { BASE } else { self.mss / 2 }.max(self.least);
        self.confirmed = self.confirmed.min(next);
        // A size that never arrived counts as a lost probe. One that did more likely met a path that was
        // down.
        let failures = u32::from(!confirmed);
        self.set(next, Phase::Base { failures });
        Some(next)
    }

    /// Packets of `size` have arrived before, so a loss since then was more likely an outage or congestion.
    pub(super) fn has_carried(&self, size: u32) -> bool {
        size <= self.carried
    }

    /// The size of a probe that is due; the caller sees to the other conditions of RFC 4821 §7.4.
    pub(super) fn probe_due(&self, now: Instant) -> Option<u32> {
        if self.mss >= self.most || self.probe.is_some() {
            return None;
        }
        match self.phase {
            Phase::Search { beyond, next, not_before, .. } if now >= not_before => {
                self.candidate(beyond, next)
            }
            // RFC 4821 §7.3: the search begins anew.
            Phase::Complete { raise_at: Some(at) } if now >= at => Some(self.most),
            _ => None,
        }
    }

    /// The new data `range` were sent in a single packet of `size`, which was [due](Self::probe_due).
    pub(super) fn on_probe_sent(&mut self, now: Instant, range: Range<SubflowOffset>, size: u32) {
        if matches!(self.phase, Phase::Complete { .. }) {
            self.search(now, 0);
        }
        self.probe = Some(Probe { range, size, lost: None, explained: false });
    }

    /// What the probe under way carries. Also of a lost one, until its bytes have arrived.
    pub(super) fn probe(&self) -> Option<Range<SubflowOffset>> {
        self.probe.as_ref().map(|p| p.range.clone())
    }

    /// The probe was lost and nothing else. If it stays so until its bytes have arrived, the path does not
    /// carry that much (RFC 4821 §7.6.2), and the next does not go before `pause` has passed, unless ICMP has
    /// explained the loss.
    pub(super) fn on_probe_lost(&mut self, pause: Duration) {
        if let Some(probe) = &mut self.probe {
            probe.lost = Some(pause);
        }
    }

    /// The probe under way was judged lost.
    pub(super) fn is_probe_lost(&self) -> bool {
        self.probe.as_ref().is_some_and(|p| p.lost.is_some())
    }

    /// The probe was lost, and more: that says nothing about its size, which is tried again later (RFC 4821
    /// §7.6.4), unless ICMP has explained the loss.
    pub(super) fn on_probe_inconclusive(&mut self, now: Instant) {
        if let Some(probe) = self.probe.take_if(|p| p.explained) {
            self.failed(now, &probe, Duration::ZERO);
        }
        self.probe = None;
    }

    /// Probes have failed since [`take_failures`](Self::take_failures) was last called.
    pub(super) fn has_failures(&self) -> bool {
        self.failures > 0
    }

    /// How many probes have failed since the last call.
    pub(super) fn take_failures(&mut self) -> u32 {
        core::mem::take(&mut self.failures)
    }

    fn failed(&mut self, now: Instant, probe: &Probe, pause: Duration) {
        self.failures += 1;
        self.carried = self.carried.min(probe.size - 1);
        let Phase::Search { beyond, next, failures, not_before } = &mut self.phase else { return };
        if !probe.explained {
            *beyond = (*beyond).min(probe.size);
            *next = None;
            *failures += 1;
            *not_before = now + pause;
        }
        self.conclude(now);
    }

    /// Begins to search the whole range (RFC 4821 §7.3), from the top: usually all of it passes, or passes
    /// again.
    fn search(&mut self, now: Instant, failures: u32) {
        let next = Some(self.most);
        self.phase = Phase::Search { beyond: self.most + 1, next, failures, not_before: now };
        self.conclude(now);
    }

    /// Ends a search that has nothing left to try.
    fn conclude(&mut self, now: Instant) {
        if let Phase::Search { beyond, next, failures, .. } = self.phase
            && (failures >= MAX_PROBES || self.candidate(beyond, next).is_none())
        {
            self.phase = self.complete(now);
        }
    }

    fn complete(&self, now: Instant) -> Phase {
        Phase::Complete { raise_at: self.raise_after.map(|after| now + after) }
    }

    /// What to try between the size in force and `beyond` (RFC 8899 §5.3.2): `next`, Ethernet's size, else a
    /// common one near the middle. `None`: the range is too narrow.
    fn candidate(&self, beyond: u32, next: Option<u32>) -> Option<u32> {
        let within = |size: &u32| self.mss < *size && *size < beyond;
        let ethernet = ETHERNET - self.headers;
        if let Some(size) = next.filter(within).or(Some(ethernet).filter(within)) {
            return Some(size);
        }
        let range = beyond.saturating_sub(self.mss);
        let middle = self.mss + range / 2;
        // Less than a thirtieth is worth no probe, unless it is where a common size lies.
        let narrow = range <= self.mss / 32;
        let reach = if narrow { range } else { range / 4 };
        let common = COMMON_MTUS.iter().map(|mtu| mtu - self.headers).filter(within);
        let near = common.filter(|size| size.abs_diff(middle) <= reach);
        let nearest = near.min_by_key(|size| size.abs_diff(middle));
        nearest.or((!narrow).then_some(middle))
    }

    fn set(&mut self, mss: u32, phase: Phase) {
        self.mss = mss;
        self.trial = None;
        self.claim = None;
        self.probe = None;
        self.phase = if self.raise_after.is_some() { phase } else { Phase::Complete { raise_at: None } };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const RAISE: Option<Duration> = Some(Duration::from_secs(600));
    const PAUSE: Duration = Duration::from_secs(4);

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    const fn off(n: u64) -> SubflowOffset {
        SubflowOffset(n)
    }

    #[test]
    fn an_icmp_message_is_believed_as_far_as_larger_packets_have_not_arrived() {
        // RFC 5927 §7.2.
        for (name, confirmed, fits, expected) in [
            ("first packets", false, Some(1_360), Claim::Obey(1_360)),
            ("no news", false, Some(1_460), Claim::Ignore),
            ("larger than sent", false, Some(9_000), Claim::Ignore),
            ("absurdly small", false, Some(28), Claim::Obey(LEAST_V4)),
            ("no size: the next plateau", false, None, Claim::Obey(1_452)),
            ("against experience", true, Some(1_360), Claim::Doubt),
        ] {
            let mut p = PathMtu::new(1_460, false, RAISE);
            p.on_sent(off(1_449), 1_448);
            if confirmed {
                p.on_acked(at(1), off(1_449));
            }
            assert_eq!(p.on_too_big(at(1), off(2_000), 1_460, fits), expected, "{name}");
            let mss = if let Claim::Obey(mss) = expected { mss } else { 1_460 };
            assert_eq!(p.mss(), mss, "{name}");
        }
    }

    #[test]
    fn a_doubtful_claim_counts_when_its_segment_times_out_and_not_once_it_is_acknowledged() {
        let doubtful = || {
            let mut p = PathMtu::new(1_460, false, RAISE);
            p.on_sent(off(1_449), 1_448);
            p.on_acked(at(1), off(1_449));
            assert_eq!(p.on_too_big(at(1), off(5_000), 1_460, Some(1_000)), Claim::Doubt);
            p
        };
        let mut p = doubtful();
        assert_eq!((p.on_timeout(at(2), off(5_000), 1, PAUSE), p.mss()), (Some(1_000), 1_000));
        let mut p = doubtful();
        p.on_acked(at(1), off(5_001));
        assert_eq!((p.on_timeout(at(2), off(5_001), 1, PAUSE), p.mss()), (None, 1_460));
    }

    #[test]
    fn ipv6_paths_are_never_narrower_than_1280_bytes() {
        // RFC 8201 §4.
        let mut p = PathMtu::new(1_440, true, RAISE);
        assert_eq!(p.on_too_big(at(1), off(1), 1_440, Some(500)), Claim::Obey(1_220));
        assert_eq!(p.on_too_big(at(1), off(1), 1_220, Some(500)), Claim::Ignore);
        p.on_sent(off(1_200), 1_200);
        assert_eq!(p.on_timeout(at(9), off(1), 9, PAUSE), None);
    }

    #[test]
    fn silence_lowers_the_size_step_by_step() {
        // RFC 4821 §7.7: full packets never arrive.
        let mut p = PathMtu::new(1_460, false, RAISE);
        assert_eq!(p.on_timeout(at(1), off(1), 9, PAUSE), None, "nothing large is under way");
        for (expected, then) in [(Some(1_220), 2), (Some(610), 4), (Some(512), 6), (None, 8)] {
            p.on_sent(off(3_000), u64::from(p.mss()));
            assert_eq!(p.on_timeout(at(then), off(1), 1, PAUSE), None, "one timeout is no evidence");
            assert_eq!(p.on_timeout(at(then), off(1), 2, PAUSE), expected);
            assert_eq!(p.probe_due(at(900)), None, "first a packet of this size must arrive");
        }
    }

    #[test]
    fn a_size_that_worked_is_given_up_later() {
        let mut p = PathMtu::new(1_460, false, RAISE);
        send_full(&mut p);
        assert_eq!(p.on_timeout(at(1), off(1_449), 2, PAUSE), None);
        assert_eq!(p.on_timeout(at(3), off(1_449), 3, PAUSE), Some(1_220));
        // It was the path, not the size, so that the first probe arrives.
        send_full(&mut p);
        assert_eq!(p.probe_due(at(4)), Some(1_460));
    }

    /// A full packet of the size in force is sent and arrives.
    fn send_full(p: &mut PathMtu) {
        p.on_sent(off(2_000), u64::from(p.mss()));
        assert_eq!(p.on_acked(at(0), off(2_000)), None);
    }

    /// What the network does to a probe.
    #[derive(Clone, Copy, Debug)]
    enum Network {
        /// Drops it in silence when larger than this.
        Silent(u32),
        /// Says so by ICMP.
        Icmp(u32),
        /// Drops it and other packets.
        Congested,
    }

    /// Sends the probe that is due at `seconds`, and reports what becomes of it: its size and whether it
    /// arrived.
    fn probe(p: &mut PathMtu, seconds: u64, network: Network) -> Option<(u32, bool)> {
        let size = p.probe_due(at(seconds))?;
        assert!(p.mss() < size && size <= 1_460, "{size}");
        p.on_probe_sent(at(seconds), off(5_000)..off(6_000), size);
        assert_eq!(p.probe_due(at(seconds + 900)), None, "one at a time");
        let arrived = match network {
            Network::Silent(fits) | Network::Icmp(fits) if size <= fits => {
                assert_eq!(p.on_acked(at(seconds), off(5_999)), None);
                assert_eq!(p.on_acked(at(seconds), off(6_000)), Some(size));
                true
            }
            Network::Congested => {
                p.on_probe_inconclusive(at(seconds));
                false
            }
            Network::Icmp(fits) => {
                assert_eq!(p.on_too_big(at(seconds), off(5_000), size, Some(fits)), Claim::Ignore);
                // Whatever else is lost.
                match seconds % 3 {
                    0 => p.on_probe_lost(PAUSE),
                    1 => p.on_probe_inconclusive(at(seconds)),
                    _ => assert_eq!(p.on_timeout(at(seconds), off(4_000), 1, PAUSE), None),
                }
                false
            }
            Network::Silent(_) => {
                p.on_probe_lost(PAUSE);
                assert!(p.is_probe_lost());
                false
            }
        };
        // Sent again in smaller packets it arrives, which proves nothing.
        assert_eq!(p.on_acked(at(seconds), off(6_000)), None);
        Some((size, arrived))
    }

    #[test]
    fn a_search_finds_what_passes() {
        use Network::{Icmp, Silent};
        type Probes = &'static [(u32, bool)];
        let cases: &[(&str, bool, Network, Probes, u32)] = &[
            ("all of it", true, Silent(1_460), &[(1_460, true)], 1_460),
            (
                "a tunnel",
                false,
                Silent(1_400),
                &[(1_460, false), (1_360, true), (1_410, false), (1_380, true), (1_400, true)],
                1_400,
            ),
            ("nothing above the base", false, Silent(1_220), &[(1_460, false), (1_360, false)], 1_220),
            ("ICMP names it", false, Icmp(1_413), &[(1_460, false), (1_413, true)], 1_413),
            ("ICMP names the size in force", false, Icmp(1_220), &[(1_460, false)], 1_220),
        ];
        for (name, worked, network, expected, found) in cases {
            let mut p = PathMtu::new(1_460, false, RAISE);
            if *worked {
                send_full(&mut p);
            }
            p.on_sent(off(9_000), 1_460);
            assert_eq!(p.on_timeout(at(1), off(1), 3, PAUSE), Some(1_220), "{name}");
            send_full(&mut p);
            let mut seen = Vec::new();
            let mut now = 2;
            while let Some(outcome) = probe(&mut p, now, *network) {
                seen.push(outcome);
                if !outcome.1 && matches!(network, Silent(_)) {
                    assert_eq!(p.probe_due(at(now + 3)), None, "{name}: the pause is not over");
                }
                now += 4;
            }
            assert_eq!((&seen[..], p.mss()), (*expected, *found), "{name}");
            let failures = seen.iter().filter(|(_, arrived)| !arrived).count() as u32;
            assert_eq!((p.take_failures(), p.take_failures()), (failures, 0), "{name}");
            // RFC 8899 §5.1.1: after ten minutes the search begins anew, if there is anything to find.
            assert_eq!(p.probe_due(at(now - 4 + 599)), None, "{name}");
            let top = (*found < 1_460).then_some(1_460);
            assert_eq!(p.probe_due(at(now + 601)), top, "{name}");
        }
    }

    #[test]
    fn an_explained_loss_settles_the_matter_whatever_else_is_lost() {
        for seconds in [600, 601, 602] {
            let mut p = PathMtu::new(1_460, false, RAISE);
            assert_eq!(p.on_too_big(at(0), off(1), 1_460, Some(1_360)), Claim::Obey(1_360));
            assert_eq!(probe(&mut p, seconds, Network::Icmp(1_360)), Some((1_460, false)));
            assert_eq!((p.take_failures(), p.probe_due(at(seconds + 599))), (1, None), "{seconds}");
            assert_eq!(p.probe_due(at(seconds + 600)), Some(1_460), "{seconds}");
        }
    }

    #[test]
    fn three_lost_probes_in_a_row_end_a_search() {
        // RFC 8899 §5.1.2; those that were lost along with others count for nothing.
        let mut p = PathMtu::new(1_460, false, RAISE);
        assert_eq!(p.on_too_big(at(0), off(1), 1_460, Some(1_000)), Claim::Obey(1_000));
        assert_eq!(p.probe_due(at(599)), None);
        let sizes: Vec<_> = [600, 601, 610, 620, 630]
            .map(|now| probe(&mut p, now, if now < 610 { Network::Congested } else { Network::Silent(0) }))
            .into_iter()
            .collect();
        let lost = |size| Some((size, false));
        assert_eq!(sizes, [lost(1_460), lost(1_460), lost(1_460), lost(1_240), lost(1_120)]);
        assert_eq!((p.probe_due(at(1_229)), p.probe_due(at(1_230))), (None, Some(1_460)));
    }

    #[test]
    fn a_probe_that_costs_a_timeout_makes_the_pause_longer() {
        // RFC 4821 §7.6.3.
        let mut p = PathMtu::new(1_460, false, RAISE);
        p.on_too_big(at(0), off(1), 1_460, Some(1_000));
        p.on_probe_sent(at(600), off(5_000)..off(6_000), 1_460);
        assert_eq!(p.on_timeout(at(601), off(5_000), 1, PAUSE), None);
        assert_eq!((p.probe_due(at(620)), p.probe_due(at(621))), (None, Some(1_240)));
        // Where something else had to be waited for it says nothing.
        p.on_probe_sent(at(621), off(7_000)..off(8_000), 1_240);
        assert_eq!(p.on_timeout(at(622), off(6_500), 1, PAUSE), None);
        assert_eq!(p.probe_due(at(622)), Some(1_240));
    }

    #[test]
    fn larger_sizes_are_found_in_few_steps_and_none_is_tried_where_little_is_to_be_gained() {
        // Jumbo frames that do not pass: Ethernet's size is the next guess.
        let mut p = PathMtu::new(8_960, false, RAISE);
        p.on_sent(off(9_000), 8_960);
        p.on_timeout(at(1), off(1), 2, PAUSE);
        send_full(&mut p);
        let tried: Vec<_> = (0..)
            .map_while(|n| {
                let (now, start) = (10 + 10 * n, off(10_000 * (n + 1)));
                let size = p.probe_due(at(now))?;
                p.on_probe_sent(at(now), start..start + 1, size);
                if size > 1_460 {
                    p.on_probe_lost(PAUSE);
                }
                p.on_acked(at(now), start + 1);
                Some(size)
            })
            .collect();
        assert_eq!((tried, p.mss()), (alloc::vec![8_960, 1_460, 4_312, 2_886, 1_962], 1_460));
    }

    #[test]
    fn searches_can_be_turned_off() {
        let mut p = PathMtu::new(1_460, false, None);
        p.on_sent(off(9_000), 1_460);
        assert_eq!(p.on_timeout(at(1), off(1), 2, PAUSE), Some(1_220));
        send_full(&mut p);
        assert_eq!(p.probe_due(at(10_000)), None);
    }

    #[test]
    fn small_segments_prove_nothing() {
        let mut p = PathMtu::new(1_460, false, RAISE);
        p.on_sent(off(1_000), 999);
        p.on_acked(at(1), off(1_000));
        assert_eq!(p.on_too_big(at(1), off(2_000), 1_460, Some(1_360)), Claim::Obey(1_360));
    }
}
