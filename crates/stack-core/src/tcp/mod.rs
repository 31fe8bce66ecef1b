//! One subflow: a TCP connection (RFC 9293) whose payload belongs to an MPTCP connection, or to a plain one.
//!
//! The state machine knows sequence numbers, windows, timers and loss. It does not know what the bytes mean: payload
//! and the mapping declared for it come from the connection, which also writes the MPTCP options. Congestion windows
//! come from the connection's controller, which every call that needs one borrows.
//!
//! | module | what is in it |
//! |---|---|
//! | `input` | processing of a received segment, in the order of RFC 9293 §3.10.7 |
//! | `acknowledge` | what an acknowledgement brings about: loss recovery, its undo, congestion control |
//! | `output` | what to send next: handshake, retransmission, acknowledgement, probes |
//! | `timer` | the timer table and what happens when one fires |
//! | `pmtu`, `probing`, `icmp` | the size of packets, probes for larger ones, and what ICMP errors do |
//! | `ecn` | explicit congestion notification |
//! | `scoreboard`, `rtt`, `prr`, `tlp`, `frto`, `pacing` | loss recovery |

pub(crate) mod acknowledge;
pub mod ecn;
pub mod frto;
pub(crate) mod icmp;
pub mod input;
pub mod output;
pub mod pacing;
pub mod pmtu;
mod probing;
pub mod prr;
pub mod rtt;
pub mod scoreboard;
pub mod state;
pub mod timer;
pub mod tlp;

use crate::buffers::reassembly::Reassembly;
use crate::config::{Ecn, KeepAlive};
use crate::wire::icmp::IcmpCause;
use core::fmt::Debug;
use core::net::SocketAddr;
use core::ops::Range;
use ecn::EcnState;
use frto::Frto;
pub(crate) use input::Arrival;
use pacing::Pacer;
use pmtu::PathMtu;
pub(crate) use probing::SizeProbe;
use prr::Prr;
use rtt::RttEstimator;
use scoreboard::Scoreboard;
use state::Lifecycle;
pub use state::{CloseReason, State};
use timer::Timers;
use tlp::TailProbe;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant, PathId, SeqNumber, SubflowId, SubflowOffset};

/// Largest window scale (RFC 7323 §2.3).
const MAX_WINDOW_SCALE: u8 = 14;
/// Sender MSS assumed when the peer's SYN names none (RFC 9293 §3.7.1).
pub(crate) fn default_mss(v6: bool) -> u32 {
    if v6 { 1220 } else { 536 }
}
/// Delayed ACKs wait this long at most (RFC 9293 §3.8.6.3 allows 500 ms; Linux starts at 40 ms).
const DELAYED_ACK: Duration = Duration::from_millis(40);
/// Segments acknowledged at once when a subflow is new, so that the peer's slow start is not held up.
const QUICK_ACKS: u32 = 16;
/// How long the peer is taken to hold an ACK back (RFC 8985 §7.2's TLP.max_ack_delay): a round-trip time, within these
/// bounds. Linux holds one back for no longer than the greater of a round-trip time and 40 ms, and never above 200 ms.
const MIN_ACK_DELAY: Duration = Duration::from_millis(50);
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// A packet with less payload than this is not taken for a full one (RFC 9293 §3.7.1: the least MSS everyone can take).
const LEAST_FULL_SEGMENT: u32 = 536;
/// Challenge ACKs of one subflow are at least this far apart (RFC 5961 §7; as Linux's tcp_invalid_ratelimit).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);
/// SYNs sent again at once after answering an old ACK with RST. Once is enough for a peer that holds an old connection; the
/// bound keeps a peer that answers every SYN so from making us flood it.
const SYNS_AFTER_OLD_ACK: u8 = 3;
/// Twice the maximum segment lifetime, as Linux has it (RFC 9293 §3.4.2 would allow 4 minutes).
pub(crate) const TIME_WAIT: Duration = Duration::from_secs(60);

/// The two ends of a subflow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FourTuple {
    /// This end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

/// Constants of a subflow.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Our MSS option: largest TCP payload without options that the local link carries.
    pub mss: u32,
    /// Largest segment payload handed to the device at once (a multiple of the MSS is sent), without headers.
    pub max_segment: u32,
    /// Window scale we offer.
    pub window_scale: u8,
    /// Time without progress that ends the subflow (RFC 5482).
    pub user_timeout: Duration,
    /// Keep-alive probes (RFC 9293 §3.8.4).
    pub keep_alive: Option<KeepAlive>,
    /// Explicit congestion notification.
    pub ecn: Ecn,
    /// No Nagle (RFC 9293 §3.7.4).
    pub no_delay: bool,
    /// How long after a search for the largest packets the next begins (RFC 8899 §5.1.1); `None`: there are none.
    pub mtu_probe_interval: Option<Duration>,
    /// Initial sequence number (RFC 6528).
    pub isn: SeqNumber,
    /// Offset of our timestamp clock, per four-tuple (RFC 7323 §5.4 asks that it does not reveal uptime).
    pub timestamp_offset: u32,
}

/// The window scale that lets `buffer` bytes be advertised (RFC 7323 §2.2).
pub fn window_scale_for(buffer: usize) -> u8 {
    let mut scale = 0;
    while scale < MAX_WINDOW_SCALE && (buffer >> scale) > usize::from(u16::MAX) {
        scale += 1;
    }
    scale
}

/// How far loss recovery is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recovery {
    /// No loss outstanding.
    Open,
    /// Fast recovery until everything sent before it began is acknowledged.
    Fast {
        /// SND.NXT when it began.
        until: SubflowOffset,
    },
    /// After a retransmission timeout, until everything sent before it is acknowledged.
    Loss {
        /// SND.NXT when it began.
        until: SubflowOffset,
    },
}

/// How urgently an ACK is owed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum AckOwed {
    /// None.
    No,
    /// By the delayed-ACK timer or with the next data.
    Later,
    /// Now.
    Now,
}

/// Statistics of a subflow, in bytes and segments.
#[derive(Clone, Copy, Default, Debug)]
pub struct TcpStats {
    /// Payload bytes sent for the first time.
    pub bytes_sent: u64,
    /// Payload bytes acknowledged.
    pub bytes_acked: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Payload bytes sent again.
    pub bytes_retransmitted: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Fast recoveries entered.
    pub recoveries: u64,
    /// Recoveries and timeouts that turned out to be needless and were undone.
    pub undone: u64,
}

/// One subflow.
///
/// `M` is what the connection attaches to the data it sends: kept with each segment, and repeated when it is sent again.
#[derive(Debug)]
pub struct Tcp<M> {
    /// Its id within the connection.
    id: SubflowId,
    /// The path it uses.
    path: PathId,
    /// Its addresses and ports.
    tuple: FourTuple,
    life: Lifecycle,
    config: TcpConfig,

    // Sending.
    board: Scoreboard<Option<M>>,
    /// First offset the peer's window on this subflow does not allow.
    send_edge: SubflowOffset,
    /// Largest window the peer has offered (RFC 9293 §3.8.6.2.1).
    max_send_window: u64,
    /// SND.WL1 and SND.WL2.
    window_update: (SubflowOffset, SubflowOffset),
    send_scale: u8,
    /// Payload bytes of a full segment without options.
    send_mss: u32,
    fin_wanted: bool,
    fin_sent: bool,
    recovery: Recovery,
    prr: Prr,
    /// What proportional rate reduction lets us send until the next ACK.
    prr_budget: u64,
    /// Bytes sent again before the present fast recovery.
    retransmitted_before: u64,
    rtt: RttEstimator,
    pacer: Pacer,
    limited: WindowUse,
    /// The end of the current round, for the controller's `on_round`.
    round_end: SubflowOffset,
    tail: TailProbe,
    frto: Frto,
    /// SND.NXT at the first timeout of the last episode that had one.
    timeout_point: Option<SubflowOffset>,
    /// After a spurious timeout: a measurement by data from here on makes the timer more conservative (RFC 4015 §3.6).
    adapt_rtt_after: Option<SubflowOffset>,
    /// A tail loss probe is due.
    probe_wanted: bool,
    /// The first unacknowledged segment is to be sent again whatever the window (timeout, handshake).
    resend_first: bool,
    pmtu: PathMtu,
    ecn: EcnState,
    /// The last ICMP error that was noted.
    last_icmp: Option<IcmpCause>,
    /// A zero-window probe is due.
    persist_wanted: bool,
    keepalive_wanted: bool,
    /// A segment made small by the peer's window may go (RFC 9293 §3.8.6.2.1's override timeout has passed).
    small_allowed: bool,
    /// Duplicate ACKs in a row, where the peer does without SACK (RFC 5681 §3.2).
    dup_acks: u32,
    /// When a challenge ACK was last sent.
    challenged: Option<Instant>,
    /// Payload bytes that the SYN carried, and those of them that the SYN/ACK acknowledged (RFC 7413).
    syn_data: u32,
    syn_data_acked: u32,
    /// Data of the peer's SYN were taken, and ours may follow the SYN/ACK (RFC 7413 §4.2.2).
    fast_opened: bool,
    /// SYNs sent again at once because the peer acknowledged something older.
    syns_after_old_ack: u8,

    // Receiving.
    irs: SeqNumber,
    rcv_next: SubflowOffset,
    /// First offset not covered by any window we advertised.
    rcv_edge: SubflowOffset,
    rcv_queue: Reassembly,
    /// Offset of the peer's FIN, once seen.
    rcv_fin: Option<SubflowOffset>,
    fin_received: bool,
    duplicate: Option<Range<SubflowOffset>>,
    peer_scale_ok: bool,

    // Acknowledging.
    ack: AckOwed,
    acks_now: u32,
    quick_acks: u32,
    unacked_bytes: u64,
    /// Payload of the largest single packet received: the peer's full segment, options taken off.
    full_segment: u32,
    last_ack_sent: SubflowOffset,

    // Options.
    timestamps: bool,
    sack: bool,
    ts_recent: u32,
    ts_recent_at: Instant,

    timers: Timers,
    stats: TcpStats,
    /// Smoothed share of bytes lost.
    loss: f32,
    /// When the peer last acknowledged something new or nothing was outstanding.
    progress: Instant,
}

/// Whether the congestion window, not the application, limits what is sent (RFC 7661's question, answered per round).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WindowUse {
    /// Most bytes in flight in this round.
    pub(crate) max_in_flight: u64,
    /// The window was full at some moment of this round.
    pub(crate) full: bool,
    /// When the round ends.
    pub(crate) until: SubflowOffset,
}

impl<M: Copy + Debug> Tcp<M> {
    /// A subflow that will send a SYN.
    pub fn connect(id: SubflowId, path: PathId, tuple: FourTuple, config: TcpConfig, now: Instant) -> Self {
        Tcp {
            id,
            path,
            tuple,
            life: Lifecycle::open(),
            board: Scoreboard::new(),
            send_edge: SubflowOffset(1),
            max_send_window: 0,
            window_update: (SubflowOffset(0), SubflowOffset(0)),
            send_scale: 0,
            send_mss: config.mss.min(default_mss(tuple.remote.is_ipv6())),
            fin_wanted: false,
            fin_sent: false,
            recovery: Recovery::Open,
            prr: Prr::new(),
            prr_budget: 0,
            retransmitted_before: 0,
            rtt: RttEstimator::new(),
            pacer: Pacer::new(config.mss),
            limited: WindowUse::default(),
            round_end: SubflowOffset(0),
            tail: TailProbe::new(),
            frto: Frto::new(),
            timeout_point: None,
            adapt_rtt_after: None,
            probe_wanted: false,
            resend_first: false,
            pmtu: PathMtu::new(config.mss, tuple.remote.is_ipv6(), config.mtu_probe_interval),
            ecn: EcnState::default(),
            last_icmp: None,
            persist_wanted: false,
            keepalive_wanted: false,
            small_allowed: false,
            dup_acks: 0,
            challenged: None,
            syn_data: 0,
            syn_data_acked: 0,
            fast_opened: false,
            syns_after_old_ack: 0,
            irs: SeqNumber(0),
            rcv_next: SubflowOffset(0),
            rcv_edge: SubflowOffset(0),
            rcv_queue: Reassembly::new(),
            rcv_fin: None,
            fin_received: false,
            duplicate: None,
            peer_scale_ok: false,
            ack: AckOwed::No,
            acks_now: 0,
            quick_acks: QUICK_ACKS,
            unacked_bytes: 0,
            full_segment: LEAST_FULL_SEGMENT,
            last_ack_sent: SubflowOffset(0),
            timestamps: false,
            sack: false,
            ts_recent: 0,
            ts_recent_at: now,
            timers: Timers::default(),
            stats: TcpStats::default(),
            loss: 0.0,
            progress: now,
            config,
        }
    }

    /// Its id within the connection.
    pub fn id(&self) -> SubflowId {
        self.id
    }

    /// The path it uses.
    pub fn path(&self) -> PathId {
        self.path
    }

    /// Its addresses and ports.
    pub fn tuple(&self) -> FourTuple {
        self.tuple
    }

    /// Statistics.
    pub fn stats(&self) -> &TcpStats {
        &self.stats
    }

    /// Why it ended, if not by FIN.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.life.close_reason()
    }

    /// SND.NXT.
    pub(crate) fn snd_nxt(&self) -> SubflowOffset {
        self.board.nxt()
    }

    /// SND.UNA.
    pub(crate) fn snd_una(&self) -> SubflowOffset {
        self.board.una()
    }

    /// Everything sent has been acknowledged.
    pub(crate) fn is_all_acked(&self) -> bool {
        self.board.is_empty()
    }

    /// Something counts as lost and has not been sent again.
    pub(crate) fn has_lost(&self) -> bool {
        self.board.lost_bytes() > 0
    }

    /// What is not acknowledged: ranges and what the connection has attached to them.
    pub(crate) fn unacked(&self) -> impl Iterator<Item = (Range<SubflowOffset>, Option<M>)> + '_ {
        self.board.unacked_iter().map(|(range, tag)| (range, *tag))
    }

    /// First offset the peer's window on this subflow does not allow.
    pub(crate) fn send_edge(&self) -> SubflowOffset {
        self.send_edge
    }

    /// The largest window the peer has offered.
    pub(crate) fn max_send_window(&self) -> u64 {
        self.max_send_window
    }

    /// The window that a window field of the peer's stands for.
    pub(crate) fn scaled_window(&self, field: u16) -> u64 {
        u64::from(field) << self.send_scale
    }

    /// First offset not covered by any window we advertised.
    pub(crate) fn rcv_edge(&self) -> SubflowOffset {
        self.rcv_edge
    }

    /// The offset that a sequence number of the peer's stands for, near what is expected next.
    pub(crate) fn offset_of(&self, seq: SeqNumber) -> Option<SubflowOffset> {
        SubflowOffset::from_wire(seq, self.irs, self.rcv_next)
    }

    /// Payload bytes of a full segment without options, as both ends have agreed.
    pub(crate) fn mss(&self) -> u32 {
        self.send_mss
    }

    /// Our MSS option.
    pub(crate) fn own_mss(&self) -> u32 {
        self.config.mss
    }

    /// Timestamps are in use.
    pub(crate) fn timestamps(&self) -> bool {
        self.timestamps
    }

    /// TS.Recent (RFC 7323 §4.3).
    pub(crate) fn ts_recent(&self) -> u32 {
        self.ts_recent
    }

    /// Offset of our timestamp clock.
    pub(crate) fn timestamp_offset(&self) -> u32 {
        self.config.timestamp_offset
    }

    /// Smoothed share of bytes lost.
    pub(crate) fn loss_rate(&self) -> f32 {
        self.loss
    }

    /// Smoothed round-trip time.
    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.rtt.srtt()
    }

    /// Round-trip time variation.
    pub(crate) fn rttvar(&self) -> Duration {
        self.rtt.rttvar()
    }

    /// Least round-trip time seen.
    pub(crate) fn min_rtt(&self) -> Option<Duration> {
        self.rtt.min_rtt()
    }

    /// Retransmission timeout.
    pub(crate) fn rto(&self) -> Duration {
        self.rtt.rto()
    }

    /// Retransmission timeouts since the last progress.
    pub(crate) fn timeouts_in_a_row(&self) -> u32 {
        self.rtt.backoff_count()
    }

    /// The peer's FIN has come, and everything before it.
    pub(crate) fn fin_received(&self) -> bool {
        self.fin_received
    }

    /// Our FIN has been sent.
    pub(crate) fn fin_sent(&self) -> bool {
        self.fin_sent
    }

    /// A FIN has been asked for.
    pub(crate) fn is_closing(&self) -> bool {
        self.fin_wanted
    }

    /// An ACK is to go out at once.
    pub(crate) fn owes_ack(&self) -> bool {
        self.ack == AckOwed::Now
    }

    /// A tail loss probe is due.
    pub(crate) fn tail_probe_due(&self) -> bool {
        self.probe_wanted
    }

    /// Asks the peer for an ACK, by one below its window (RFC 9293 §3.8.4).
    pub(crate) fn probe_peer(&mut self) {
        self.keepalive_wanted = true;
    }

    /// The SYN that is about to leave carries `n` bytes of data (RFC 7413).
    pub(crate) fn syn_carries(&mut self, n: u32) {
        self.syn_data = n;
    }

    /// Payload bytes that the SYN carried.
    pub(crate) fn syn_data(&self) -> u32 {
        self.syn_data
    }

    /// Those of them that the SYN/ACK acknowledged.
    pub(crate) fn syn_data_acked(&self) -> u32 {
        self.syn_data_acked
    }

    /// Data of the peer's SYN were taken, so ours may follow the SYN/ACK (RFC 7413 §4.2.2).
    pub(crate) fn allow_early_data(&mut self) {
        self.fast_opened = true;
    }

    /// The next SYN is one that follows our RST for an old ACK.
    pub(crate) fn syn_follows_old_ack(&self) -> bool {
        self.syns_after_old_ack > 0
    }

    /// The SYN/ACK went out before there was state for it (SYN cookies), with this sequence number and scale.
    pub(crate) fn offered_before(&mut self, isn: SeqNumber, window_scale: u8) {
        self.config.isn = isn;
        self.config.window_scale = window_scale;
    }

    /// The ECN codepoint of a segment that is about to leave; sets CWR in its flags where that is due.
    pub(crate) fn mark_ecn(&mut self, fresh: bool, flags: &mut crate::wire::tcp::TcpFlags) -> bool {
        self.ecn.mark(fresh, flags)
    }

    /// Its RFC 9293 state.
    #[inline]
    pub fn state(&self) -> State {
        self.life.state()
    }

    /// The handshake is complete and it has not ended.
    pub fn is_synchronized(&self) -> bool {
        !matches!(self.state(), State::SynSent | State::SynReceived | State::Closed | State::TimeWait)
    }

    /// New data may be given to it.
    pub fn can_send_data(&self) -> bool {
        let early =
            self.state() == State::SynReceived && self.fast_opened && self.board.nxt() > SubflowOffset(0);
        (matches!(self.state(), State::Established | State::CloseWait) || early) && !self.fin_wanted
    }

    /// It has gone, or only lingers in TIME_WAIT.
    pub fn is_finished(&self) -> bool {
        matches!(self.state(), State::Closed | State::TimeWait)
    }

    /// Bytes in flight.
    pub fn in_flight(&self) -> u64 {
        self.board.in_flight()
    }

    /// Payload bytes per packet that also carries `options` bytes of TCP options.
    pub fn packet_payload(&self, options: usize) -> u32 {
        self.send_mss.saturating_sub(options as u32).max(1)
    }

    /// What the congestion window, or proportional rate reduction during recovery, lets us send now.
    pub fn congestion_room(&self, cc: &dyn CongestionController) -> u64 {
        match self.recovery {
            Recovery::Fast { .. } => self.prr_budget,
            // RFC 3042, for peers without SACK: each of the first two duplicate ACKs lets one new packet out. With SACK what they
            // report leaves the flight by itself.
            Recovery::Open => {
                let extra = u64::from(self.dup_acks.min(2)) * u64::from(self.send_mss);
                (cc.window(self.id) + extra).saturating_sub(self.board.in_flight())
            }
            Recovery::Loss { .. } => cc.window(self.id).saturating_sub(self.board.in_flight()),
        }
    }

    /// What the peer's window on this subflow lets us send now.
    pub fn window_room(&self) -> u64 {
        self.send_edge - self.board.nxt()
    }

    /// The pacing rate in bytes per second; `None` before the first RTT sample, when the initial window goes at once.
    pub fn pacing_rate(&self, cc: &dyn CongestionController) -> Option<u64> {
        if let Some(rate) = cc.pacing_rate(self.id) {
            return Some(rate);
        }
        // One ACK that a receiver delayed weighs on SRTT for dozens of ACKs to come, and a window of a few packets spread over it would
        // reach a fraction of what the path gives. The newest sample shows at once that the round trip is shorter.
        let newest = self.rtt.latest()?;
        let rtt = self.rtt.srtt()?.min(newest).as_nanos().max(1) as u64;
        let window = cc.window(self.id);
        // Twice the window per RTT in slow start, so that pacing does not hold it up; 1.25 times in congestion
        // avoidance (RFC 9002 §7.7).
        let (num, den) = if window < cc.ssthresh(self.id) { (2, 1) } else { (5, 4) };
        let rate = u128::from(window) * num * 1_000_000_000 / (den * u128::from(rtt));
        Some(u64::try_from(rate).unwrap_or(u64::MAX).max(1))
    }

    /// Our timestamp clock: milliseconds, offset per four-tuple (RFC 7323 §5.4).
    pub(crate) fn timestamp_now(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.config.timestamp_offset)
    }

    /// The wire sequence number of one of our offsets.
    pub(crate) fn wire_seq(&self, offset: SubflowOffset) -> SeqNumber {
        offset.to_wire(self.config.isn)
    }

    /// The ACK number to send.
    pub(crate) fn wire_ack(&self) -> SeqNumber {
        self.rcv_next.to_wire(self.irs)
    }

    /// Asks for a FIN after everything that was given to this subflow.
    pub fn close(&mut self) {
        self.fin_wanted = true;
    }

    /// Ends it without another packet (the caller sends the RST, if one is due).
    pub(crate) fn terminate(&mut self, reason: CloseReason) {
        self.life.end(reason);
        self.timers = Timers::default();
        self.rcv_queue.clear();
    }

    /// Whether this subflow may answer an unacceptable segment now.
    pub(crate) fn may_challenge(&mut self, now: Instant) -> bool {
        if self.challenged.is_some_and(|last| now - last < CHALLENGE_INTERVAL) {
            return false;
        }
        self.challenged = Some(now);
        true
    }

    /// An ACK is owed at once.
    pub(crate) fn ack_now(&mut self) {
        self.ack = AckOwed::Now;
        self.acks_now = self.acks_now.saturating_add(1).min(4);
    }
}
