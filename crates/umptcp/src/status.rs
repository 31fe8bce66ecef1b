//! Whether a connection is MPTCP.

use std::fmt;
use std::time::SystemTime;
use umptcp_stack_core::error::FallbackReason;

/// Whether a connection is MPTCP, since when, and why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MptcpStatus {
    /// The handshake is not far enough to tell.
    Negotiating,
    /// MPTCP is in use.
    Active {
        /// Since then.
        since: SystemTime,
    },
    /// The connection is plain TCP.
    Plain {
        /// Why.
        reason: FallbackReason,
    },
}

impl MptcpStatus {
    /// Whether MPTCP is in use.
    pub fn is_active(&self) -> bool {
        matches!(self, MptcpStatus::Active { .. })
    }
}

impl fmt::Display for MptcpStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MptcpStatus::Negotiating => f.write_str("negotiating MPTCP"),
            MptcpStatus::Active { since } => match since.elapsed() {
                Ok(age) => write!(f, "MPTCP, for {:.3} s", age.as_secs_f64()),
                Err(_) => f.write_str("MPTCP"),
            },
            MptcpStatus::Plain { reason } => write!(f, "plain TCP: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_sentence() {
        let plain = MptcpStatus::Plain { reason: FallbackReason::Disabled };
        assert_eq!(plain.to_string(), "plain TCP: MPTCP is switched off");
        let active = MptcpStatus::Active { since: SystemTime::now() };
        assert!(active.is_active() && active.to_string().starts_with("MPTCP, for 0."), "{active}");
    }
}
