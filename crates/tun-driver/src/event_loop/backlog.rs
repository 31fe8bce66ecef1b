//! How much of ours waits in a NIC's own queue, and when that is enough.
//!
//! A TUN device takes whatever is written to it: what the NIC cannot send at once waits in the NIC's queue, where
//! only a loss would end its growth. Acknowledgements of what comes in wait behind it, and every estimate of the
//! path's delay grows with it. Linux's own sockets keep about a millisecond of theirs in that queue (TCP small
//! queues). Here the same: a path is blocked while more than [`SHARE`] of our bytes wait, and more where our thread is
//! woken late.

use crate::device::QueueState;
use std::collections::VecDeque;
use std::time::Duration;
use umptcp_types::Instant;

/// How long our bytes may wait. Twice Linux's millisecond: a thread that is woken by a timer comes later than the
/// interrupt that wakes Linux's sockets. Not more: senders with HyStart end their slow start when acknowledgements come
/// 4 ms later than they did once.
const SHARE: Duration = Duration::from_millis(2);

/// How many times the usual lateness of our thread the share is longer, so that the NIC does not run dry.
const LATENESS: u32 = 4;

/// The most that is added for that.
const LATEST: Duration = Duration::from_millis(14);

/// What may always wait: some packets.
const LEAST: u64 = 32 * 1024;

/// What may wait as long as the NIC's rate is not known.
const AT_FIRST: u64 = 64 * 1024;

/// How often the kernel is asked at most, while packets are sent.
const INTERVAL: Duration = Duration::from_micros(500);

/// The share of the time that asking may take: on a host with many NICs it takes longer.
const ASKING: u32 = 100;

/// The longest time between two questions while packets are sent.
const RARELY: Duration = Duration::from_millis(20);

/// The same for a NIC that has no queue: it may get one.
const WITHOUT_QUEUE: Duration = Duration::from_secs(1);

/// The time over which the NIC's rate is measured.
const MEASURED: Duration = Duration::from_millis(4);

/// The same for the first time: until then little may wait, and a slow start fills the queue meanwhile.
const MEASURED_FIRST: Duration = Duration::from_millis(1);

/// A rate that was not measured again for so long is forgotten: links change their speed.
const STALE: Duration = Duration::from_secs(5);

/// Rates that differ by less than this part are about the same.
const NEAR: f64 = 8.0;

/// Marks that are kept. With one per [`INTERVAL`] they reach back half a second.
const MARKS: usize = 1024;

/// When as many bytes have left the queue as there were in it and before it, what was written until then is out.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Sent and waiting, of everybody.
    end: u64,
    /// Written by us by then.
    written: u64,
}

/// How fast the NIC is, for the stack.
#[derive(Debug, Default)]
struct Line {
    /// Bytes per second, and when that was seen last.
    rate: Option<f64>,
    at: Instant,
    /// What the kernel answered last.
    last: Option<QueueState>,
    /// Since when the queue has not been empty for sure, and what had left it by then.
    busy: Option<(Instant, u64)>,
    /// Some milliseconds ago, and what had left it by then.
    base: Option<(Instant, u64)>,
}

/// What is known of the queue behind one path.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Bytes that we have written.
    written: u64,
    /// Those of them that have left the queue for sure.
    out: u64,
    marks: VecDeque<Mark>,
    looked: Option<(Instant, u64)>,
    has_queue: bool,
    /// How much more could be written when the kernel was asked.
    room: u64,
    /// How long asking takes, at least: a thread that lost the processor meanwhile took longer.
    cost: Duration,
    /// Since when the queue has not been empty, and what had left it by then.
    busy: Option<(Instant, u64)>,
    /// Bytes per second that leave it while it is not empty.
    rate: Option<f64>,
    line: Line,
    /// The rate that the stack was told.
    told: Option<f64>,
    blocked_until: Option<Instant>,
    /// How much later than asked for our thread came when the path was blocked, smoothed.
    late: Duration,
}

impl Backlog {
    /// A packet was written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// Whether the kernel should be asked.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let Some((looked, written)) = self.looked else { return true };
        let interval = if self.has_queue { self.interval() } else { WITHOUT_QUEUE };
        let since = self.written - written;
        // A window that opens lets many packets go at once.
        since > 0 && (now - looked >= interval || self.has_queue && since >= self.room)
    }

    fn share(&self) -> Duration {
        SHARE + (self.late * LATENESS).min(LATEST)
    }

    fn interval(&self) -> Duration {
        (self.cost * ASKING).clamp(INTERVAL, RARELY)
    }

    /// Until when nothing more may be sent; `None` if it may.
    pub(super) fn blocked_until(&self) -> Option<Instant> {
        self.blocked_until
    }

    /// The rate, in bytes per second, if it is not about what it was when this was asked last.
    pub(super) fn new_rate(&mut self) -> Option<Option<u64>> {
        let is_near = match (self.line.rate, self.told) {
            (None, None) => true,
            (Some(rate), Some(told)) => (rate - told).abs() < told / NEAR,
            _ => false,
        };
        if is_near {
            return None;
        }
        self.told = self.line.rate;
        Some(self.told.map(|rate| rate as u64))
    }

    /// Takes the kernel's answer, which came after `cost`. Returns whether the path is blocked.
    pub(super) fn look(&mut self, now: Instant, cost: Duration, state: Option<QueueState>) -> bool {
        // It grows again when the host gets more NICs.
        self.cost = if self.looked.is_none() {
            cost
        } else {
            cost.min(self.cost + self.cost / 16 + Duration::from_nanos(100))
        };
        self.looked = Some((now, self.written));
        self.has_queue = state.is_some();
        let Some(state) = state else {
            *self = Backlog {
                written: self.written,
                looked: self.looked,
                cost: self.cost,
                told: self.told,
                ..Backlog::default()
            };
            return false;
        };
        if let Some(until) = self.blocked_until.take()
            && now >= until
        {
            self.late = (self.late * 7 + now.saturating_duration_since(until)) / 8;
        }
        self.measure(now, state);
        self.measure_line(now, state);
        let ours = self.ours(state);
        let allowed = self.allowed(state.waiting - ours);
        self.room = allowed.saturating_sub(ours);
        self.blocked_until = (ours > allowed).then(|| {
            let rate = self.rate.unwrap_or(f64::INFINITY).max(1.0);
            let wait = Duration::from_secs_f64((ours - allowed / 2) as f64 / rate);
            now + wait.clamp(self.interval(), self.share().max(self.interval()))
        });
        self.blocked_until.is_some()
    }

    /// How much of what waits is ours, if packets leave in the order in which they came.
    fn ours(&mut self, state: QueueState) -> u64 {
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.end <= state.sent) {
            self.out = mark.written;
        }
        // Another queue than before: its counters begin anew.
        if self.marks.front().is_some_and(|mark| mark.end > state.sent + state.waiting) {
            self.marks.clear();
            self.out = self.written;
        }
        if self.marks.len() == MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark { end: state.sent + state.waiting, written: self.written });
        (self.written - self.out).min(state.waiting)
    }

    /// How much of ours may wait: no more than others have there, where they fill it.
    fn allowed(&self, others: u64) -> u64 {
        // Where asking is rare, the NIC must have enough until the next time.
        let time = self.share().max(self.interval() * 2);
        let share = self.rate.map_or(AT_FIRST, |rate| (rate * time.as_secs_f64()) as u64);
        share.max(LEAST).max(others)
    }

    fn measure(&mut self, now: Instant, state: QueueState) {
        if state.waiting == 0 {
            // It could have sent more.
            if let Some((since, sent)) = self.busy.take().filter(|(since, _)| now - *since >= MEASURED) {
                let least = state.sent.saturating_sub(sent) as f64 / (now - since).as_secs_f64();
                self.rate = self.rate.map(|rate| rate.max(least)).or(Some(least));
            }
            return;
        }
        let (since, sent) = *self.busy.get_or_insert((now, state.sent));
        let time = now - since;
        if state.sent < sent {
            self.busy = Some((now, state.sent));
        } else if time >= if self.rate.is_some() { MEASURED } else { MEASURED_FIRST } {
            let measured = (state.sent - sent) as f64 / time.as_secs_f64();
            self.rate = Some(self.rate.map_or(measured, |rate| rate + (measured - rate) / 4.0));
            self.busy = Some((now, state.sent));
        }
    }

    /// What the stack is told. The rate above decides how much may wait, where it does little harm if it is too low for
    /// a while; schedulers would leave a path for it. So only spells count during which the queue was never empty for
    /// sure, and what has left while it was not.
    fn measure_line(&mut self, now: Instant, state: QueueState) {
        let line = &mut self.line;
        if now - line.at > STALE {
            line.rate = None;
        }
        let before = line.last.replace(state);
        let (since, sent) = *line.base.get_or_insert((now, state.sent));
        if state.sent < sent {
            line.base = Some((now, state.sent));
        } else if now - since >= MEASURED {
            let least = (state.sent - sent) as f64 / (now - since).as_secs_f64();
            line.base = Some((now, state.sent));
            if state.waiting == 0 && line.rate.is_some_and(|rate| rate < least) {
                line.rate = Some(least);
                line.at = now;
            }
        }
        // What had waited then has not all left.
        let never_empty = before.is_some_and(|b| state.sent >= b.sent && state.sent - b.sent < b.waiting);
        let Some((since, sent)) = line.busy.filter(|_| never_empty) else {
            line.busy = (state.waiting > 0).then_some((now, state.sent));
            return;
        };
        if now - since < MEASURED {
            return;
        }
        line.busy = Some((now, state.sent));
        // A link that stands still for a moment has not become slow.
        if state.sent > sent {
            let measured = (state.sent - sent) as f64 / (now - since).as_secs_f64();
            line.rate = Some(line.rate.map_or(measured, |rate| rate + (measured - rate) / 4.0));
            line.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Duration = Duration::from_micros(3);

    /// A NIC that sends `rate` bytes per second, and everything that is written to it.
    struct Nic {
        rate: f64,
        state: QueueState,
        at: Instant,
        cost: Duration,
        /// How much later than asked for the thread is woken.
        late: Duration,
    }

    impl Nic {
        fn new(rate: f64) -> Nic {
            Nic { rate, state: QueueState::default(), at: Instant::ZERO, cost: COST, late: Duration::ZERO }
        }

        fn advance(&mut self, now: Instant) {
            let out = (((now - self.at).as_secs_f64() * self.rate) as u64).min(self.state.waiting);
            self.at = now;
            self.state.sent += out;
            self.state.waiting -= out;
        }
    }

    /// Writes as much as it may for a second, beside others that keep `others` bytes in the queue. Returns the
    /// most that waited in the last half, and how much of ours was sent.
    fn greedy(nic: &mut Nic, backlog: &mut Backlog, others: u64) -> (u64, u64) {
        let (mut most, start, from) = (0, backlog.written, nic.at);
        let mut foreign = VecDeque::from([(0, 0)]);
        let mut theirs = 0;
        for step in 1..=10_000_u64 {
            let now = from + Duration::from_micros(step * 100);
            nic.advance(now);
            while foreign.len() > 1 && foreign[1].0 <= nic.state.sent {
                foreign.pop_front();
            }
            // They write again as much of theirs as has left.
            let waiting = theirs - foreign[0].1;
            if waiting < others {
                nic.state.waiting += others - waiting;
                theirs += others - waiting;
                foreign.push_back((nic.state.sent + nic.state.waiting, theirs));
            }
            let blocked = backlog.blocked_until().is_some_and(|until| now < until + nic.late)
                || (backlog.blocked_until().is_some() && backlog.look(now, nic.cost, Some(nic.state)));
            if !blocked {
                backlog.wrote(15_000);
                nic.state.waiting += 15_000;
                if backlog.is_due(now) {
                    backlog.look(now, nic.cost, Some(nic.state));
                }
            }
            if step > 5_000 {
                most = most.max(nic.state.waiting);
            }
        }
        (most, backlog.written - start)
    }

    /// Bursts that the NIC sends at once, far apart: how fast they leave is not seen, and nothing must be made of it.
    #[test]
    fn a_queue_that_is_looked_at_rarely_is_not_taken_for_a_slow_one() {
        let (mut nic, mut backlog) = (Nic::new(37.5e6), Backlog::default());
        for burst in 1..100 {
            let now = Instant::from_millis(burst * 50);
            nic.advance(now);
            backlog.wrote(20_000);
            nic.state.waiting += 20_000;
            backlog.look(now, COST, Some(nic.state));
        }
        assert_eq!(backlog.new_rate(), None);
    }

    /// The link stands still for a while, becomes ten times faster, and is not used much.
    #[test]
    fn a_rate_recovers_and_is_forgotten() {
        let (mut nic, mut backlog) = (Nic::new(3e6), Backlog::default());
        greedy(&mut nic, &mut backlog, 0);
        let before = backlog.line.rate.unwrap();
        nic.rate = 0.0;
        greedy(&mut nic, &mut backlog, 0);
        assert!(backlog.line.rate.unwrap() > before * 0.9, "standing still is no rate");
        // Another bottleneck keeps the queue empty.
        nic.rate = 1e9;
        let start = nic.at;
        for ms in 1..100 {
            let now = start + Duration::from_millis(ms);
            nic.advance(now);
            backlog.wrote(30_000);
            nic.state.sent += 30_000;
            backlog.look(now, COST, Some(nic.state));
        }
        assert!(backlog.line.rate.unwrap() > 25e6, "{:?}", backlog.line.rate);
        let later = start + Duration::from_secs(10);
        backlog.look(later, COST, Some(nic.state));
        assert_eq!(backlog.line.rate, None);
    }

    #[test]
    fn the_rate_is_told_when_it_changes() {
        let (mut nic, mut backlog) = (Nic::new(0.0), Backlog::default());
        assert_eq!(backlog.new_rate(), None, "not known");
        for mbit in [300.0, 30.0] {
            let rate = mbit * 1e6 / 8.0;
            nic.rate = rate;
            greedy(&mut nic, &mut backlog, 0);
            let told = backlog.new_rate().flatten().unwrap() as f64;
            assert!((told - rate).abs() < rate / 10.0, "{told} instead of {rate}");
            assert_eq!(backlog.new_rate(), None, "told already");
        }
        backlog.look(Instant::from_millis(100_000), COST, None);
        assert_eq!(backlog.new_rate(), Some(None), "there is no queue any more");
    }

    #[test]
    fn the_queue_stays_short_and_never_runs_dry() {
        let cases = [5.0, 50.0, 300.0, 1000.0].map(|mbit| (mbit, COST, 0.003));
        // A host with a thousand NICs.
        let slow = (300.0, Duration::from_millis(1), 0.041);
        for (mbit, cost, longest) in cases.into_iter().chain([slow]) {
            let rate = mbit * 1e6 / 8.0;
            let (mut nic, mut backlog) = (Nic::new(rate), Backlog::default());
            nic.cost = cost;
            let (most, written) = greedy(&mut nic, &mut backlog, 0);
            let bound = (rate * longest).max(LEAST as f64) + 150_000.0;
            assert!((most as f64) < bound, "{mbit} Mbit/s: {most} bytes wait");
            // As long as the rate is not known, little is allowed.
            let start = if cost == COST { 0.01 } else { 0.03 };
            assert!(
                written as f64 > rate * (1.0 - start),
                "{mbit} Mbit/s: {written} of {rate} bytes were sent"
            );
        }
    }

    #[test]
    fn a_thread_that_is_woken_late_keeps_more_in_the_queue_and_less_again_when_it_is_not() {
        let (mut nic, mut backlog) = (Nic::new(37.5e6), Backlog::default());
        nic.late = Duration::from_millis(6);
        greedy(&mut nic, &mut backlog, 0);
        let (most, written) = greedy(&mut nic, &mut backlog, 0);
        assert!(written as f64 > 37.5e6 * 0.99, "{written} of 37.5 MB were sent");
        assert!((most as f64) < 37.5e6 * 0.017 + 150_000.0, "{most} bytes wait");
        nic.late = Duration::ZERO;
        let most = (0..16).map(|_| greedy(&mut nic, &mut backlog, 0).0).last().expect("some");
        assert!((most as f64) < 37.5e6 * 0.003 + 150_000.0, "{most} bytes wait");
    }

    #[test]
    fn beside_others_that_fill_the_queue_it_gets_its_part() {
        let (mut nic, mut backlog) = (Nic::new(10e6), Backlog::default());
        let (_, written) = greedy(&mut nic, &mut backlog, 500_000);
        assert!((3_500_000..7_000_000).contains(&written), "{written} of 10 MB");
    }

    #[test]
    fn a_nic_without_a_queue_never_blocks_and_is_asked_rarely() {
        let mut backlog = Backlog::default();
        let second = |n: u64| Instant::ZERO + Duration::from_secs(n);
        assert!(backlog.is_due(second(1)));
        backlog.wrote(1 << 30);
        assert!(!backlog.look(second(1), COST, None));
        backlog.wrote(1 << 30);
        assert!(!backlog.is_due(second(1) + Duration::from_millis(900)) && backlog.is_due(second(2)));
    }

    #[test]
    fn a_queue_that_is_replaced_is_learnt_anew() {
        let mut backlog = Backlog::default();
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
        backlog.wrote(1_000_000);
        assert!(backlog.look(at(1), COST, Some(QueueState { sent: 5_000_000, waiting: 1_000_000 })));
        assert!(!backlog.look(at(2), COST, Some(QueueState { sent: 10, waiting: 100 })));
        backlog.wrote(1_000_000);
        assert!(backlog.look(at(3), COST, Some(QueueState { sent: 10, waiting: 1_000_100 })));
    }
}
