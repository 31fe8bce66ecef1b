//! How many challenge ACKs and unsolicited RSTs may be sent (RFC 5961 §7).

use super::randomness::Randomness;
use umptcp_types::Instant;

/// Per second and stack, on average. The limit of each second is drawn at random: a known one tells somebody
/// off the path, who uses up the rest, whether a four-tuple is in use (Cao et al., USENIX Security 2016).
const PER_SECOND: u32 = 1000;

#[derive(Debug)]
pub(super) struct Challenges {
    second: u64,
    left: u32,
}

impl Challenges {
    pub(super) fn new() -> Self {
        Challenges { second: u64::MAX, left: 0 }
    }

    /// Whether one more may be sent now.
    pub(super) fn allow(&mut self, now: Instant, random: &mut Randomness) -> bool {
        let second = now.as_millis() / 1000;
        if second != self.second {
            self.second = second;
            self.left = PER_SECOND / 2 + random.next_u32() % PER_SECOND;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}
