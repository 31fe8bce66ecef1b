//! The struct of the sending half, and what it tells others.

use super::recovery::LossRecovery;
use super::rounds::Rounds;
use super::way_back::WayBack;
use super::window::SendWindow;
use crate::buffers::payload::Payload;
use crate::tcp::config::{TcpConfig, TcpStats, default_mss};
use crate::tcp::ecn::EcnState;
use crate::tcp::pacing::Pacer;
use crate::tcp::pmtu::PathMtu;
use crate::tcp::rtt::RttEstimator;
use crate::tcp::scoreboard::{Outgoing, Phase, Scoreboard};
use crate::tcp::timers::{Timer, Timers};
use crate::tcp::timestamps::stamp;
use crate::wire::tcp::{TcpFlags, TcpRepr};
use core::fmt::Debug;
use core::ops::Range;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant, SeqNumber, SubflowId, SubflowOffset};

/// A hostile MSS of a few bytes would make us send almost nothing but headers; Linux's floor is the same.
const LEAST_MSS: u32 = 48;

/// What the sender must know of the moment and of the rest of the subflow.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Moment {
    pub(in crate::tcp) now: Instant,
    /// Of our timestamp clock.
    pub(in crate::tcp) stamp_offset: u32,
    /// The handshake is complete, and the subflow has not ended.
    pub(in crate::tcp) synchronized: bool,
    /// Both ends use SACK.
    pub(in crate::tcp) sack: bool,
    /// Both ends use timestamps.
    pub(in crate::tcp) timestamps: bool,
}

impl Moment {
    /// Our timestamp clock.
    pub(super) fn stamp(&self) -> u32 {
        stamp(self.now, self.stamp_offset)
    }
}

/// What is to be sent apart from data and FIN.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Due {
    /// A tail loss probe.
    pub(super) tail_probe: bool,
    /// The first unacknowledged segment, even without room in the window (timeout, handshake).
    pub(super) first: bool,
    /// A zero-window probe.
    pub(super) window_probe: bool,
    /// A probe that shows whether the peer lives.
    pub(super) keep_alive: bool,
    /// A segment made small by the peer's window may go (RFC 9293 §3.8.6.2.1's override timeout has passed).
    pub(super) small: bool,
}

/// Our FIN.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fin {
    /// It has been asked for.
    pub(super) wanted: bool,
    pub(super) sent: bool,
}

/// The sending half of a subflow.
#[derive(Debug)]
pub(in crate::tcp) struct Sender<M> {
    /// The subflow, by which the controller knows it.
    pub(super) id: SubflowId,
    /// Initial send sequence number.
    pub(super) isn: SeqNumber,
    /// Segments that may be unacknowledged.
    max_segments: usize,
    pub(super) board: Scoreboard<Option<M>>,
    pub(super) window: SendWindow,
    pub(super) recovery: LossRecovery,
    pub(super) rtt: RttEstimator,
    pub(super) pacer: Pacer,
    /// Bytes per second that the path's NIC sends, where that is known.
    pub(in crate::tcp) line_rate: Option<u64>,
    pub(super) rounds: Rounds,
    pub(super) way_back: WayBack,
    pub(super) pmtu: PathMtu,
    pub(super) ecn: EcnState,
    pub(super) due: Due,
    pub(super) fin: Fin,
    /// Smoothed share of bytes lost.
    pub(super) loss: f32,
    /// When the peer last acknowledged something new or nothing was outstanding.
    pub(super) progress: Instant,
    /// When an acknowledgement last showed that something had arrived.
    pub(super) delivered_at: Instant,
    /// Without `bytes_received`, which the receiver counts.
    pub(super) stats: TcpStats,
}

impl<M: Copy + Debug> Sender<M> {
    /// Nothing sent yet; `v6`: over IPv6.
    pub(in crate::tcp) fn new(id: SubflowId, config: &TcpConfig, v6: bool, now: Instant) -> Self {
        Sender {
            id,
            isn: config.isn,
            max_segments: config.max_segments,
            board: Scoreboard::new(),
            window: SendWindow::new(),
            recovery: LossRecovery::new(),
            rtt: RttEstimator::new(),
            pacer: Pacer::new(config.mss),
            line_rate: None,
            rounds: Rounds::default(),
            way_back: WayBack::default(),
            pmtu: PathMtu::new(config.mss.min(default_mss(v6)), v6, config.mtu_probe_interval),
            ecn: EcnState::default(),
            due: Due::default(),
            fin: Fin::default(),
            loss: 0.0,
            progress: now,
            delivered_at: now,
            stats: TcpStats::default(),
        }
    }

    /// Learns what the peer's SYN or SYN/ACK says; `scale`: of its windows.
    pub(in crate::tcp) fn on_syn(&mut self, config: &TcpConfig, v6: bool, syn: &TcpRepr, scale: u8) {
        let peer_mss = syn.options.mss.map_or(default_mss(v6), u32::from);
        let mss = peer_mss.min(config.mss).max(LEAST_MSS);
        self.pmtu = PathMtu::new(mss, v6, config.mtu_probe_interval);
        self.ecn.on_syn(config.ecn, syn.flags);
        self.board.set_mss(mss);
        self.pacer.set_mss(mss);
        self.window.on_syn(syn.window, scale);
    }

    /// A SYN/ACK acknowledged our SYN, and with Fast Open data up to `ack` (RFC 7413 §4.2.2).
    pub(in crate::tcp) fn on_syn_ack(
        &mut self,
        now: Instant,
        ack: SubflowOffset,
        window: u16,
        timers: &mut Timers,
    ) {
        let o = self.board.on_ack(now, SubflowOffset(1), &[], None);
        if let Some(rtt) = o.rtt {
            self.rtt.sample(now, rtt);
        }
        self.rtt.reset_back_off();
        self.progress = now;
        timers.stop(Timer::Retransmit);
        self.due.first = false;
        self.window.on_syn_ack(ack, window);
        self.handshake_done();
    }

    /// Our SYN is acknowledged: data may be sent.
    pub(super) fn handshake_done(&mut self) {
        self.rounds.begin(self.board.nxt());
        if self.stats.timeouts > 0 {
            // RFC 6298 §5.7. The SYN gives no measurement (Karn's rule), and the path may be slower than the
            // initial timeout.
            self.rtt.syn_timed_out();
        }
    }

    /// Our SYN carried `payload`, and the SYN/ACK acknowledged it (RFC 7413). The scoreboard hears of it only
    /// now, so that what is not acknowledged needs no taking back.
    pub(in crate::tcp) fn syn_data_delivered(&mut self, now: Instant, payload: Payload) {
        let n = payload.len() as u64;
        let end = self.board.push(now, Outgoing::data(payload, None, true)).end;
        self.board.on_ack(now, end, &[], None);
        self.rounds.begin(end);
        self.stats.bytes_sent += n;
        self.stats.bytes_acked += n;
    }

    /// The SYN/ACK went out before there was any state, with this sequence number.
    pub(in crate::tcp) fn offered_before(&mut self, isn: SeqNumber) {
        self.isn = isn;
    }

    /// Its id within the connection.
    #[inline]
    pub(in crate::tcp) fn id(&self) -> SubflowId {
        self.id
    }

    /// SND.NXT.
    #[inline]
    pub(in crate::tcp) fn nxt(&self) -> SubflowOffset {
        self.board.nxt()
    }

    /// SND.UNA.
    #[inline]
    pub(in crate::tcp) fn una(&self) -> SubflowOffset {
        self.board.una()
    }

    /// The offset that an acknowledgement number of the peer's stands for.
    pub(in crate::tcp) fn offset_of(&self, seq: SeqNumber) -> Option<SubflowOffset> {
        SubflowOffset::from_wire(seq, self.isn, self.board.una())
    }

    /// The wire sequence number of one of our offsets.
    pub(in crate::tcp) fn wire_seq(&self, offset: SubflowOffset) -> SeqNumber {
        offset.to_wire(self.isn)
    }

    /// RFC 5961 §5.2: `ack` is for something sent, and not older than the largest window.
    pub(in crate::tcp) fn ack_acceptable(&self, ack: SubflowOffset) -> bool {
        ack <= self.board.nxt() && ack.0 + self.window.max() >= self.board.una().0
    }

    /// Everything sent has been acknowledged.
    pub(in crate::tcp) fn is_all_acked(&self) -> bool {
        self.board.is_empty()
    }

    /// What was lost is being repaired.
    pub(in crate::tcp) fn is_recovering(&self) -> bool {
        !matches!(self.board.phase(), Phase::Open)
    }

    /// Something counts as lost and has not been sent again.
    pub(in crate::tcp) fn has_lost(&self) -> bool {
        self.board.lost_bytes() > 0
    }

    /// What is not acknowledged: ranges and what the connection has attached to them.
    pub(in crate::tcp) fn unacked(&self) -> impl Iterator<Item = (Range<SubflowOffset>, Option<M>)> + '_ {
        self.board.unacked_iter().map(|(range, tag)| (range, *tag))
    }

    /// Bytes in flight.
    pub(in crate::tcp) fn in_flight(&self) -> u64 {
        self.board.in_flight()
    }

    /// The peer's window: first offset that it does not allow.
    pub(in crate::tcp) fn edge(&self) -> SubflowOffset {
        self.window.edge()
    }

    /// The largest window the peer has offered.
    pub(in crate::tcp) fn max_window(&self) -> u64 {
        self.window.max()
    }

    /// The window that a window field of the peer's stands for.
    pub(in crate::tcp) fn scaled_window(&self, field: u16) -> u64 {
        self.window.scaled(field)
    }

    /// What the peer's window lets us send now.
    pub(in crate::tcp) fn window_room(&self) -> u64 {
        self.window.edge() - self.board.nxt()
    }

    /// Payload bytes of a full segment without options.
    #[inline]
    pub(in crate::tcp) fn mss(&self) -> u32 {
        self.pmtu.mss()
    }

    /// Round-trip times and the retransmission timeout.
    #[inline]
    pub(in crate::tcp) fn rtt(&self) -> &RttEstimator {
        &self.rtt
    }

    /// The next measurement of the round-trip time is as the first.
    pub(in crate::tcp) fn renew_rtt(&mut self) {
        self.rtt.renew();
    }

    /// When something that has to be acknowledged was sent last.
    pub(in crate::tcp) fn sent_at(&self) -> Option<Instant> {
        self.board.last_sent()
    }

    /// When an acknowledgement last showed that something had arrived.
    pub(in crate::tcp) fn delivered_at(&self) -> Instant {
        self.delivered_at
    }

    /// Retransmission timeout.
    pub(in crate::tcp) fn rto(&self) -> Duration {
        self.rtt.rto()
    }

    /// Smoothed share of bytes lost.
    pub(in crate::tcp) fn loss_rate(&self) -> f32 {
        self.loss
    }

    /// When the peer last acknowledged something new or nothing was outstanding.
    pub(in crate::tcp) fn progress(&self) -> Instant {
        self.progress
    }

    /// Statistics of sending.
    pub(in crate::tcp) fn stats(&self) -> &TcpStats {
        &self.stats
    }

    /// When RACK must look for losses again, if no ACK comes before.
    pub(in crate::tcp) fn reorder_deadline(&self) -> Option<Instant> {
        self.board.reorder_deadline()
    }

    /// A FIN is to follow everything that was given to this subflow.
    pub(in crate::tcp) fn close(&mut self) {
        self.fin.wanted = true;
    }

    /// A FIN has been asked for.
    pub(in crate::tcp) fn is_closing(&self) -> bool {
        self.fin.wanted
    }

    /// Our FIN has been sent.
    pub(in crate::tcp) fn fin_sent(&self) -> bool {
        self.fin.sent
    }

    /// A tail loss probe is due.
    pub(in crate::tcp) fn tail_probe_due(&self) -> bool {
        self.due.tail_probe
    }

    /// A zero-window probe is due.
    pub(in crate::tcp) fn window_probe_due(&self) -> bool {
        self.due.window_probe
    }

    /// A segment made small by the peer's window may go.
    pub(in crate::tcp) fn small_segment_allowed(&self) -> bool {
        self.due.small
    }

    /// The peer is to be asked for an ACK (RFC 9293 §3.8.4).
    pub(in crate::tcp) fn probe_peer(&mut self) {
        self.due.keep_alive = true;
    }

    /// A segment with payload came in; `marked`: with a congestion mark. True: that is news to the peer.
    pub(in crate::tcp) fn on_ecn_data(&mut self, marked: bool, flags: TcpFlags) -> bool {
        self.ecn.on_data(marked, flags)
    }

    /// The ECN codepoint of a segment that is about to leave; sets CWR in its flags where that is due.
    pub(in crate::tcp) fn mark_ecn(&mut self, fresh: bool, flags: &mut TcpFlags) -> bool {
        self.ecn.mark(fresh, flags)
    }

    /// What the congestion window, or proportional rate reduction during recovery, lets us send now.
    /// Nothing new while too many segments are unacknowledged.
    pub(in crate::tcp) fn congestion_room(&self, cc: &dyn CongestionController) -> u64 {
        if self.board.unacked_segments() >= self.max_segments {
            return 0;
        }
        match self.board.phase() {
            Phase::Fast { .. } => self.recovery.budget(),
            // RFC 3042, for peers without SACK: each of the first two duplicate ACKs allows one new packet.
            // With SACK, what they report is no longer in flight anyway.
            Phase::Open => {
                let extra = u64::from(self.recovery.limited_transmit()) * u64::from(self.mss());
                (cc.window(self.id) + extra).saturating_sub(self.board.in_flight())
            }
            Phase::Loss { .. } => cc.window(self.id).saturating_sub(self.board.in_flight()),
        }
    }

    /// The pacing rate in bytes per second; `None` before the first RTT sample, when the initial window goes
    /// at once.
    pub(in crate::tcp) fn pacing_rate(&self, cc: &dyn CongestionController) -> Option<u64> {
        if let Some(rate) = cc.pacing_rate(self.id) {
            return Some(rate);
        }
        // One delayed ACK raises SRTT for dozens of ACKs, and a window of a few packets paced over it would
        // use only a fraction of the path. The newest sample shows at once that the round trip is shorter.
        let newest = self.rtt.latest()?;
        let rtt = self.rtt.srtt()?.min(newest).as_nanos().max(1) as u64;
        let window = cc.window(self.id);
        // Twice the window per RTT in slow start, so that pacing does not hold it up; 1.25 times in
        // congestion avoidance (RFC 9002 §7.7).
        let (num, den) = if window < cc.ssthresh(self.id) { (2, 1) } else { (5, 4) };
        let rate = u128::from(window) * num * 1_000_000_000 / (den * u128::from(rtt));
        Some(u64::try_from(rate).unwrap_or(u64::MAX).max(1))
    }

    /// When new data may leave, as pacing has it.
    pub(in crate::tcp) fn next_send(&self, now: Instant) -> Instant {
        self.pacer.next_send(now)
    }
}
