//! The size of packets: what ICMP says of the path's MTU (RFC 1191, RFC 8201), how far that is believed (RFC 5927 §7.2), and
//! what silence says where no ICMP arrives (RFC 4821, RFC 8899).
//!
//! All sizes are of the TCP payload with options, as the MSS option counts it.

use crate::types::{Duration, Instant, SubflowOffset};

/// Payload of a 1280-byte IPv6 packet, which every path carries (RFC 8200 §5), and of the same in IPv4, where almost every path
/// does: the size to begin with on a path that swallows larger packets (RFC 8899 §5.1.2 has 1200 bytes for this).
const BASE: u32 = 1220;
/// No IPv4 path is taken for narrower than 552 bytes: an attacker gains by smaller packets, nobody else (as Linux's min_pmtu).
const LEAST_V4: u32 = 512;
/// Every IPv6 path carries 1280 bytes; less is not believed (RFC 8201 §4).
const LEAST_V6: u32 = 1220;
/// Timeouts in a row after which a size that never arrived is taken to be too large, and one that did.
const TIMEOUTS_UNCONFIRMED: u32 = 2;
const TIMEOUTS_CONFIRMED: u32 = 3;
/// After how long larger packets are tried again (RFC 1191 §6.3, RFC 8201 §4).
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// The same when the larger size had worked before the path fell silent: more likely it was down altogether.
const RAISE_SOON: Duration = Duration::from_secs(5);
/// Sizes that routers older than RFC 1191 may mean (its §7.1), without headers.
const PLATEAUS: [u32; 7] = [8126, 4312, 1962, 1452, 966, 468, 256];

/// What is to be done about a "packet too big".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// Nothing: it says nothing new, or cannot be true.
    Ignore,
    /// Send packets of this size from now on.
    Obey(u32),
    /// Larger packets have arrived before, so it is kept until the segment it quotes times out.
    Doubt,
}

/// What is known of the path's packet size for one subflow.
#[derive(Clone, Debug)]
pub struct PathMtu {
    /// Most that our link and the peer's MSS option allow.
    most: u32,
    /// In force.
    mss: u32,
    least: u32,
    /// Largest that is known to have arrived.
    confirmed: u32,
    /// End of the first packet of the size in force.
    trial: Option<SubflowOffset>,
    /// What an ICMP message claimed that is in doubt: the quoted position and the size.
    claim: Option<(SubflowOffset, u32)>,
    raise_at: Option<Instant>,
}

impl PathMtu {
    /// Packets of up to `most`, none sent yet.
    pub fn new(most: u32, v6: bool) -> Self {
        let least = if v6 { LEAST_V6 } else { LEAST_V4 };
        PathMtu {
            most,
            mss: most,
            least: least.min(most),
            confirmed: 0,
            trial: None,
            claim: None,
            raise_at: None,
        }
    }

    /// The size in force.
    pub fn mss(&self) -> u32 {
        self.mss
    }

    /// `len` bytes of payload were sent for the first time, up to `end`; with options they fill a packet or more.
    pub fn on_sent(&mut self, end: SubflowOffset, len: u64) {
        // At most 40 bytes of an MSS are options.
        if self.trial.is_none() && self.confirmed < self.mss && len + 40 >= u64::from(self.mss) {
            self.trial = Some(end);
        }
    }

    /// Everything below `una` has been acknowledged.
    pub fn on_acked(&mut self, una: SubflowOffset) {
        if self.trial.is_some_and(|end| end <= una) {
            self.trial = None;
            self.confirmed = self.mss;
        }
        self.claim = self.claim.filter(|(at, _)| *at >= una);
    }

    /// An ICMP message says that the packet at `at`, of `quoted` bytes after its headers, exceeds a link that takes `fits`; `None`: it
    /// does not say how much. The caller has made sure that `at` is outstanding (RFC 5927 §4.1).
    pub fn on_too_big(&mut self, now: Instant, at: SubflowOffset, quoted: u32, fits: Option<u32>) -> Claim {
        let fits = fits.or_else(|| PLATEAUS.into_iter().find(|p| *p < quoted));
        let Some(fits) = fits.map(|f| f.max(self.least)).filter(|f| *f < self.mss) else {
            return Claim::Ignore;
        };
        if self.confirmed > fits {
            self.claim = Some((at, fits));
            return Claim::Doubt;
        }
        self.set(fits, now + RAISE_AFTER);
        Claim::Obey(fits)
    }

    /// The retransmission timer expired for the `count`th time in a row, with `una` unacknowledged. The new size, if it changes.
    pub fn on_timeout(&mut self, now: Instant, una: SubflowOffset, count: u32) -> Option<u32> {
        if let Some((at, fits)) = self.claim.take()
            && at >= una
            && fits < self.mss
        {
            // RFC 5927 §7.2: what it quotes did not arrive, so it may be true.
            self.confirmed = 0;
            self.set(fits, now + RAISE_AFTER);
            return Some(fits);
        }
        let confirmed = self.confirmed >= self.mss;
        let enough = if confirmed { TIMEOUTS_CONFIRMED } else { TIMEOUTS_UNCONFIRMED };
        // Nothing as large as that is under way, or it is small enough for any path.
        if count < enough || self.mss <= self.least || (!confirmed && self.trial.is_none()) {
            return None;
        }
        let next = if self.mss > BASE { BASE } else { self.mss / 2 }.max(self.least);
        self.confirmed = self.confirmed.min(next);
        self.set(next, now + if confirmed { RAISE_SOON } else { RAISE_AFTER });
        Some(next)
    }

    /// It is time to try the largest size again: the new size.
    pub fn on_timer(&mut self, now: Instant) -> Option<u32> {
        self.raise_at.filter(|t| *t <= now)?;
        self.raise_at = None;
        self.trial = None;
        self.mss = self.most;
        Some(self.mss)
    }

    /// When [`on_timer`](Self::on_timer) has something to do. Meant for when something is sent anyway, not as a timer of its own.
    pub fn raise_due(&self, now: Instant) -> bool {
        self.raise_at.is_some_and(|t| t <= now)
    }

    fn set(&mut self, mss: u32, raise_at: Instant) {
        self.mss = mss;
        self.trial = None;
        self.claim = None;
        self.raise_at = Some(raise_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let mut p = PathMtu::new(1_460, false);
            p.on_sent(off(1_449), 1_448);
            if confirmed {
                p.on_acked(off(1_449));
            }
            assert_eq!(p.on_too_big(at(1), off(2_000), 1_460, fits), expected, "{name}");
            let mss = if let Claim::Obey(mss) = expected { mss } else { 1_460 };
            assert_eq!(p.mss(), mss, "{name}");
        }
    }

    #[test]
    fn a_doubtful_claim_counts_when_its_segment_times_out_and_not_once_it_is_acknowledged() {
        let doubtful = || {
            let mut p = PathMtu::new(1_460, false);
            p.on_sent(off(1_449), 1_448);
            p.on_acked(off(1_449));
            assert_eq!(p.on_too_big(at(1), off(5_000), 1_460, Some(1_000)), Claim::Doubt);
            p
        };
        let mut p = doubtful();
        assert_eq!((p.on_timeout(at(2), off(5_000), 1), p.mss()), (Some(1_000), 1_000));
        let mut p = doubtful();
        p.on_acked(off(5_001));
        assert_eq!((p.on_timeout(at(2), off(5_001), 1), p.mss()), (None, 1_460));
    }

    #[test]
    fn ipv6_paths_are_never_narrower_than_1280_bytes() {
        // RFC 8201 §4.
        let mut p = PathMtu::new(1_440, true);
        assert_eq!(p.on_too_big(at(1), off(1), 1_440, Some(500)), Claim::Obey(1_220));
        assert_eq!(p.on_too_big(at(1), off(1), 1_220, Some(500)), Claim::Ignore);
        p.on_sent(off(1_200), 1_200);
        assert_eq!(p.on_timeout(at(9), off(1), 9), None);
    }

    #[test]
    fn silence_lowers_the_size_step_by_step() {
        // RFC 4821 §7.7: full packets never arrive.
        let mut p = PathMtu::new(1_460, false);
        assert_eq!(p.on_timeout(at(1), off(1), 9), None, "nothing large is under way");
        for (expected, then) in [(Some(1_220), 2), (Some(610), 4), (Some(512), 6), (None, 8)] {
            p.on_sent(off(3_000), u64::from(p.mss()));
            assert_eq!(p.on_timeout(at(then), off(1), 1), None, "one timeout is no evidence");
            assert_eq!(p.on_timeout(at(then), off(1), 2), expected);
        }
        assert!(!p.raise_due(at(600)));
        assert_eq!(p.on_timer(at(605)), None);
        assert_eq!((p.raise_due(at(700)), p.on_timer(at(700)), p.mss()), (true, Some(1_460), 1_460));
    }

    #[test]
    fn a_size_that_worked_is_given_up_later_and_tried_again_sooner() {
        let mut p = PathMtu::new(1_460, false);
        p.on_sent(off(1_449), 1_448);
        p.on_acked(off(1_449));
        assert_eq!(p.on_timeout(at(1), off(1_449), 2), None);
        assert_eq!(p.on_timeout(at(3), off(1_449), 3), Some(1_220));
        assert_eq!(p.on_timer(at(9)), Some(1_460));
    }

    #[test]
    fn small_segments_prove_nothing() {
        let mut p = PathMtu::new(1_460, false);
        p.on_sent(off(1_000), 999);
        p.on_acked(off(1_000));
        assert_eq!(p.on_too_big(at(1), off(2_000), 1_460, Some(1_360)), Claim::Obey(1_360));
    }
}
