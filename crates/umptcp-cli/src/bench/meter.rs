//! Rates computed from periodic counter readings.

use crate::transport::Subflow;
use crate::units;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Rates over one interval, in bits per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Interval {
    /// End of the interval, seconds since the start.
    pub(crate) seconds: f64,
    pub(crate) up: f64,
    pub(crate) down: f64,
    pub(crate) subflows: Vec<SubflowRate>,
}

/// The rates of one subflow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SubflowRate {
    pub(crate) id: u32,
    pub(crate) path: String,
    pub(crate) up: f64,
    pub(crate) down: f64,
    pub(crate) stale: bool,
}

/// The previous reading.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    seconds: f64,
    up: u64,
    down: u64,
    subflows: BTreeMap<u32, (u64, u64)>,
}

impl Meter {
    /// The rates since the previous reading. `up` and `down` count bytes since the start, as do the subflows'
    /// counters.
    pub(crate) fn look(&mut self, seconds: f64, up: u64, down: u64, subflows: &[Subflow]) -> Interval {
        let elapsed = (seconds - self.seconds).max(1e-9);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 * 8.0 / elapsed;
        let rates = subflows
            .iter()
            .map(|s| {
                let (sent, received) = self.subflows.get(&s.id).copied().unwrap_or_default();
                SubflowRate {
                    id: s.id,
                    path: s.path.clone(),
                    up: rate(s.bytes_sent, sent),
                    down: rate(s.bytes_received, received),
                    stale: s.stale,
                }
            })
            .collect();
        let interval =
            Interval { seconds, up: rate(up, self.up), down: rate(down, self.down), subflows: rates };
        *self = Meter {
            seconds,
            up,
            down,
            subflows: subflows.iter().map(|s| (s.id, (s.bytes_sent, s.bytes_received))).collect(),
        };
        interval
    }
}

impl Interval {
    /// A one-line description: the directions in use, then each subflow.
    pub(crate) fn line(&self, up: bool, down: bool) -> String {
        let mut line = format!("{:7.1} s", self.seconds);
        if up {
            let _ = write!(line, "   up {:>12}", units::rate(self.up));
        }
        if down {
            let _ = write!(line, "   down {:>12}", units::rate(self.down));
        }
        for s in &self.subflows {
            let rate = match (up, down) {
                (true, true) => format!("{} + {}", units::rate(s.up), units::rate(s.down)),
                (true, false) => units::rate(s.up),
                _ => units::rate(s.down),
            };
            let _ = write!(line, "   {} {rate:>12}{}", s.path, if s.stale { " (silent)" } else { "" });
        }
        line
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn subflow(id: u32, path: &str, sent: u64) -> Subflow {
        Subflow {
            id,
            path: path.to_owned(),
            local: "10.0.0.1:1".parse().unwrap(),
            remote: "10.0.0.2:2".parse().unwrap(),
            state: "ESTABLISHED".to_owned(),
            backup: false,
            stale: false,
            bytes_sent: sent,
            bytes_received: 0,
            bytes_retransmitted: 0,
            srtt_ms: None,
            window: 0,
        }
    }

    #[test]
    fn rates_are_differences_over_time() {
        let mut meter = Meter::default();
        let first = meter.look(1.0, 1000, 0, &[subflow(0, "nic0", 1000)]);
        assert_eq!((first.up, first.subflows[0].up), (8000.0, 8000.0));
        // A subflow joins, and the first one's successor starts from nothing.
        let second = meter.look(3.0, 5000, 250, &[subflow(1, "nic0", 1000), subflow(2, "nic1", 3000)]);
        assert_eq!((second.up, second.down), (16_000.0, 1000.0));
        assert_eq!(second.subflows.iter().map(|s| s.up).collect::<Vec<_>>(), [4000.0, 12_000.0]);
        let line = second.line(true, false);
        assert!(line.contains("up  16.0 kbit/s") && line.contains("nic1  12.0 kbit/s"), "{line}");
    }
}
