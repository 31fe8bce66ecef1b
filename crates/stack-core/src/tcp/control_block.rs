//! The struct of a subflow (RFC 9293's transmission control block), and what it tells the connection.

use super::acker::Acker;
use super::config::{FourTuple, TcpConfig, TcpStats};
use super::handshake::Handshake;
use super::receive_rtt::ReceiveRtt;
use super::receiver::Receiver;
use super::sender::half::{Moment, Sender};
use super::sender::packet_size::SizeProbe;
use super::state::{CloseReason, Lifecycle, State};
use super::timers::{Timer, Timers};
use super::timestamps::TimestampClock;
use crate::buffers::payload::Payload;
use crate::wire::tcp::TcpFlags;
use core::fmt::Debug;
use core::ops::Range;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant, PathId, SeqNumber, SubflowId, SubflowOffset};

/// One subflow.
///
/// `M` is what the connection attaches to the data it sends: kept with each segment, and repeated when it is
/// sent again.
#[derive(Debug)]
pub(crate) struct Tcp<M> {
    /// The path it uses.
    pub(super) path: PathId,
    pub(super) tuple: FourTuple,
    pub(super) config: TcpConfig,
    pub(super) life: Lifecycle,
    pub(super) handshake: Handshake,
    pub(super) timestamps: TimestampClock,
    pub(super) sender: Sender<M>,
    pub(super) receiver: Receiver,
    pub(super) receive_rtt: ReceiveRtt,
    pub(super) acker: Acker,
    pub(super) timers: Timers,
    /// When payload came last.
    pub(super) payload_at: Option<Instant>,
}

impl<M: Copy + Debug> Tcp<M> {
    /// A subflow that will send a SYN.
    pub(crate) fn connect(
        id: SubflowId,
        path: PathId,
        tuple: FourTuple,
        config: TcpConfig,
        now: Instant,
    ) -> Self {
        Tcp {
            path,
            tuple,
            life: Lifecycle::open(),
            handshake: Handshake::default(),
            timestamps: TimestampClock::new(config.timestamp_offset, now),
            sender: Sender::new(id, &config, tuple.remote.is_ipv6(), now),
            receiver: Receiver::new(),
            receive_rtt: ReceiveRtt::new(),
            acker: Acker::new(),
            timers: Timers::default(),
            payload_at: None,
            config,
        }
    }

    /// What the sender must know of the rest.
    #[inline]
    pub(super) fn moment(&self, now: Instant) -> Moment {
        Moment {
            now,
            stamp_offset: self.timestamps.offset(),
            synchronized: self.is_synchronized(),
            sack: self.handshake.sack(),
            timestamps: self.timestamps.enabled(),
        }
    }

    /// Its id within the connection.
    #[inline]
    pub(crate) fn id(&self) -> SubflowId {
        self.sender.id()
    }

    /// The path it uses.
    #[inline]
    pub(crate) fn path(&self) -> PathId {
        self.path
    }

    /// Its addresses and ports.
    #[inline]
    pub(crate) fn tuple(&self) -> FourTuple {
        self.tuple
    }

    /// Statistics.
    #[inline]
    pub(crate) fn stats(&self) -> TcpStats {
        TcpStats { bytes_received: self.receiver.bytes(), ..*self.sender.stats() }
    }

    /// Its RFC 9293 state.
    #[inline]
    pub(crate) fn state(&self) -> State {
        self.life.state()
    }

    /// Why it ended, if not by FIN.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.life.close_reason()
    }

    /// The handshake is complete and it has not ended.
    pub(crate) fn is_synchronized(&self) -> bool {
        !matches!(self.state(), State::SynSent | State::SynReceived | State::Closed | State::TimeWait)
    }

    /// It is closed, or in TIME_WAIT.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.state(), State::Closed | State::TimeWait)
    }

    /// New data may be given to it.
    pub(crate) fn can_send_data(&self) -> bool {
        let early = self.state() == State::SynReceived
            && self.handshake.fast_opened()
            && self.sender.nxt() > SubflowOffset(0);
        (matches!(self.state(), State::Established | State::CloseWait) || early) && !self.sender.is_closing()
    }

    /// Asks for a FIN after everything that was given to this subflow.
    pub(crate) fn close(&mut self) {
        self.sender.close();
    }

    /// Ends it without sending anything (the caller sends the RST, if one is due).
    pub(crate) fn terminate(&mut self, reason: CloseReason) {
        self.life.end(reason);
        self.timers.stop_all();
        self.receiver.discard();
    }

    /// SND.NXT.
    pub(crate) fn snd_nxt(&self) -> SubflowOffset {
        self.sender.nxt()
    }

    /// SND.UNA.
    pub(crate) fn snd_una(&self) -> SubflowOffset {
        self.sender.una()
    }

    /// Everything sent has been acknowledged.
    pub(crate) fn is_all_acked(&self) -> bool {
        self.sender.is_all_acked()
    }

    /// Something counts as lost and has not been sent again.
    pub(crate) fn has_lost(&self) -> bool {
        self.sender.has_lost()
    }

    /// What was lost is being repaired.
    pub(crate) fn is_recovering(&self) -> bool {
        self.sender.is_recovering()
    }

    /// What is not acknowledged: ranges and what the connection has attached to them.
    pub(crate) fn unacked(&self) -> impl Iterator<Item = (Range<SubflowOffset>, Option<M>)> + '_ {
        self.sender.unacked()
    }

    /// Bytes in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sender.in_flight()
    }

    /// First offset the peer's window on this subflow does not allow.
    pub(crate) fn send_edge(&self) -> SubflowOffset {
        self.sender.edge()
    }

    /// The largest window the peer has offered.
    pub(crate) fn max_send_window(&self) -> u64 {
        self.sender.max_window()
    }

    /// The window that a window field of the peer's stands for.
    pub(crate) fn scaled_window(&self, field: u16) -> u64 {
        self.sender.scaled_window(field)
    }

    /// What the peer's window on this subflow lets us send now.
    pub(crate) fn window_room(&self) -> u64 {
        self.sender.window_room()
    }

    /// What the congestion window, or proportional rate reduction during recovery, lets us send now.
    pub(crate) fn congestion_room(&self, cc: &dyn CongestionController) -> u64 {
        self.sender.congestion_room(cc)
    }

    /// The pacing rate in bytes per second; `None` before the first RTT sample, when the initial window goes
    /// at once.
    pub(crate) fn pacing_rate(&self, cc: &dyn CongestionController) -> Option<u64> {
        self.sender.pacing_rate(cc)
    }

    /// The path's NIC sends so many bytes per second; `None`: it is not known.
    pub(crate) fn set_line_rate(&mut self, rate: Option<u64>) {
        self.sender.line_rate = rate;
    }

    /// When new data may leave, as pacing has it.
    pub(crate) fn next_send(&self, now: Instant) -> Instant {
        self.sender.next_send(now)
    }

    /// A segment made small by the peer's window may go (RFC 9293 §3.8.6.2.1: its override timeout has
    /// passed).
    pub(crate) fn small_segment_allowed(&self) -> bool {
        self.sender.small_segment_allowed()
    }

    /// First offset not covered by any window we advertised.
    pub(crate) fn rcv_edge(&self) -> SubflowOffset {
        self.receiver.edge()
    }

    /// The offset that a sequence number of the peer's stands for, near what is expected next.
    pub(crate) fn offset_of(&self, seq: SeqNumber) -> Option<SubflowOffset> {
        self.receiver.offset_of(seq)
    }

    /// Payload bytes of a full segment without options, as both ends have agreed.
    pub(crate) fn mss(&self) -> u32 {
        self.sender.mss()
    }

    /// Our MSS option.
    pub(crate) fn own_mss(&self) -> u32 {
        self.config.mss
    }

    /// Payload bytes per packet that also carries `options` bytes of TCP options.
    pub(crate) fn packet_payload(&self, options: usize) -> u32 {
        self.sender.mss().saturating_sub(options as u32).max(1)
    }

    /// Timestamps are in use.
    pub(crate) fn timestamps(&self) -> bool {
        self.timestamps.enabled()
    }

    /// TS.Recent (RFC 7323 §4.3).
    pub(crate) fn ts_recent(&self) -> u32 {
        self.timestamps.recent()
    }

    /// Offset of our timestamp clock.
    pub(crate) fn timestamp_offset(&self) -> u32 {
        self.timestamps.offset()
    }

    /// Smoothed share of bytes lost.
    pub(crate) fn loss_rate(&self) -> f32 {
        self.sender.loss_rate()
    }

    /// Smoothed round-trip time.
    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.sender.rtt().srtt()
    }

    /// The round-trip time as it is for what we receive; as that of the sending half while nothing comes.
    pub(crate) fn receive_rtt(&self, now: Instant) -> Option<Duration> {
        self.receive_rtt.get(now).or_else(|| self.srtt())
    }

    /// Round-trip time variation.
    pub(crate) fn rttvar(&self) -> Duration {
        self.sender.rtt().rttvar()
    }

    /// How long ago the round-trip time was measured, within a round trip; `None`: not yet.
    pub(crate) fn rtt_age(&self, now: Instant) -> Option<Duration> {
        self.sender.rtt().age(now)
    }

    /// The next measurement of the round-trip time is as the first.
    pub(crate) fn renew_rtt(&mut self) {
        self.sender.renew_rtt();
    }

    /// Least round-trip time seen.
    pub(crate) fn min_rtt(&self) -> Option<Duration> {
        self.sender.rtt().min_rtt()
    }

    /// Retransmission timeout.
    pub(crate) fn rto(&self) -> Duration {
        self.sender.rto()
    }

    /// The same without back-off.
    pub(crate) fn base_rto(&self) -> Duration {
        self.sender.rtt().base_rto()
    }

    /// Retransmission timeouts since the last progress.
    pub(crate) fn timeouts_in_a_row(&self) -> u32 {
        self.sender.rtt().backoff_count()
    }

    /// When acknowledgements are so late that the path may have fallen silent.
    #[inline]
    pub(crate) fn silence_deadline(&self) -> Option<Instant> {
        self.sender.silence_deadline()
    }

    /// When an acknowledgement last showed that something had arrived.
    pub(crate) fn delivered_at(&self) -> Instant {
        self.sender.delivered_at()
    }

    /// When something that has to be acknowledged was sent last, also again.
    pub(crate) fn sent_at(&self) -> Option<Instant> {
        self.sender.sent_at()
    }

    /// When payload came last, also what had come before.
    pub(crate) fn payload_at(&self) -> Option<Instant> {
        self.payload_at
    }

    /// The peer's FIN has come, and everything before it.
    pub(crate) fn fin_received(&self) -> bool {
        self.receiver.fin_received()
    }

    /// Our FIN has been sent.
    pub(crate) fn fin_sent(&self) -> bool {
        self.sender.fin_sent()
    }

    /// A FIN has been asked for.
    pub(crate) fn is_closing(&self) -> bool {
        self.sender.is_closing()
    }

    /// An ACK is owed at once.
    pub(crate) fn ack_now(&mut self) {
        self.acker.owe_now();
    }

    /// An ACK is to go out at once.
    pub(crate) fn owes_ack(&self) -> bool {
        self.acker.owes_now()
    }

    /// Whether this subflow may answer an unacceptable segment now.
    pub(crate) fn may_challenge(&mut self, now: Instant) -> bool {
        self.acker.may_challenge(now)
    }

    /// A tail loss probe is due.
    pub(crate) fn tail_probe_due(&self) -> bool {
        self.sender.tail_probe_due()
    }

    /// Makes the peer send an ACK, by a segment below its window (RFC 9293 §3.8.4).
    pub(crate) fn probe_peer(&mut self) {
        self.sender.probe_peer();
    }

    /// The zero-window probe timer runs.
    pub(crate) fn is_window_probing(&self) -> bool {
        self.timers.is_running(Timer::Persist)
    }

    /// A zero-window probe is due.
    pub(crate) fn window_probe_due(&self) -> bool {
        self.sender.window_probe_due()
    }

    /// Starts the zero-window probe timer.
    pub(crate) fn arm_persist(&mut self, now: Instant) {
        self.timers.start_persist(now, self.sender.rto());
    }

    /// Starts that timer as if `probes` had been sent already, where it has not seen as many itself.
    pub(crate) fn arm_persist_after(&mut self, now: Instant, probes: u32) {
        self.timers.start_persist_after(now, self.sender.rto(), probes);
    }

    /// If something is to be sent again, not later than `at`.
    pub(crate) fn retransmit_by(&mut self, at: Instant) {
        self.timers.hasten(Timer::Retransmit, at);
    }

    /// Stops all timers: the connection takes over.
    pub(crate) fn stop_timers(&mut self) {
        self.timers.stop_all();
    }

    /// The SYN that is about to leave carries `n` bytes of data (RFC 7413).
    pub(crate) fn syn_carries(&mut self, n: u32) {
        self.handshake.syn_carries(n);
    }

    /// Payload bytes that the SYN carried.
    pub(crate) fn syn_data(&self) -> u32 {
        self.handshake.syn_data()
    }

    /// Those of them that the SYN/ACK acknowledged.
    pub(crate) fn syn_data_acked(&self) -> u32 {
        self.handshake.syn_data_acked()
    }

    /// Our SYN carried `payload`, and the SYN/ACK acknowledged it (RFC 7413).
    pub(crate) fn syn_data_delivered(&mut self, now: Instant, payload: Payload) {
        self.sender.syn_data_delivered(now, payload);
    }

    /// The SYN that came in carried `n` bytes, which are accepted (RFC 7413).
    pub(crate) fn syn_data_received(&mut self, n: u64) {
        self.receiver.on_syn_data(n);
    }

    /// Data of the peer's SYN were taken, so ours may follow the SYN/ACK (RFC 7413 §4.2.2).
    pub(crate) fn allow_early_data(&mut self) {
        self.handshake.fast_open();
    }

    /// The next SYN is one that follows our RST for an old ACK.
    pub(crate) fn syn_follows_old_ack(&self) -> bool {
        self.handshake.old_ack_seen()
    }

    /// The SYN/ACK went out before there was state for it (SYN cookies), with this sequence number and scale.
    pub(crate) fn offered_before(&mut self, isn: SeqNumber, window_scale: u8) {
        self.sender.offered_before(isn);
        self.config.window_scale = window_scale;
    }

    /// The ECN codepoint of a segment that is about to leave; sets CWR in its flags where that is due.
    pub(crate) fn mark_ecn(&mut self, fresh: bool, flags: &mut TcpFlags) -> bool {
        self.sender.mark_ecn(fresh, flags)
    }

    /// The wire sequence number of one of our offsets.
    pub(crate) fn wire_seq(&self, offset: SubflowOffset) -> SeqNumber {
        self.sender.wire_seq(offset)
    }

    /// Bytes received that wait for those before them.
    pub(crate) fn out_of_order(&self) -> u64 {
        self.receiver.out_of_order()
    }

    /// Drops what waits for those before it: the peer keeps it until it is acknowledged (RFC 2018 §8).
    pub(crate) fn prune(&mut self) {
        self.receiver.discard();
    }

    /// The ACK number to send.
    pub(crate) fn wire_ack(&self) -> SeqNumber {
        self.receiver.wire_ack()
    }

    /// The sequence number of the peer's SYN (RFC 9293: IRS).
    pub(crate) fn peer_isn(&self) -> SeqNumber {
        self.receiver.irs()
    }

    /// The probe for larger packets that should be the next segment of new data (RFC 4821 §7.4), once the
    /// windows have room for it. `packet`: payload of an ordinary one; `enough`: how much the application and
    /// the connection's window have for it and for what follows.
    pub(crate) fn size_probe(
        &self,
        now: Instant,
        cc: &dyn CongestionController,
        packet: u32,
        enough: u64,
    ) -> Option<SizeProbe> {
        self.sender.size_probe(self.moment(now), cc, packet, enough)
    }

    /// The search for the largest packet that passes wants a probe now.
    pub(crate) fn size_probe_due(&self, now: Instant) -> bool {
        self.sender.size_probe_due(now)
    }

    /// How many probes have failed since the last call.
    pub(crate) fn take_failed_size_probes(&mut self) -> u32 {
        self.sender.take_failed_size_probes()
    }

    /// The new data that follow offset `start` were sent as that probe.
    pub(crate) fn size_probe_sent(&mut self, now: Instant, start: SubflowOffset, probe: SizeProbe) {
        self.sender.size_probe_sent(now, start, probe);
    }

    /// What starts at `start` is a probe: it goes in a single packet.
    pub(crate) fn is_size_probe(&self, start: SubflowOffset) -> bool {
        self.sender.is_size_probe(start)
    }

    /// A segment of new data should be sent now, before retransmissions and regardless of the congestion
    /// window: as a tail loss probe (RFC 8985 §7.3) or for F-RTO (RFC 5682 §3.1 step 2b).
    pub(crate) fn wants_new_data(&self) -> bool {
        self.can_send_data() && self.sender.wants_new_data()
    }

    /// That segment was sent.
    pub(crate) fn new_data_sent(&mut self, now: Instant) {
        self.sender.new_data_sent(self.moment(now), &mut self.timers);
    }

    /// No new data, or no window for it: a tail loss probe repeats old data instead, and F-RTO ends.
    pub(crate) fn no_new_data(&mut self) {
        self.sender.no_new_data();
    }
}
