//! The scoreboard against a model that holds one record per byte and walks them all.

use super::*;
use alloc::vec;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Flying,
    Sacked,
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Byte {
    state: State,
    /// `None`: lost since it was last sent.
    tx: Option<(u64, Instant)>,
    first_tx: (u64, Instant),
    retransmitted: bool,
    app_limited: bool,
}

#[derive(Default)]
struct Model {
    bytes: Vec<Byte>,
    una: u64,
    next_tx: u64,
    rack: Option<(u64, u64)>,
    rack_rtt: Duration,
    fack: u64,
    reordering_seen: bool,
    /// The longest that something came after it was due.
    lateness: Duration,
    /// As the board has it.
    disordered: bool,
    min_rtt: Option<Duration>,
    srtt: Duration,
    recovery: Option<u64>,
    reneged: bool,
}

impl Model {
    fn nxt(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn transmission(&mut self, now: Instant) -> (u64, Instant) {
        self.next_tx += 1;
        (self.next_tx - 1, now)
    }

    fn push(&mut self, now: Instant, len: u64, app_limited: bool) {
        let tx = self.transmission(now);
        let byte =
            Byte { state: State::Flying, tx: Some(tx), first_tx: tx, retransmitted: false, app_limited };
        self.bytes.extend((0..len).map(|_| byte));
    }

    fn retransmitted(&mut self, now: Instant, range: Range<u64>) {
        let range = range.start.max(self.una)..range.end.min(self.nxt());
        if range.is_empty() {
            return;
        }
        let tx = self.transmission(now);
        for b in &mut self.bytes[range.start as usize..range.end as usize] {
            if b.state != State::Sacked {
                *b = Byte { state: State::Flying, tx: Some(tx), retransmitted: true, ..*b };
            }
        }
    }

    fn count(&self, state: State) -> u64 {
        self.bytes[self.una as usize..].iter().filter(|b| b.state == state).count() as u64
    }

    /// Returns the expected figures: cumulative, delivered, rtt, reordering, retransmitted_acked,
    /// app_limited.
    fn ack(&mut self, now: Instant, ack: u64, sacks: &[Range<u64>]) -> AckOutcome {
        let mut out = AckOutcome::default();
        let ack = ack.clamp(self.una, self.nxt());
        let sacked = |at: u64| {
            sacks.iter().any(|b| b.start < b.end && b.end <= self.bytes.len() as u64 && b.contains(&at))
        };
        let newly: Vec<u64> = (self.una..self.nxt())
            .filter(|&at| (at < ack || sacked(at)) && self.bytes[at as usize].state != State::Sacked)
            .collect();
        let mut once: [Option<(u64, Instant)>; 2] = [None; 2];
        let mut cumulative_retransmitted = false;
        let mut newest = None;
        let mut rack: Option<(u64, u64, Instant)> = None;
        for &at in &newly {
            let b = self.bytes[at as usize];
            out.delivered += 1;
            out.retransmitted_acked |= b.retransmitted;
            cumulative_retransmitted |= at < ack && b.retransmitted;
            if at + 1 > self.fack {
                self.fack = at + 1;
            } else if !b.retransmitted {
                out.reordering = true;
                let due = self.rack_rtt.max(self.srtt);
                if !(at < ack && cumulative_retransmitted) {
                    self.lateness = self.lateness.max((now - b.first_tx.1).saturating_sub(due));
                }
            }
            let tx = if b.retransmitted { b.tx } else { Some(b.first_tx) };
            let Some((id, sent)) = tx else { continue };
            if newest.is_none_or(|(i, _)| i <= id) {
                newest = Some((id, b.app_limited));
            }
            if b.retransmitted {
                if self.min_rtt.is_some_and(|m| now - sent < m) {
                    continue;
                }
            } else {
                let slot = &mut once[usize::from(at >= ack)];
                *slot = (*slot).max(Some((id, sent)));
            }
            if rack.is_none_or(|(i, e, _)| (id, at + 1) > (i, e)) {
                rack = Some((id, at + 1, sent));
            }
        }
        for &at in &newly {
            self.bytes[at as usize].state = State::Sacked;
        }
        out.cumulative = ack - self.una;
        self.una = ack;
        if cumulative_retransmitted {
            once[0] = None;
        }
        out.rtt = once[0].max(once[1]).map(|(_, sent)| now - sent);
        out.app_limited = newest.is_some_and(|(_, limited)| limited);
        if let Some((id, end, sent)) = rack {
            self.rack_rtt = now - sent;
            self.rack = self.rack.max(Some((id, end)));
        }
        self.reordering_seen |= out.reordering;
        if self.recovery.is_some_and(|point| self.una >= point) {
            self.recovery = None;
            out.recovery_ended = true;
        }
        out
    }

    /// Number of separate SACKed ranges.
    fn sacked_ranges(&self) -> usize {
        let states: Vec<bool> =
            self.bytes[self.una as usize..].iter().map(|b| b.state == State::Sacked).collect();
        (0..states.len()).filter(|&i| states[i] && (i == 0 || !states[i - 1])).count()
    }

    fn window(&self, rtt: &RttEstimator, mss: u64, quarters: u32) -> Duration {
        let many = self.count(State::Sacked) > 2 * mss || self.sacked_ranges() >= 3;
        if !self.reordering_seen && (many || self.recovery.is_some()) {
            return Duration::ZERO;
        }
        let srtt = rtt.srtt().unwrap();
        let stepwise = (rtt.min_rtt().unwrap() / 4 * quarters).min(srtt);
        stepwise.max((self.lateness + self.lateness / 4).min(srtt + 2 * rtt.rttvar()))
    }

    /// After how long something is due.
    fn usual(&self) -> Duration {
        if self.disordered { self.rack_rtt.max(self.srtt) } else { self.rack_rtt }
    }

    /// RFC 8985 §6.3. `segments`: where segments end.
    fn recent_time_out(
        &mut self,
        now: Instant,
        rtt: &RttEstimator,
        mss: u64,
        quarters: u32,
        segments: &[u64],
    ) {
        if self.bytes.get(self.una as usize).is_some_and(|b| b.state == State::Sacked) {
            self.forget_sacks();
        }
        let unsacked = |m: &Model, at: u64| m.bytes[at as usize].state != State::Sacked;
        let Some(first) = (self.una..self.nxt()).find(|&at| unsacked(self, at)) else { return };
        self.recovery = Some(self.nxt());
        let end = segments.iter().copied().find(|&e| e > first).unwrap();
        let end = (first..end).find(|&at| !unsacked(self, at)).unwrap_or(end);
        let round_trip = if self.rack.is_some() { self.usual() } else { rtt.srtt().unwrap() };
        let allowance = round_trip + self.window(rtt, mss, quarters);
        for at in first..self.nxt() {
            let b = &mut self.bytes[at as usize];
            let old = b.state == State::Flying && b.tx.is_some_and(|(_, sent)| sent + allowance <= now);
            if at < end || old {
                (b.state, b.tx) = (State::Lost, None);
            }
        }
    }

    fn detect_loss(
        &mut self,
        now: Instant,
        rtt: &RttEstimator,
        mss: u64,
        quarters: u32,
    ) -> (u64, Option<Instant>) {
        self.min_rtt = rtt.min_rtt();
        self.srtt = rtt.srtt().unwrap();
        let usual = self.usual();
        let window = self.window(rtt, mss, quarters);
        let (mut newly, mut deadline) = (0, None::<Instant>);
        if let Some(rack) = self.rack {
            for at in self.una..self.nxt() {
                let b = &mut self.bytes[at as usize];
                let (State::Flying, Some((id, sent))) = (b.state, b.tx) else { continue };
                if (id, at + 1) > rack {
                    continue;
                }
                let due = sent + usual + window;
                if due <= now {
                    b.state = State::Lost;
                    b.tx = None;
                    newly += 1;
                } else {
                    deadline = Some(deadline.map_or(due, |d| d.min(due)));
                }
            }
        }
        if self.count(State::Lost) > 0 && self.recovery.is_none() {
            self.recovery = Some(self.nxt());
        }
        (newly, deadline)
    }

    fn time_out(&mut self) {
        if self.bytes.get(self.una as usize).is_some_and(|b| b.state == State::Sacked) {
            self.forget_sacks();
        }
        let una = self.una as usize;
        let mut any = false;
        for b in &mut self.bytes[una..] {
            if b.state != State::Sacked {
                (b.state, b.tx) = (State::Lost, None);
                any = true;
            }
        }
        if any {
            self.recovery = Some(self.nxt());
        }
    }

    fn forget_sacks(&mut self) {
        self.reneged = true;
        let una = self.una as usize;
        for b in &mut self.bytes[una..] {
            if b.state == State::Sacked {
                (b.state, b.tx) = (State::Lost, None);
            }
        }
        if self.count(State::Lost) > 0 && self.recovery.is_none() {
            self.recovery = Some(self.nxt());
        }
    }

    fn undo(&mut self) {
        let una = self.una as usize;
        for b in &mut self.bytes[una..] {
            if b.state == State::Lost && !b.retransmitted {
                (b.state, b.tx) = (State::Flying, Some(b.first_tx));
            }
        }
        self.rack = None;
        if self.count(State::Lost) == 0 {
            self.recovery = None;
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Send(usize, bool),
    /// Advance of the cumulative acknowledgement, and blocks as (start, length) above it, all in percent of
    /// the flight.
    Ack(u8, Vec<(u8, u8)>),
    /// Retransmit the lowest lost, at most so many bytes.
    Repeat(usize),
    /// Retransmit any range, in percent.
    Any(u8, u8),
    TailProbe(usize),
    Wait(u64),
    Deadline,
    TimeOut,
    RecentTimeOut,
    Forget,
    Undo,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1usize..60, any::<bool>()).prop_map(|(n, a)| Op::Send(n, a)),
        8 => (prop_oneof![Just(0u8), 0u8..60], proptest::collection::vec((0u8..100, 0u8..40), 0..4))
            .prop_map(|(a, b)| Op::Ack(a, b)),
        6 => (1usize..80).prop_map(Op::Repeat),
        1 => (0u8..100, 0u8..50).prop_map(|(a, b)| Op::Any(a, b)),
        1 => (1usize..80).prop_map(Op::TailProbe),
        6 => (0u64..60).prop_map(Op::Wait),
        3 => Just(Op::Deadline),
        1 => Just(Op::TimeOut),
        1 => Just(Op::RecentTimeOut),
        1 => Just(Op::Forget),
        1 => Just(Op::Undo),
    ]
}

fn compare(b: &Board, m: &Model) {
    assert_eq!((b.una().0, b.nxt().0), (m.una, m.nxt()));
    assert_eq!(b.lost_bytes(), m.count(State::Lost), "lost");
    assert_eq!(b.sacked_bytes(), m.count(State::Sacked), "sacked");
    assert_eq!(b.in_flight(), m.count(State::Flying), "in flight");
    assert_eq!(b.recovery_point().map(|p| p.0), m.recovery, "recovery");
    let bytes = || (m.una..m.nxt()).map(|at| (at, m.bytes[at as usize]));
    let lowest_lost = bytes().find(|(_, b)| b.state == State::Lost).map(|(at, _)| at);
    assert_eq!(b.next_lost(usize::MAX).map(|c| c.range.start.0), lowest_lost);
    let lowest = bytes().find(|(_, b)| b.state != State::Sacked).map(|(at, _)| at);
    assert_eq!(b.first_unacked(usize::MAX).map(|c| c.range.start.0), lowest);
    let highest = bytes().rfind(|(_, b)| b.state != State::Sacked).map(|(at, _)| at + 1);
    assert_eq!(b.tail_probe(usize::MAX).map(|c| c.range.end.0), highest);
    let oldest = bytes().filter(|(_, b)| b.state == State::Flying).filter_map(|(_, b)| b.tx).min();
    assert_eq!(b.oldest_sent(), oldest.map(|(_, t)| t), "oldest");
    for c in [b.next_lost(7), b.first_unacked(9), b.tail_probe(5)].into_iter().flatten() {
        assert_eq!(c.payload, payload(c.range.start.0, c.payload.len()));
        assert_eq!(c.range.end - c.range.start, c.payload.len() as u64);
        let whole: Vec<_> = b.unacked_iter().filter(|(r, _)| r.contains(&c.range.start)).collect();
        assert!(whole.len() == 1 && whole[0].0.end >= c.range.end && *whole[0].1 == c.tag);
    }
    let mut expected = m.una;
    for (r, _) in b.unacked_iter() {
        assert_eq!(r.start.0, expected);
        expected = r.end.0;
    }
    assert_eq!(expected, m.nxt().max(m.una));
}

fn run(ops: Vec<Op>) {
    const MSS: u32 = 20;
    let rtt = estimator(ms(40));
    let (mut b, mut m) = (Board::new(), Model::default());
    b.set_mss(MSS);
    let mut now = at(1);
    for op in ops {
        let flight = m.nxt() - m.una;
        let percent = |p: u8| m.una + flight * u64::from(p) / 100;
        match op {
            Op::Send(len, app_limited) => {
                let start = b.nxt().0;
                b.push(now, Outgoing::data(payload(start, len), start as u32, app_limited));
                m.push(now, len as u64, app_limited);
            }
            Op::Ack(advance, blocks) => {
                let to = percent(advance);
                let sacks: Vec<_> = blocks
                    .into_iter()
                    .map(|(s, l)| percent(s)..percent(s) + flight * u64::from(l) / 100)
                    .collect();
                let got = ack(&mut b, now, to, &sacks);
                let mut want = m.ack(now, to, &sacks);
                // These are checked rule by rule elsewhere.
                want.dsack = got.dsack;
                want.dsack_range = got.dsack_range.clone();
                want.spurious = got.spurious;
                want.duplicated = got.duplicated;
                if m.reneged {
                    // A range that straddles the highest delivered byte is judged as a whole.
                    want.reordering = got.reordering;
                    m.reordering_seen = b.reordering_seen();
                    m.lateness = b.rack.lateness();
                }
                assert_eq!(got, want);
                assert_eq!(b.reordering_seen(), m.reordering_seen);
            }
            Op::Repeat(len) => {
                if let Some(c) = b.next_lost(len) {
                    assert!(c.payload.len() <= len);
                    m.retransmitted(now, c.range.start.0..c.range.end.0);
                    b.retransmitted(now, c.range);
                }
            }
            Op::Any(from, len) => {
                let r = percent(from)..percent(from) + flight * u64::from(len) / 100;
                m.retransmitted(now, r.clone());
                b.retransmitted(now, range(r));
            }
            Op::TailProbe(len) => {
                if let Some(c) = b.tail_probe(len) {
                    assert!(c.payload.len() <= len);
                    m.retransmitted(now, c.range.start.0..c.range.end.0);
                    b.retransmitted(now, c.range);
                }
            }
            Op::Wait(t) => now += ms(t),
            Op::Deadline => now = b.reorder_deadline().map_or(now, |d| d.max(now)),
            Op::TimeOut => {
                b.mark_all_lost();
                m.time_out();
            }
            Op::RecentTimeOut => {
                let ends: Vec<u64> = b.unacked_iter().map(|(r, _)| r.end.0).collect();
                let (before, quarters) = (m.count(State::Lost), b.rack.multiplier());
                let newly = b.mark_lost_on_rto(now, &rtt);
                m.recent_time_out(now, &rtt, u64::from(MSS), quarters, &ends);
                assert_eq!(newly, m.count(State::Lost) - before);
            }
            Op::Forget => {
                b.forget_sacks();
                m.forget_sacks();
            }
            Op::Undo => {
                b.undo_losses();
                m.undo();
            }
        }
        compare(&b, &m);
        // The adaptation to D-SACKs has its own tests, and so has the end of what was measured.
        let multiplier = b.rack.multiplier();
        m.disordered = b.rack.is_disordered();
        if b.rack.lateness().is_zero() {
            m.lateness = Duration::ZERO;
        }
        let newly = b.detect_loss(now, &rtt);
        assert_eq!((newly, b.reorder_deadline()), m.detect_loss(now, &rtt, u64::from(MSS), multiplier));
        compare(&b, &m);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(512)))]

    #[test]
    fn agrees_with_the_byte_wise_model(ops in proptest::collection::vec(op(), 1..120)) {
        run(ops);
    }
}
