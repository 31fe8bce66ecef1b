//! What a program's connections came to.

use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use umptcp::{Direction, ForwardSummary, Forwarded, Forwarder, Traffic};
use umptcp_capture::DEVICE;

/// Everything that was captured, when the program has ended.
pub(super) struct Summary {
    total: ForwardSummary,
    /// Connections that have not ended.
    open: Vec<Forwarded>,
    /// By path.
    traffic: BTreeMap<String, Traffic>,
}

impl Summary {
    pub(super) fn new(forwarders: [&Forwarder; 2], mut traffic: BTreeMap<String, Traffic>) -> Summary {
        traffic.remove(DEVICE);
        let mut total = ForwardSummary::default();
        forwarders.into_iter().for_each(|f| total.merge(f.summary()));
        let open = forwarders.into_iter().flat_map(|f| f.connections().unwrap_or_default()).collect();
        Summary { total, open, traffic }
    }

    /// Connections that were MPTCP.
    fn mptcp(&self) -> u64 {
        self.total.mptcp + self.open.iter().filter(|c| c.mptcp == Some(Ok(()))).count() as u64
    }

    /// Those that were not, by the reason.
    fn tcp(&self) -> BTreeMap<String, u64> {
        let mut all = self.total.tcp.clone();
        for why in self.open.iter().filter_map(|c| c.mptcp?.err()) {
            *all.entry(why.to_string()).or_default() += 1;
        }
        all
    }

    /// For people: a line on the connections, one for each reason, one for each path.
    pub(super) fn text(&self) -> String {
        let tcp = self.tcp();
        let mut s = format!(
            "umptcp: {} connection{}: {} MPTCP, {} TCP",
            self.total.joined,
            if self.total.joined == 1 { "" } else { "s" },
            self.mptcp(),
            tcp.values().sum::<u64>()
        );
        // Writing to a String cannot fail.
        for (why, count) in tcp {
            let _ = write!(s, "\numptcp: {count} TCP: {why}");
        }
        for (why, count) in &self.total.failed {
            let _ = write!(s, "\numptcp: {count} not established: {why}");
        }
        for (name, t) in &self.traffic {
            let _ = write!(s, "\numptcp: {name}: {} bytes sent, {} received", t.sent, t.received);
        }
        s
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let paths = self
            .traffic
            .iter()
            .map(|(name, t)| json!({ "path": name, "sent": t.sent, "received": t.received }));
        let connection = |c: &Forwarded| {
            json!({
                "direction": match c.direction { Direction::Out => "out", Direction::In => "in" },
                "client": c.client.to_string(),
                "server": c.server.to_string(),
                "mptcp": c.mptcp.map(|m| m.is_ok()),
                "why_tcp": c.mptcp.and_then(|m| m.err()).map(|why| why.to_string()),
                "up": c.up,
                "down": c.down,
                "error": c.failed.map(|error| error.to_string()),
            })
        };
        json!({
            "connections": self.total.joined,
            "mptcp": self.mptcp(),
            "tcp": self.tcp(),
            "not_established": self.total.failed,
            "paths": paths.collect::<Vec<_>>(),
            "last": self.total.last.iter().chain(&self.open).map(connection).collect::<Vec<_>>(),
        })
        .to_string()
    }
}
