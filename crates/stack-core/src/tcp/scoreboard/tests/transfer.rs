//! Whole transfers over a network that loses, delays, reorders and duplicates packets, with the parts of loss
//! recovery and the receiver's reassembly put together as a subflow does.

use super::*;
use crate::buffers::reassembly::Reassembly;
use crate::tcp::prr::Prr;
use crate::tcp::rtt::pto;
use alloc::collections::BTreeMap;
use proptest::prelude::*;

const MSS: usize = 100;
const WINDOW: u64 = 40 * MSS as u64;

#[derive(Clone, Debug)]
struct Network {
    seed: u64,
    /// Per thousand, each way.
    loss: u64,
    duplication: u64,
    /// Packets delayed by `jitter` at most.
    reordering: u64,
    delay_ms: u64,
    jitter_ms: u64,
    /// Payload of a segment before it is split.
    segment: usize,
    /// Packets per millisecond that leave the bottleneck, whose queue holds 60.
    rate: u64,
    timestamps: bool,
    /// No packet passes during these milliseconds.
    blackout: Range<u64>,
}

enum Event {
    Data { start: u64, bytes: Bytes, sent: Instant },
    Ack { ack: u64, sacks: Vec<Range<u64>>, echo: Instant },
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n.max(1)
    }

    fn thousandths(&mut self, n: u64) -> bool {
        self.below(1_000) < n
    }
}

struct Transfer {
    net: Network,
    random: Random,
    now: Instant,
    queue: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    bottleneck_free: Instant,
    // Sender.
    board: Board,
    rtt: RttEstimator,
    prr: Prr,
    window: u64,
    budget: u64,
    rto_at: Option<Instant>,
    probe_at: Option<Instant>,
    total: u64,
    dropped: u64,
    repeated: u64,
    time_outs: u32,
    // Receiver.
    reassembly: Reassembly,
    expected: u64,
    echo: Instant,
    received: u64,
}

impl Transfer {
    fn new(net: Network, total: u64) -> Self {
        let mut board = Board::new();
        board.set_mss(MSS as u32);
        let now = at(1_000);
        let rtt = estimator(ms(2 * net.delay_ms));
        Transfer {
            random: Random(net.seed | 1),
            now,
            queue: BTreeMap::new(),
            serial: 0,
            bottleneck_free: now,
            board,
            rtt,
            prr: Prr::new(),
            window: WINDOW,
            budget: 0,
            rto_at: None,
            probe_at: None,
            total,
            dropped: 0,
            repeated: 0,
            time_outs: 0,
            reassembly: Reassembly::new(),
            expected: 0,
            echo: now,
            received: 0,
            net,
        }
    }

    fn pass(&mut self, event: Event) {
        let dark = at(1_000) + ms(self.net.blackout.start)..at(1_000) + ms(self.net.blackout.end);
        if self.random.thousandths(self.net.loss) || dark.contains(&self.now) {
            self.dropped += 1;
            return;
        }
        let mut leaves = self.now;
        if matches!(event, Event::Data { .. }) {
            let slot = Duration::from_micros(1_000 / self.net.rate);
            if self.bottleneck_free > self.now + slot * 60 {
                self.dropped += 1;
                return;
            }
            self.bottleneck_free = self.bottleneck_free.max(self.now) + slot;
            leaves = self.bottleneck_free;
        }
        let mut arrives = leaves + ms(self.net.delay_ms);
        if self.random.thousandths(self.net.reordering) {
            arrives += ms(self.random.below(self.net.jitter_ms + 1));
        }
        if self.random.thousandths(self.net.duplication)
            && let Event::Data { start, bytes, sent } = &event
        {
            let copy = Event::Data { start: *start, bytes: bytes.clone(), sent: *sent };
            self.schedule(arrives + ms(1), copy);
        }
        self.schedule(arrives, event);
    }

    fn schedule(&mut self, when: Instant, event: Event) {
        self.serial += 1;
        self.queue.insert((when, self.serial), event);
    }

    /// What GSO does: splits a segment into packets.
    fn transmit(&mut self, start: u64, payload: &Payload) {
        let bytes = payload.to_bytes();
        for from in (0..bytes.len()).step_by(MSS) {
            let to = (from + MSS).min(bytes.len());
            let sent = self.now;
            self.pass(Event::Data { start: start + from as u64, bytes: bytes.slice(from..to), sent });
        }
    }

    fn repeat(&mut self, chunk: Chunk<u32>) {
        assert_eq!(chunk.payload, payload(chunk.range.start.0, chunk.payload.len()));
        self.repeated += chunk.payload.len() as u64;
        self.prr.on_sent(chunk.payload.len() as u64);
        self.board.retransmitted(self.now, chunk.range.clone());
        self.transmit(chunk.range.start.0, &chunk.payload);
    }

    fn send_all(&mut self) {
        loop {
            let room = if self.prr.is_active() {
                self.budget
            } else {
                self.window.saturating_sub(self.board.in_flight())
            };
            let limit = (room as usize).min(self.net.segment);
            if limit < MSS {
                break;
            }
            let sent = if let Some(chunk) = self.board.next_lost(limit) {
                let len = chunk.payload.len();
                self.repeat(chunk);
                len
            } else if self.board.nxt().0 < self.total {
                let start = self.board.nxt().0;
                let len = limit.min((self.total - start) as usize);
                let r = send(&mut self.board, self.now, len);
                self.prr.on_sent(len as u64);
                self.transmit(r.start, &payload(r.start, len));
                len
            } else {
                break;
            };
            self.budget = self.budget.saturating_sub(sent as u64);
        }
        if self.rto_at.is_none() && !self.board.is_empty() {
            self.arm();
        }
    }

    fn arm(&mut self) {
        self.rto_at = (!self.board.is_empty()).then(|| self.now + self.rtt.rto());
        let quiet = !self.board.in_recovery() && self.board.sacked_bytes() == 0;
        let probe = pto(self.rtt.srtt(), self.board.in_flight(), MSS as u32, Duration::ZERO, self.rtt.rto());
        self.probe_at = (quiet && !self.board.is_empty()).then(|| self.now + probe);
    }

    fn after_detection(&mut self, delivered: u64, safe: bool) {
        if self.board.in_recovery() && !self.board.in_rto_recovery() {
            if !self.prr.is_active() {
                let flight = self.board.recovery_flight(delivered);
                self.prr.enter(flight, (self.window / 2).max(2 * MSS as u64));
            }
            self.budget = self.prr.on_ack(delivered, self.board.in_flight(), safe, MSS as u32);
        } else if self.prr.is_active() {
            // The window stays as it was: this test is about recovery, not about congestion control.
            self.prr.exit();
        }
        if !self.prr.is_active() {
            // Slow start after a time-out.
            self.window = (self.window + delivered).min(WINDOW);
        }
    }

    fn on_ack(&mut self, to: u64, sacks: &[Range<u64>], echo: Instant) {
        let echo_rtt = self.net.timestamps.then(|| {
            // A clock of one millisecond, as RFC 7323 has it at its finest.
            Duration::from_millis(self.now.as_millis() - echo.as_millis())
        });
        let sacks: Vec<_> = sacks.iter().cloned().map(range).collect();
        let in_flight = self.board.in_flight();
        let out = self.board.on_ack(self.now, SubflowOffset(to), &sacks, echo_rtt);
        assert!(
            out.delivered <= self.total && self.board.in_flight() <= in_flight + self.board.sacked_bytes()
        );
        if let Some(rtt) = out.rtt {
            assert!(rtt >= ms(2 * self.net.delay_ms) || self.net.timestamps, "{rtt:?} is impossible");
            self.rtt.sample(self.now, rtt);
        }
        if out.spurious.is_some() {
            self.window = WINDOW;
            self.board.undo_losses();
        }
        let newly = self.board.detect_loss(self.now, &self.rtt);
        self.after_detection(out.delivered, out.cumulative > 0 && newly == 0);
        if out.cumulative > 0 {
            self.arm();
        }
    }

    fn on_data(&mut self, start: u64, bytes: Bytes, sent: Instant) {
        if start <= self.expected {
            // RFC 7323 §4.3: the echo is that of the segment that advanced the left edge.
            self.echo = sent;
        }
        let inserted = self.reassembly.insert(self.expected, start, bytes, u64::MAX);
        while let Some(b) = self.reassembly.pop(self.expected) {
            for (i, &byte) in b.iter().enumerate() {
                assert_eq!(byte, byte_at(self.expected + i as u64));
            }
            self.expected += b.len() as u64;
            self.received += b.len() as u64;
        }
        let mut sacks: Vec<_> = inserted.duplicate.into_iter().collect();
        let rest = 3 - sacks.len();
        sacks.extend(self.reassembly.sack_blocks(rest));
        let (ack, echo) = (self.expected, self.echo);
        self.pass(Event::Ack { ack, sacks, echo });
    }

    fn on_timers(&mut self) {
        if self.board.reorder_deadline().is_some_and(|t| t <= self.now) {
            self.board.detect_loss(self.now, &self.rtt);
            self.after_detection(0, false);
        }
        if self.probe_at.is_some_and(|t| t <= self.now) {
            self.probe_at = None;
            if let Some(chunk) = self.board.tail_probe(MSS) {
                self.repeat(chunk);
            }
            self.rto_at = Some(self.now + self.rtt.rto());
        }
        if self.rto_at.is_some_and(|t| t <= self.now) {
            self.time_outs += 1;
            self.rtt.back_off();
            // RFC 5681 §3.1: the loss window.
            self.window = MSS as u64;
            self.prr.exit();
            self.board.mark_lost_on_rto(self.now, &self.rtt);
            self.arm();
            self.probe_at = None;
        }
    }

    fn next_time(&self) -> Option<Instant> {
        let arrival = self.queue.first_key_value().map(|(&(t, _), _)| t);
        [arrival, self.board.reorder_deadline(), self.probe_at, self.rto_at].into_iter().flatten().min()
    }

    /// Runs to the end and returns how long it took.
    fn run(mut self) -> (Duration, Transfer) {
        let begin = self.now;
        for _ in 0..2_000_000 {
            self.send_all();
            if self.board.una().0 == self.total {
                assert!(self.board.is_empty() && self.board.in_flight() == 0 && self.board.lost_bytes() == 0);
                assert_eq!(self.received, self.total);
                return (self.now - begin, self);
            }
            let next = self.next_time().expect("something must be pending");
            assert!(
                next >= self.now || self.queue.first_key_value().is_none_or(|(&(t, _), _)| t >= self.now)
            );
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                match entry.remove() {
                    Event::Data { start, bytes, sent } => self.on_data(start, bytes, sent),
                    Event::Ack { ack, sacks, echo } => self.on_ack(ack, &sacks, echo),
                }
            }
            self.on_timers();
        }
        panic!("no end in sight at {:?}: una {:?}", self.now, self.board.una());
    }
}

fn quiet() -> Network {
    Network {
        seed: 1,
        loss: 0,
        duplication: 0,
        reordering: 0,
        delay_ms: 20,
        jitter_ms: 0,
        segment: MSS,
        rate: 1,
        timestamps: true,
        blackout: 0..0,
    }
}

#[test]
fn without_loss_nothing_is_repeated_and_the_link_is_full() {
    for segment in [MSS, 7 * MSS, 1_050] {
        let (took, t) = Transfer::new(Network { segment, ..quiet() }, 100_000).run();
        assert_eq!((t.repeated, t.dropped, t.time_outs), (0, 0, 0));
        // 1000 packets of one millisecond each.
        assert!(took < ms(1_200), "{took:?}");
    }
}

#[test]
fn isolated_losses_are_repaired_without_time_outs_and_only_once() {
    for seed in 1..20 {
        let net = Network { seed, loss: 10, segment: 8 * MSS, ..quiet() };
        let (_, t) = Transfer::new(net, 200_000).run();
        assert!(t.dropped > 5);
        assert!(t.time_outs <= 1, "seed {seed}: {} time-outs", t.time_outs);
        // ACKs are lost as well, so at most what was dropped needs repeating, and a probe or two.
        assert!(t.repeated <= (t.dropped + 4) * MSS as u64, "seed {seed}: {} for {}", t.repeated, t.dropped);
    }
}

#[test]
fn mild_reordering_is_learned() {
    // Up to 8 ms of extra delay; a quarter of the round-trip time is 10 ms.
    let mut repeated = 0;
    for seed in 1..20 {
        let net = Network { seed, reordering: 100, jitter_ms: 8, ..quiet() };
        let (_, t) = Transfer::new(net, 200_000).run();
        assert_eq!(t.time_outs, 0, "seed {seed}");
        repeated += t.repeated;
    }
    // Without RACK's window each of about 4000 late packets would be repeated.
    assert!(repeated < 20 * 10 * MSS as u64, "{repeated}");
}

#[test]
fn a_lost_tail_is_repaired_by_a_probe() {
    // The last packets vanish; then the path works again before the time-out of at least 240 ms.
    let net = Network { blackout: 95..115, ..quiet() };
    let (took, t) = Transfer::new(net, 11_000).run();
    assert_eq!(t.time_outs, 0);
    assert!(t.dropped > 0 && took < ms(500), "{took:?}");
}

#[test]
fn a_long_blackout_ends_in_a_time_out_and_recovers() {
    let net = Network { blackout: 300..1_500, segment: 8 * MSS, ..quiet() };
    let (took, t) = Transfer::new(net, 100_000).run();
    assert!(t.time_outs >= 2 && took < Duration::from_secs(5), "{} {took:?}", t.time_outs);
    // At most a window twice over, and some probes.
    assert!(t.repeated < 3 * 40 * MSS as u64, "{}", t.repeated);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(128)))]

    #[test]
    fn every_byte_arrives(
        seed in 1u64..u64::MAX,
        loss in prop_oneof![0u64..30, 0u64..300],
        duplication in 0u64..200,
        reordering in 0u64..500,
        (delay_ms, jitter_ms) in (1u64..80, 0u64..100),
        segment in MSS..2_000usize,
        rate in 1u64..20,
        timestamps in any::<bool>(),
        (from, length) in (0u64..1_000, prop_oneof![Just(0u64), 0u64..2_000]),
    ) {
        let net = Network {
            seed, loss, duplication, reordering, delay_ms, jitter_ms, segment, rate, timestamps,
            blackout: from..from + length,
        };
        Transfer::new(net, 30_000).run();
    }
}
