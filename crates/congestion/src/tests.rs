//! Tables of numbers calculated by hand from the papers, and properties of every algorithm.

use crate::*;
use alloc::boxed::Box;
use alloc::vec::Vec;

mod coupled;
mod fluid;
mod plain;
mod properties;
mod validation;

pub(crate) const MSS: u64 = 1_000;
pub(crate) const T0: Instant = Instant::from_millis(5_000);
pub(crate) const A: SubflowId = SubflowId(0);
pub(crate) const B: SubflowId = SubflowId(1);

/// A controller and a clock, so that a test reads like a trace.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) cc: Box<dyn CongestionController>,
    pub(crate) now: Instant,
}

impl Bench {
    /// A controller with `n` subflows of ten segments.
    pub(crate) fn new(name: &str, n: u32) -> Self {
        let mut cc = built_in().create(name).unwrap();
        for id in 0..n {
            cc.subflow_added(T0, SubflowId(id), SubflowParams { mss: MSS as u32, initial_window: 10 * MSS });
        }
        Bench { cc, now: T0 }
    }

    /// Puts a new subflow into congestion avoidance at `segments`, with its window in use, by a loss at twice
    /// that window (at 1/0.7 of it with CUBIC).
    pub(crate) fn avoid(&mut self, id: SubflowId, segments: u64, rtt_ms: u64) {
        let beta = if self.cc.name() == "cubic" { 0.7 } else { 0.5 };
        let before = ((segments * MSS) as f64 / beta + 0.5) as u64;
        self.cc.subflow_added(self.now, id, SubflowParams { mss: MSS as u32, initial_window: before });
        self.cc.on_loss(self.now, id, before);
        // Its round-trip time, and that it has enough to send.
        let sample = AckSample { in_recovery: true, ..self.sample(id, 1, rtt_ms) };
        self.cc.on_ack(self.now, id, &sample);
        let difference = self.cc.window(id) as i64 - (segments * MSS) as i64;
        assert!(difference.abs() <= 1, "{:?}", self.cc);
    }

    /// Slow start up to `bytes`.
    pub(crate) fn start(&mut self, id: SubflowId, bytes: u64, rtt_ms: u64) {
        let missing = bytes - self.cc.window(id);
        self.ack(id, missing, rtt_ms);
        assert_eq!(self.cc.window(id), bytes);
    }

    /// An ACK for `acked` bytes of a full window.
    pub(crate) fn ack(&mut self, id: SubflowId, acked: u64, rtt_ms: u64) {
        let sample = self.sample(id, acked, rtt_ms);
        self.cc.on_ack(self.now, id, &sample);
    }

    pub(crate) fn sample(&self, id: SubflowId, acked: u64, rtt_ms: u64) -> AckSample {
        let rtt = Duration::from_millis(rtt_ms);
        AckSample {
            acked,
            way_back: Duration::ZERO,
            rtt: Some(rtt),
            srtt: rtt,
            min_rtt: rtt,
            in_flight: self.cc.window(id).saturating_sub(acked),
            app_limited: false,
            disordered: false,
            in_recovery: false,
        }
    }

    /// A round trip on one subflow: a full window is sent and acknowledged in `acks` ACKs of equal size.
    pub(crate) fn round(&mut self, id: SubflowId, acks: u64, rtt_ms: u64) {
        let window = self.cc.window(id);
        self.cc.on_sent(self.now, id, window, window);
        self.now += Duration::from_millis(rtt_ms);
        for k in 0..acks {
            let bytes = window * (k + 1) / acks - window * k / acks;
            self.ack(id, bytes, rtt_ms);
        }
        self.cc.on_round(self.now, id);
    }

    pub(crate) fn window(&self, id: SubflowId) -> u64 {
        self.cc.window(id)
    }

    pub(crate) fn ssthresh(&self, id: SubflowId) -> u64 {
        self.cc.ssthresh(id)
    }
}

#[test]
fn registry_knows_them_all_and_takes_more() {
    let mut registry = built_in();
    assert_eq!(DEFAULT_NAME, "lia");
    for name in registry.names() {
        assert_eq!(registry.create(name).unwrap().name(), name);
    }
    assert!(registry.create("bbr").is_none());
    let count = registry.names().count();
    registry.register("lia", || Box::new(Controller::<Reno>::default()));
    assert_eq!(registry.create("lia").unwrap().name(), "reno");
    assert_eq!(registry.names().count(), count);
}

/// The order of `names` is that of registration, and the default comes first.
#[test]
fn the_default_algorithm_comes_first() {
    assert_eq!(built_in().names().collect::<Vec<_>>()[0], DEFAULT_NAME);
}
