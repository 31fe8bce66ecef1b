//! Links whose rate varies as a recording says, in the format of mahimahi (Netravali et al., ATC 2015).

use std::fmt;
use umptcp_types::{Duration, Instant};

/// Bytes that one line of a trace lets pass (mahimahi: a packet of 1500 bytes and its link header).
pub const OPPORTUNITY: u64 = 1504;
/// Most lines of a trace: at 100 Mbit/s, about 10 minutes.
const MOST_LINES: usize = 10_000_000;

/// A recording of when a link could deliver packets. It repeats without end.
#[derive(Clone, PartialEq, Eq)]
pub struct RateTrace {
    /// Milliseconds since the start, not decreasing.
    at: Vec<u64>,
}

impl fmt::Debug for RateTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RateTrace({} opportunities in {} ms)", self.at.len(), self.period())
    }
}

impl RateTrace {
    /// Reads a trace: one number per line, the millisecond at which one packet of 1500 bytes can be
    /// delivered; the same number several times lets several pass. The last one is the length of the
    /// recording. Empty lines are skipped.
    ///
    /// # Errors
    ///
    /// What is wrong, with the number of the line.
    pub fn parse(text: &str) -> Result<RateTrace, String> {
        let mut at: Vec<u64> = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let wrong = |what: &str| format!("line {}: {:?} {what}", number + 1, line.trim());
            let ms: u64 = line.trim().parse().map_err(|_| wrong("is not a whole number of milliseconds"))?;
            if at.last().is_some_and(|last| *last > ms) {
                return Err(wrong("is earlier than the line before"));
            }
            if at.len() == MOST_LINES {
                return Err(wrong("is one line too many: ten million are allowed"));
            }
            at.push(ms);
        }
        if at.last().is_none_or(|last| *last == 0) {
            return Err("the trace has no line with a time after 0".to_string());
        }
        Ok(RateTrace { at })
    }

    /// The recording's length in milliseconds.
    pub fn period(&self) -> u64 {
        self.at.last().copied().unwrap_or(1)
    }

    /// Mean rate in bits per second.
    pub fn mean_rate(&self) -> u64 {
        (self.at.len() as u64 * OPPORTUNITY * 8 * 1000 / self.period()).max(1)
    }

    /// When opportunity number `index`, counted from the start of the first round, comes.
    fn time(&self, index: u64) -> Instant {
        let n = self.at.len() as u64;
        let ms = (index / n).saturating_mul(self.period()).saturating_add(self.at[(index % n) as usize]);
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// The first opportunity at `now` or later.
    fn first_from(&self, now: Instant) -> u64 {
        let ms = now.as_nanos().div_ceil(1_000_000);
        let (round, rest) = (ms / self.period(), ms % self.period());
        // At a multiple of the period the last opportunity of the round before is due, too.
        let round_before = round > 0 && rest == 0;
        let (round, rest) = if round_before { (round - 1, self.period()) } else { (round, rest) };
        round * self.at.len() as u64 + self.at.partition_point(|t| *t < rest) as u64
    }
}

/// How far a link has got with its trace.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TraceState {
    /// The next opportunity.
    next: u64,
    /// Bytes left of the one before, and when that was.
    left: u64,
    at: Instant,
}

impl TraceState {
    /// When `bytes` more have passed that a busy link begins to send at `now`. What an idle link could have
    /// sent is lost.
    pub(crate) fn transmit(&mut self, now: Instant, trace: &RateTrace, bytes: u64) -> Instant {
        if self.at < now {
            self.left = 0;
            self.next = self.next.max(trace.first_from(now));
        }
        let mut need = bytes.saturating_sub(self.left);
        if need == 0 {
            self.left -= bytes;
            return now;
        }
        let whole = need.div_ceil(OPPORTUNITY);
        self.next += whole;
        need = whole * OPPORTUNITY - need;
        self.left = need;
        self.at = trace.time(self.next - 1);
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opportunities_come_when_the_trace_says_and_repeat() {
        let trace = RateTrace::parse("1\n1\n4\n\n10\n").unwrap();
        assert_eq!((trace.period(), trace.mean_rate()), (10, 4 * 1504 * 8 * 100));
        let mut state = TraceState::default();
        let ms = Instant::from_millis;
        let mut now = ms(0);
        let mut done = Vec::new();
        for _ in 0..6 {
            now = state.transmit(now, &trace, 1504);
            done.push(now.as_millis());
        }
        assert_eq!(done, [1, 1, 4, 10, 11, 11]);
        // An idle link loses what it could have sent: the next chance after 22 ms is at 24 ms.
        assert_eq!(state.transmit(ms(22), &trace, 1504), ms(24));
    }

    #[test]
    fn small_packets_share_an_opportunity_and_large_ones_take_several() {
        let trace = RateTrace::parse("5\n6\n7\n").unwrap();
        let mut state = TraceState::default();
        let ms = Instant::from_millis;
        assert_eq!(state.transmit(ms(0), &trace, 500), ms(5));
        assert_eq!(state.transmit(ms(5), &trace, 1004), ms(5));
        assert_eq!(state.transmit(ms(5), &trace, 3000), ms(7));
        assert_eq!(state.transmit(ms(7), &trace, 8), ms(7));
        assert_eq!(state.transmit(ms(7), &trace, 1), ms(12));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, hint) in
            [("1\nx\n", "line 2"), ("5\n4\n", "earlier"), ("", "no line"), ("0\n0\n", "no line")]
        {
            let error = RateTrace::parse(text).unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
    }
}
