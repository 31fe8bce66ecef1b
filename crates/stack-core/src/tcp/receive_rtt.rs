//! The round-trip time as a receiver sees it, who sends nothing that would be acknowledged: from the timestamps
//! that the peer echoes with its data (Fisk and Feng 2001; as Linux's tcp_rcv_rtt_measure_ts).

use umptcp_types::{Duration, Instant};

/// For so long a measurement counts. Then the queue that it may have seen has emptied.
const VALID: Duration = Duration::from_secs(10);

/// The round-trip time of a subflow that receives.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveRtt {
    /// Smoothed, in nanoseconds; 0: none yet.
    smoothed: u64,
    measured: Instant,
    /// When payload last came.
    heard: Instant,
    /// The echo that came with it.
    echo: u32,
}

impl ReceiveRtt {
    /// Nothing has come.
    pub(super) const fn new() -> Self {
        ReceiveRtt { smoothed: 0, measured: Instant::ZERO, heard: Instant::ZERO, echo: 0 }
    }

    /// Payload has come, with an `echo` of our clock that is so old.
    ///
    /// Only the first data that echo a timestamp tell of it; and nothing after a pause does, because then what
    /// they took so long for may be that the peer had nothing to send.
    pub(super) fn on_payload(&mut self, now: Instant, echo: u32, age: Duration) {
        let pause = now.saturating_duration_since(core::mem::replace(&mut self.heard, now));
        if core::mem::replace(&mut self.echo, echo) == echo || pause > age / 2 {
            return;
        }
        // The timestamp clock counts milliseconds.
        let sample = age.clamp(Duration::from_millis(1), super::rtt::MAX_RTO).as_nanos() as u64;
        self.smoothed = match self.smoothed {
            0 => sample,
            before => before - before / 8 + sample / 8,
        };
        self.measured = now;
    }

    /// Smoothed, if it has been measured lately.
    pub(super) fn get(&self, now: Instant) -> Option<Duration> {
        let fresh = self.smoothed > 0 && now.saturating_duration_since(self.measured) <= VALID;
        fresh.then(|| Duration::from_nanos(self.smoothed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn data_that_follow_one_another_tell_and_those_after_a_pause_do_not() {
        let ms = Duration::from_millis;
        let mut r = ReceiveRtt::new();
        r.on_payload(at(1000), 5, ms(100));
        assert_eq!(r.get(at(1000)), None, "the peer may have had nothing to send");
        r.on_payload(at(1010), 6, ms(100));
        assert_eq!(r.get(at(1010)), Some(ms(100)));
        r.on_payload(at(1020), 6, ms(900));
        assert_eq!(r.get(at(1020)), Some(ms(100)), "the same echo again");
        r.on_payload(at(1030), 7, ms(180));
        assert_eq!(r.get(at(1030)), Some(ms(110)));
        r.on_payload(at(1500), 8, ms(500));
        assert_eq!(r.get(at(11_030)), Some(ms(110)));
        assert_eq!(r.get(at(11_031)), None, "too old");
        let mut r = ReceiveRtt::new();
        r.on_payload(at(0), 1, ms(0));
        assert_eq!(r.get(at(0)), Some(ms(1)), "no finer than the clock");
    }
}
