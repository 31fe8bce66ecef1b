//! A subflow as a member of its connection: TCP state, and what MPTCP keeps per subflow.

use super::fallback::FailSent;
use super::mapping::RxMappings;
use crate::buffers::slices::Slices;
use crate::context::fast_open::Cookie;
use crate::event::SubflowReset;
use crate::tcp::Tcp;
use crate::wire::mptcp::MptcpOption;
use alloc::collections::VecDeque;
use umptcp_congestion::SubflowParams;
use umptcp_types::{AddressId, Duration, Instant, SubflowOffset};

/// How far a subflow's MPTCP handshake is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Join {
    /// The subflow that began the connection: MP_CAPABLE, not MP_JOIN.
    Initial,
    /// We sent a SYN with MP_JOIN.
    SynSent { nonce: u32 },
    /// We sent the third ACK and wait for any answer (PRE_ESTABLISHED, RFC 8684 §3.2).
    AckSent {
        hmac: [u8; 20],
        /// When to send it again.
        resend: Instant,
        tries: u8,
    },
    /// We answered a SYN with MP_JOIN.
    SynReceived { nonce: u32, peer_nonce: u32 },
    /// Both HMACs are verified.
    Joined,
}

/// ACKs that carry nothing but signals, in a row.
const SIGNALS_IN_A_ROW: u8 = 2;
/// How long the next waits when the round-trip time is not known, and at least.
const SIGNAL_PAUSE: Duration = Duration::from_millis(100);
const MIN_SIGNAL_PAUSE: Duration = Duration::from_millis(1);

/// The check whether a subflow lives whose address the peer has removed (RFC 8684 §3.4.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removal {
    /// When the next probe goes out, or the subflow is given up.
    pub(crate) next: Instant,
    /// Probes sent.
    pub(crate) probes: u8,
}

/// One subflow of a connection.
#[derive(Debug)]
pub(crate) struct Subflow {
    pub(crate) tcp: Tcp,
    pub(crate) join: Join,
    /// Our Address ID of the local address, and the peer's of the remote one.
    pub(crate) local_id: AddressId,
    pub(crate) remote_id: AddressId,
    /// When data may go out on a subflow that we joined (see `JOIN_SETTLE`).
    pub(crate) data_from: Instant,
    /// Backup as we asked for, and as the peer did.
    pub(crate) backup_local: bool,
    pub(crate) backup_remote: bool,
    pub(crate) weight: u32,
    /// The peer opened it.
    pub(crate) incoming: bool,
    /// Consecutive retransmission timeouts reached the limit.
    pub(crate) stale: bool,
    /// Mappings for bytes not handed to the data level yet.
    pub(crate) mappings: RxMappings,
    /// In-order subflow bytes that wait for their mapping, or for the rest of a checksummed one.
    pub(crate) unmapped: Slices,
    /// First subflow offset not handed to the data level, where they begin.
    pub(crate) consumed: SubflowOffset,
    /// The mapping at `consumed` has passed its checksum.
    pub(crate) verified_to: SubflowOffset,
    /// Since when the bytes at `consumed` have waited for a mapping.
    pub(crate) unmapped_since: Option<Instant>,
    /// A checksum failed here and the peer was told with MP_FAIL: nothing is handed on until it answers.
    pub(crate) fail: Option<FailSent>,
    /// Data offset minus subflow offset of what we send, and since which subflow offset it has been that.
    pub(crate) send_shift: Option<u64>,
    pub(crate) send_shift_since: SubflowOffset,
    /// We have sent a DSS option, or MP_CAPABLE after the SYN.
    pub(crate) dss_sent: bool,
    /// The last DATA_ACK it carried, for deciding whether a SACK may displace the next.
    pub(crate) last_data_ack_sent: u64,
    /// An MPTCP option has come after the SYN: options pass, and the peer sends them.
    pub(crate) options_seen: bool,
    /// The RST that ends it.
    pub(crate) reset: Option<SubflowReset>,
    /// Fast Open option for the next SYN or SYN/ACK.
    pub(crate) fast_open: Option<Cookie>,
    /// Our SYN asked for a cookie.
    pub(crate) asked_cookie: bool,
    /// Bytes that the SYN carried, ours as far as acknowledged and the peer's. They lie before the data sequence space, and subflow
    /// sequence numbers in mappings do not count them (RFC 8684 appendix B.2).
    pub(crate) syn_data_sent: u64,
    pub(crate) syn_data_received: u64,
    /// The ACK that brought our keys is to be followed by one with a DATA_ACK (see `follow_up_keys`).
    pub(crate) follow_up: bool,
    /// Options that go out on ACKs of their own.
    pub(crate) signals: VecDeque<MptcpOption>,
    /// Such ACKs sent in a row, and when the next may follow.
    pub(crate) signal_run: u8,
    pub(crate) signal_wait: Option<Instant>,
    /// The peer removed its address, and we look whether the subflow still lives.
    pub(crate) removal: Option<Removal>,
    /// Announced to the application and the controller.
    pub(crate) announced: bool,
    /// It has ended in the step that is under way (see `subflows`).
    ended: bool,
}

impl Subflow {
    pub(crate) fn new(tcp: Tcp, join: Join, local_id: AddressId, remote_id: AddressId) -> Self {
        Subflow {
            tcp,
            join,
            local_id,
            remote_id,
            data_from: Instant::ZERO,
            backup_local: false,
            backup_remote: false,
            weight: 1,
            incoming: matches!(join, Join::SynReceived { .. }),
            stale: false,
            mappings: RxMappings::new(0),
            unmapped: Slices::default(),
            consumed: SubflowOffset(1),
            verified_to: SubflowOffset(1),
            unmapped_since: None,
            fail: None,
            send_shift: None,
            send_shift_since: SubflowOffset(1),
            dss_sent: false,
            last_data_ack_sent: 0,
            options_seen: false,
            fast_open: None,
            asked_cookie: false,
            syn_data_sent: 0,
            syn_data_received: 0,
            follow_up: false,
            reset: None,
            signals: VecDeque::new(),
            signal_run: 0,
            signal_wait: None,
            removal: None,
            announced: false,
            ended: false,
        }
    }

    /// It ends, and goes when the step is over.
    pub(super) fn on_ended(&mut self) {
        self.ended = true;
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether an ACK may go out for the sake of a signal alone. RFC 8684 §3.4.1: not more than two duplicate ACKs in a row, lest
    /// others take them for signs of congestion.
    pub(crate) fn may_signal(&self) -> bool {
        self.signal_run < SIGNALS_IN_A_ROW
    }

    /// The pause after the last of them may be over.
    pub(crate) fn end_signal_pause(&mut self, now: Instant) {
        if self.signal_wait.is_some_and(|t| t <= now) {
            self.signals_interrupted();
        }
    }

    /// An ACK with a signal leaves.
    pub(crate) fn on_signal_sent(&mut self, now: Instant) {
        self.signal_run += 1;
        if self.signal_run >= SIGNALS_IN_A_ROW {
            self.signal_wait = Some(now + self.tcp.srtt().unwrap_or(SIGNAL_PAUSE).max(MIN_SIGNAL_PAUSE));
        }
    }

    /// Something else passed between the ends, so that the next ACK is no duplicate of the last.
    pub(crate) fn signals_interrupted(&mut self) {
        self.signal_run = 0;
        self.signal_wait = None;
    }

    /// What the congestion controller is to know of the subflow (RFC 6928: an initial window of ten segments).
    pub(crate) fn congestion_params(&self) -> SubflowParams {
        let mss = self.tcp.packet_payload(12);
        SubflowParams::new(mss, u64::from(mss) * 10)
    }

    /// Where in the connection's data the last byte ends that was sent here for the first time.
    pub(crate) fn data_sent(&self) -> u64 {
        // Offset 0 is the SYN's, on either level. In plain TCP there is one subflow and no mapping.
        match self.send_shift {
            Some(shift) => self.tcp.snd_nxt().0.wrapping_add(shift).saturating_sub(1),
            None => self.tcp.stats().bytes_sent,
        }
    }

    /// It may carry data, as far as its handshake goes (RFC 8684 §3.2: none while PRE_ESTABLISHED).
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.join, Join::Initial | Join::Joined)
    }

    /// New data may be given to it.
    pub(crate) fn can_send_data(&self) -> bool {
        self.is_joined() && self.tcp.can_send_data()
    }

    /// Either end wants it as a backup only.
    pub(crate) fn backup(&self) -> bool {
        self.backup_local || self.backup_remote
    }
}
