//! How many challenge ACKs and unsolicited RSTs may be sent (RFC 5961 §7).
//!
//! Requirement by requirement: `docs/src/conformance-rfc5961.md`.

use super::randomness::Randomness;
use umptcp_types::Instant;

/// Per second and stack, on average. The limit of each second is drawn at random: a known one tells somebody
/// off the path, who uses up the rest, whether a four-tuple is in use (Cao et al., USENIX Security 2016).
const PER_SECOND: u32 = 1000;

/// What is sent although nobody asked for it. Each has a budget of its own: SYNs to closed ports, which
/// anybody can send, must not keep a connection from answering.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unasked {
    /// A challenge ACK of a subflow.
    Challenge,
    /// The ACK of a four-tuple in TIME_WAIT.
    TimeWait,
    /// A RST for a segment that belongs to nothing.
    Reset,
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    second: u64,
    left: u32,
}

#[derive(Debug)]
pub(super) struct Challenges {
    /// By [`Unasked`].
    budgets: [Budget; 3],
}

impl Challenges {
    pub(super) fn new() -> Self {
        Challenges { budgets: [Budget { second: u64::MAX, left: 0 }; 3] }
    }

    /// Whether one more may be sent now.
    pub(super) fn allow(&mut self, what: Unasked, now: Instant, random: &mut Randomness) -> bool {
        let budget = &mut self.budgets[what as usize];
        let second = now.as_millis() / 1000;
        if second != budget.second {
            *budget = Budget { second, left: PER_SECOND / 2 + random.next_u32() % PER_SECOND };
        }
        let allowed = budget.left > 0;
        budget.left = budget.left.saturating_sub(1);
        allowed
    }
}
