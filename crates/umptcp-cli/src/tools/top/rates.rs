//! Rates, from two looks at an instance.

use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;
use umptcp_control::state::{Connection, ConnectionList, Path, PathList, Subflow};

/// How many looks a history has.
pub(super) const HISTORY: usize = 120;

/// By what connections are sorted, largest first except for the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Sort {
    #[default]
    Received,
    Sent,
    Bytes,
    Number,
}

/// Payload per second, in bits.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(super) struct Rate {
    pub(super) sent_bps: f64,
    pub(super) received_bps: f64,
}

impl Rate {
    /// Both together.
    fn and(self, other: Rate) -> Rate {
        Rate {
            sent_bps: self.sent_bps + other.sent_bps,
            received_bps: self.received_bps + other.received_bps,
        }
    }
}

/// Something with its rate.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Rated<T> {
    #[serde(flatten)]
    pub(super) what: T,
    #[serde(flatten)]
    pub(super) rate: Rate,
}

/// The last look.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct Now {
    pub(super) paths: Vec<Rated<Path>>,
    pub(super) connections: Vec<RatedConnection>,
}

/// A connection with its rate, and those of its subflows.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct RatedConnection {
    #[serde(flatten)]
    pub(super) what: Connection,
    #[serde(flatten)]
    pub(super) rate: Rate,
    /// In the order of the connection's.
    pub(super) subflow_rates: Vec<Rate>,
}

/// Bytes sent and received.
type Bytes = (u64, u64);

/// What is counted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Key {
    Path(String),
    Subflow(u64, u32),
}

/// Rates of what there is, and of paths in the past.
#[derive(Debug, Default)]
pub(super) struct Rates {
    now: Now,
    last: Option<Instant>,
    bytes: HashMap<Key, Bytes>,
    history: HashMap<String, VecDeque<u64>>,
}

impl Rates {
    /// A look, what leads to captured programs left out.
    pub(super) fn update(&mut self, at: Instant, paths: PathList, connections: ConnectionList) {
        let seconds = self.last.replace(at).map(|last| at.saturating_duration_since(last).as_secs_f64());
        let before = std::mem::take(&mut self.bytes);
        let mut rate = |key: Key, (sent, received): Bytes| {
            let past = before.get(&key).copied();
            self.bytes.insert(key, (sent, received));
            // What is new has begun at some time since the last look.
            let (s, r) = past.unwrap_or_default();
            let per_second = |now: u64, past: u64| match seconds {
                Some(seconds) if seconds > 0.0 => now.saturating_sub(past) as f64 * 8.0 / seconds,
                _ => 0.0,
            };
            Rate { sent_bps: per_second(sent, s), received_bps: per_second(received, r) }
        };
        let paths = paths.paths.into_iter().filter(|p| !p.captured).map(|what| {
            let rate = rate(Key::Path(what.name.clone()), (what.bytes_sent, what.bytes_received));
            Rated { what, rate }
        });
        let paths: Vec<Rated<Path>> = paths.collect();
        let connections = connections.connections.into_iter().filter(|c| !c.captured).map(|what| {
            let subflow = |f: &Subflow| Key::Subflow(what.id, f.id);
            let subflow_rates: Vec<Rate> =
                what.subflows.iter().map(|f| rate(subflow(f), (f.bytes_sent, f.bytes_received))).collect();
            // What is on the wire, as for its subflows and the NICs: its own counters run ahead by what waits to be sent, and
            // leave out what goes twice.
            let rate = subflow_rates.iter().fold(Rate::default(), |sum, rate| sum.and(*rate));
            RatedConnection { what, rate, subflow_rates }
        });
        self.now = Now { connections: connections.collect(), paths };
        self.history.retain(|name, _| self.now.paths.iter().any(|p| p.what.name == *name));
        for path in &self.now.paths {
            let history = self.history.entry(path.what.name.clone()).or_default();
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back((path.rate.sent_bps + path.rate.received_bps) as u64);
        }
    }

    /// The last look.
    pub(super) fn now(&self) -> &Now {
        &self.now
    }

    /// The rates of a path in both directions, oldest first.
    pub(super) fn history(&self, path: &str) -> impl Iterator<Item = u64> + '_ {
        self.history.get(path).into_iter().flatten().copied()
    }

    /// Its connections in this order.
    pub(super) fn sorted(&self, by: Sort) -> Vec<&RatedConnection> {
        let mut all: Vec<&RatedConnection> = self.now.connections.iter().collect();
        let value = |c: &RatedConnection| match by {
            Sort::Received => c.rate.received_bps,
            Sort::Sent => c.rate.sent_bps,
            Sort::Bytes => (c.what.bytes_sent + c.what.bytes_received) as f64,
            Sort::Number => -(c.what.id as f64),
        };
        // Equal ones stay where they are from look to look.
        all.sort_by(|a, b| value(b).total_cmp(&value(a)).then(a.what.id.cmp(&b.what.id)));
        all
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    /// A look at two paths and connections, after so many steps.
    pub(in super::super) fn look(step: u64) -> (PathList, ConnectionList) {
        let path = |name: &str, sent: u64, received: u64| json!({ "name": name, "addresses": ["10.0.0.1"], "bytes_sent": sent, "bytes_received": received });
        let subflow = |id: u64, path: &str, sent: u64, received: u64| {
            json!({
                "id": id, "path": path, "local": "10.0.0.1:1025", "remote": "10.9.0.1:80", "state": "ESTABLISHED",
                "backup": id == 1, "health": "answers", "rtt_ms": 20.25, "rttvar_ms": 1.0, "rto_ms": 220.0, "mss": 1428,
                "window": 142_800, "ssthresh": 1, "in_flight": 0, "pacing_rate": 0, "bytes_sent": sent, "bytes_acked": sent,
                "bytes_received": received, "bytes_retrans": 7, "timeouts": 0, "recoveries": 0,
            })
        };
        let connection = |id: u64, sent: u64, received: u64, subflows: serde_json::Value| {
            json!({
                "id": id, "state": "established", "local": "10.0.0.1:1025", "remote": "10.9.0.1:80", "mptcp": id == 3,
                "congestion": "lia", "scheduler": "min-rtt", "subflows_max": 7, "add_addr_accepted_max": 8,
                "bytes_sent": sent, "bytes_acked": sent, "bytes_received": received, "send_queue": 0, "receive_queue": 0,
                "subflows": subflows, "why_tcp": (id != 3).then_some("the peer has no MPTCP"),
            })
        };
        let (a, b) = (1000 * step, 250 * step);
        let paths = json!({ "paths": [path("eth0", a, 0), path("wlan0", b, b)] });
        let subflows = json!([subflow(0, "eth0", a, 0), subflow(1, "wlan0", b, 0)]);
        let connections = json!({ "connections": [
            // What is waiting to be sent is no rate yet.
            connection(3, a + b + 5000 * step, 0, subflows),
            connection(5, 0, b, json!([subflow(0, "wlan0", 0, b)])),
        ] });
        (serde_json::from_value(paths).unwrap(), serde_json::from_value(connections).unwrap())
    }

    /// Two looks, half a second apart.
    pub(in super::super) fn two_looks() -> Rates {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for step in 0..2 {
            let (paths, connections) = look(step);
            rates.update(start + step as u32 * Duration::from_millis(500), paths, connections);
        }
        rates
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let rates = two_looks();
        let now = rates.now();
        assert_eq!(now.paths[0].rate, Rate { sent_bps: 16_000.0, received_bps: 0.0 });
        assert_eq!(now.paths[1].rate, Rate { sent_bps: 4_000.0, received_bps: 4_000.0 });
        assert_eq!(now.connections[0].rate.sent_bps, 20_000.0);
        let of_subflows: Vec<f64> = now.connections[0].subflow_rates.iter().map(|r| r.sent_bps).collect();
        assert_eq!(of_subflows, [16_000.0, 4_000.0]);
        for connection in &now.connections {
            let sum: f64 = connection.subflow_rates.iter().map(|r| r.sent_bps + r.received_bps).sum();
            assert_eq!(connection.rate.sent_bps + connection.rate.received_bps, sum, "that of its subflows");
        }
        assert_eq!(rates.history("wlan0").collect::<Vec<_>>(), [0, 8_000]);
        let json = serde_json::to_value(now).unwrap();
        assert_eq!(
            (&json["paths"][0]["name"], &json["paths"][0]["sent_bps"]),
            (&json!("eth0"), &json!(16_000.0))
        );
    }

    #[test]
    fn connections_are_sorted_as_asked_for() {
        let rates = two_looks();
        let order = |by| rates.sorted(by).iter().map(|c| c.what.id).collect::<Vec<_>>();
        assert_eq!(order(Sort::Sent), [3, 5]);
        assert_eq!(order(Sort::Received), [5, 3]);
        assert_eq!(order(Sort::Bytes), [3, 5]);
        assert_eq!(order(Sort::Number), [3, 5]);
    }

    #[test]
    fn what_has_gone_is_forgotten_and_histories_are_bounded() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for step in 0..HISTORY as u64 + 10 {
            let (paths, connections) = look(step);
            rates.update(start + Duration::from_secs(step), paths, connections);
        }
        assert_eq!(rates.history("eth0").count(), HISTORY);
        rates.update(start + Duration::from_secs(1000), PathList::default(), ConnectionList::default());
        assert_eq!((rates.history("eth0").count(), rates.bytes.len(), rates.history.len()), (0, 0, 0));
    }
}
