//! Whether a connection is MPTCP.

use std::fmt;
use std::time::SystemTime;
use umptcp_stack_core::error::FallbackReason;

/// What a connection speaks: MPTCP or plain TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// The handshake has not got far enough to tell.
    Negotiating,
    /// MPTCP.
    Mptcp {
        /// When the handshake settled on it.
        since: SystemTime,
    },
    /// Plain TCP.
    Tcp {
        /// Why not MPTCP.
        reason: FallbackReason,
    },
}

impl Protocol {
    /// Whether MPTCP is in use.
    pub fn is_mptcp(&self) -> bool {
        matches!(self, Protocol::Mptcp { .. })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protocol::Negotiating => f.write_str("negotiating MPTCP"),
            Protocol::Mptcp { since } => match since.elapsed() {
                Ok(age) => write!(f, "MPTCP, for {:.3} s", age.as_secs_f64()),
                Err(_) => f.write_str("MPTCP"),
            },
            Protocol::Tcp { reason } => write!(f, "plain TCP: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_sentence() {
        let plain = Protocol::Tcp { reason: FallbackReason::Disabled };
        assert_eq!(plain.to_string(), "plain TCP: MPTCP is switched off");
        let mptcp = Protocol::Mptcp { since: SystemTime::now() };
        assert!(mptcp.is_mptcp() && mptcp.to_string().starts_with("MPTCP, for 0."), "{mptcp}");
    }
}
