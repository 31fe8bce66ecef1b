//! What a subflow is made with, and what it reports: addresses, constants, statistics.

use crate::config::{Ecn, KeepAlive};
use core::net::SocketAddr;
use umptcp_types::{Duration, SeqNumber};

/// Largest window scale (RFC 7323 §2.3).
pub(super) const MAX_WINDOW_SCALE: u8 = 14;
/// Twice the maximum segment lifetime, as Linux has it (RFC 9293 §3.4.2 would allow 4 minutes).
pub(crate) const TIME_WAIT: Duration = Duration::from_secs(60);

/// Sender MSS assumed when the peer's SYN names none (RFC 9293 §3.7.1).
pub(crate) fn default_mss(v6: bool) -> u32 {
    if v6 { 1220 } else { 536 }
}

/// The two ends of a subflow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct FourTuple {
    /// This end.
    pub(crate) local: SocketAddr,
    /// The peer's end.
    pub(crate) remote: SocketAddr,
}

/// Constants of a subflow.
#[derive(Clone, Debug)]
pub(crate) struct TcpConfig {
    /// Our MSS option: largest TCP payload without options that the local link carries.
    pub(crate) mss: u32,
    /// Largest segment payload handed to the device at once (a multiple of the MSS is sent), without headers.
    pub(crate) max_segment: u32,
    /// Segments that may be unacknowledged: each costs memory beside its payload, and a peer chooses how
    /// small they are.
    pub(crate) max_segments: usize,
    /// Window scale we offer.
    pub(crate) window_scale: u8,
    /// Time without progress that ends the subflow (RFC 5482).
    pub(crate) user_timeout: Duration,
    /// Keep-alive probes (RFC 9293 §3.8.4).
    pub(crate) keep_alive: Option<KeepAlive>,
    /// Longest silence before a probe, whatever `keep_alive` says: translators on the way forget a flow.
    pub(crate) longest_silence: Option<Duration>,
    /// Explicit congestion notification.
    pub(crate) ecn: Ecn,
    /// How long after a search for the largest packets the next begins (RFC 8899 §5.1.1); `None`: there are
    /// none.
    pub(crate) mtu_probe_interval: Option<Duration>,
    /// Initial sequence number (RFC 6528).
    pub(crate) isn: SeqNumber,
    /// Offset of our timestamp clock, per four-tuple (RFC 7323 §5.4 asks that it does not reveal uptime).
    pub(crate) timestamp_offset: u32,
}

impl TcpConfig {
    /// Keep-alive probes as they are sent: no later than the longest silence allows. Those that are sent for
    /// its sake alone end nothing; with others, the peer is given up when it would be without.
    pub(super) fn effective_keep_alive(&self) -> Option<KeepAlive> {
        let Some(silence) = self.longest_silence else { return self.keep_alive };
        let Some(KeepAlive { idle, interval, count }) = self.keep_alive else {
            return Some(KeepAlive { idle: silence, interval: silence, count: u32::MAX });
        };
        let patience = idle.saturating_add(interval.saturating_mul(count));
        let (idle, interval) = (idle.min(silence), interval.min(silence));
        let count = patience.saturating_sub(idle).as_millis() / interval.as_millis().max(1);
        Some(KeepAlive { idle, interval, count: u32::try_from(count).unwrap_or(u32::MAX).max(1) })
    }
}

/// The window scale that lets `buffer` bytes be advertised (RFC 7323 §2.2).
pub(crate) fn window_scale_for(buffer: usize) -> u8 {
    let mut scale = 0;
    while scale < MAX_WINDOW_SCALE && (buffer >> scale) > usize::from(u16::MAX) {
        scale += 1;
    }
    scale
}

/// Statistics of a subflow, in bytes and segments.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct TcpStats {
    /// Payload bytes sent for the first time.
    pub(crate) bytes_sent: u64,
    /// Payload bytes acknowledged.
    pub(crate) bytes_acked: u64,
    /// Payload bytes received in order.
    pub(crate) bytes_received: u64,
    /// Payload bytes sent again.
    pub(crate) bytes_retransmitted: u64,
    /// Retransmission timeouts.
    pub(crate) timeouts: u64,
    /// Fast recoveries entered.
    pub(crate) recoveries: u64,
    /// Recoveries and timeouts that turned out to be needless and were undone.
    pub(crate) undone: u64,
}
