//! What a program's connections came to.

use crate::console::say;
use crate::control::run_summary;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use umptcp::{ForwardSummary, Forwarder, Traffic};
use umptcp_capture::DEVICE;
use umptcp_control::state::{PathTraffic, RunSummary};

/// Everything that was captured by these, and what went over the paths.
pub(super) fn summarize(forwarders: [&Forwarder; 2], mut traffic: BTreeMap<String, Traffic>) -> RunSummary {
    traffic.remove(DEVICE);
    let mut total = ForwardSummary::default();
    forwarders.into_iter().for_each(|f| total.merge(f.summary()));
    let open: Vec<_> = forwarders.into_iter().flat_map(|f| f.connections().unwrap_or_default()).collect();
    run_summary(&total, &open, traffic)
}

/// Says it on standard error.
pub(super) fn tell(summary: &RunSummary, json: bool) {
    // No map in it has keys that are no strings.
    say(&if json { serde_json::to_string(summary).unwrap_or_default() } else { text(summary) });
}

/// For people: a line on the connections, one for each reason, one for each path.
fn text(summary: &RunSummary) -> String {
    let RunSummary { connections, mptcp, tcp, not_established, paths, .. } = summary;
    let plain: u64 = tcp.values().sum();
    let s = if *connections == 1 { "" } else { "s" };
    let mut text = format!("umptcp: {connections} connection{s}: {mptcp} MPTCP, {plain} TCP");
    // Writing to a String cannot fail.
    for (why, count) in tcp {
        let _ = write!(text, "\numptcp: {count} TCP: {why}");
    }
    for (why, count) in not_established {
        let _ = write!(text, "\numptcp: {count} not established: {why}");
    }
    for PathTraffic { path, sent, received } in paths {
        let _ = write!(text, "\numptcp: {path}: {sent} bytes sent, {received} received");
    }
    text
}
