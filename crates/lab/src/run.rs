//! One run: one combination of parameters with one seed, and the numbers that come of it.

use crate::build::{build, failed};
use crate::error::LabError;
use crate::measure::{LinkState, Recording, RouteState, Snapshot, per_second};
use crate::registries::Registries;
use crate::setup::{FlowSetup, RecoverySetup, Setup};
use crate::statistics::fairness;
use crate::traffic::Message;
use std::time::Duration;
use umptcp_netsim::Probe;
use umptcp_netsim::trace::Tap;
use umptcp_types::Instant;

/// What a value is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) object: &'static str,
    pub(crate) name: String,
    pub(crate) quantity: &'static str,
    pub(crate) unit: &'static str,
}

/// The numbers of one run, always the same keys in the same order for the same scenario.
pub(crate) type Values = Vec<(Key, f64)>;

/// Who watches a run.
#[derive(Default)]
pub(crate) struct Watch {
    /// The packets of all links are shown to it.
    pub(crate) tap: Option<Box<dyn Tap>>,
    /// What all stacks are given and give is shown to it.
    pub(crate) probe: Option<Box<dyn Probe>>,
}

/// Runs `setup` with `seed`. `None`: `stop`, asked at every sample, said so.
pub(crate) fn run(
    setup: &Setup,
    point: &str,
    seed: u64,
    registries: &Registries,
    watch: Watch,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Recording>, LabError> {
    let fault = failed(point, seed);
    let mut built = build(setup, seed, registries, watch.probe).map_err(&fault)?;
    if watch.tap.is_some() {
        built.network.set_recording(true);
        built.network.set_tap(watch.tap);
    }
    let mut snapshots = vec![Snapshot::take(&mut built)];
    let mut next = Instant::ZERO;
    while next < setup.end() {
        if stop() {
            return Ok(None);
        }
        // The beginning of the measurement is a snapshot, too, whatever the interval.
        let regular = next + setup.sample;
        next = if next < setup.begin() { regular.min(setup.begin()) } else { regular.min(setup.end()) };
        built.network.run_until(next).map_err(&fault)?;
        snapshots.push(Snapshot::take(&mut built));
    }
    let completions = built.instances.iter().map(|i| {
        let flow = built.network.flow(i.flow);
        let (size, got) = (setup.flows[i.group].source.size()?, flow.end(i.sender.peer()));
        let last = got.last_received_at.filter(|_| got.progress.received >= size)?;
        Some((last - i.start).as_secs_f64())
    });
    let completions = completions.collect();
    // The capture's writer is let go, so that it writes what it still holds.
    built.network.set_tap(None);
    let groups = built.instances.iter().map(|i| i.group).collect();
    let logs = built.instances.iter().map(|i| i.log.get().clone()).collect();
    Ok(Some(Recording { snapshots, groups, completions, logs }))
}

/// The numbers of a run.
pub(crate) fn evaluate(setup: &Setup, recording: &Recording) -> Values {
    let mut values = Values::new();
    let measured = recording.measured(setup);
    let (Some(first), Some(last)) = (measured.first(), measured.last()) else { return values };
    for (group, flow) in setup.flows.iter().enumerate() {
        flow_values(&mut values, group, setup, recording, first, last);
        application_values(&mut values, group, setup, recording, measured);
        for route in 0..flow.routes.len() {
            route_values(&mut values, group, flow, route, recording, measured);
        }
    }
    for (l, link) in setup.links.iter().enumerate() {
        for (d, suffix) in ["", "/reverse"].into_iter().enumerate() {
            let rate = if d == 0 { link.forward.mean_rate() } else { link.reverse.mean_rate() };
            link_values(&mut values, format!("{}{suffix}", link.name), rate, measured, |s| s.links[l][d]);
        }
    }
    for recovery in &setup.recoveries {
        let name = setup.flows[recovery.flow].name.clone();
        let key = Key { object: "recovery", name, quantity: "time", unit: "s" };
        values.push((key, recovery_time(recovery, recording)));
    }
    values
}

fn flow_values(
    values: &mut Values,
    group: usize,
    setup: &Setup,
    recording: &Recording,
    first: &Snapshot,
    last: &Snapshot,
) {
    let flow = &setup.flows[group];
    let legs = flow.routes.iter().flatten();
    let mtu = legs.map(|leg| setup.links[leg.link].forward.mtu).min().unwrap_or(1500);
    let members: Vec<usize> = (0..recording.groups.len()).filter(|i| recording.groups[*i] == group).collect();
    let n = members.len() as f64;
    let rates: Vec<f64> = members
        .iter()
        .map(|i| per_second((last.received[*i] - first.received[*i]) * 8, first, last) / 1e6)
        .collect();
    let total: f64 = rates.iter().sum();
    let unknown = members.iter().flat_map(|i| &last.routes[*i]).any(|r| r.unknown);
    let sum = |f: &dyn Fn(&RouteState) -> u64| {
        let of = |s: &Snapshot| members.iter().flat_map(|i| &s.routes[*i]).map(f).sum::<u64>();
        if unknown { f64::NAN } else { of(last).saturating_sub(of(first)) as f64 }
    };
    let again = sum(&|r| r.retransmitted);
    let sent = sum(&|r| r.sent) + again;
    let mut add = |quantity, unit, value| {
        values.push((Key { object: "flow", name: flow.name.clone(), quantity, unit }, value));
    };
    // A transfer in full packets takes so much of the links with its headers.
    let full: Vec<f64> = members
        .iter()
        .flat_map(|i| &last.routes[*i])
        .filter(|r| r.mss > 0)
        .map(|r| f64::from(mtu) / f64::from(r.mss))
        .collect();
    add("goodput", "Mbit/s", total / n);
    add("throughput", "Mbit/s", total / n * full.iter().sum::<f64>() / full.len() as f64);
    add("total", "Mbit/s", total);
    add("fairness", "1", fairness(&rates));
    add("retransmitted", "%", if sent > 0.0 || unknown { 100.0 * again / sent } else { 0.0 });
    add("timeouts", "1", sum(&|r| r.timeouts) / n);
    if flow.source.size().is_some() {
        let done: Vec<f64> = members.iter().filter_map(|i| recording.completions[*i]).collect();
        // With one that did not end there is no mean.
        let mean = if done.len() == members.len() { done.iter().sum::<f64>() / n } else { f64::NAN };
        add("completion", "s", mean);
    }
}

/// What the applications noted, and what waited for them.
fn application_values(
    values: &mut Values,
    group: usize,
    setup: &Setup,
    recording: &Recording,
    measured: &[Snapshot],
) {
    let flow = &setup.flows[group];
    let (begin, end) = (setup.begin(), setup.end());
    let members: Vec<usize> = (0..recording.groups.len()).filter(|i| recording.groups[*i] == group).collect();
    let mut add = |quantity, unit, value| {
        values.push((Key { object: "flow", name: flow.name.clone(), quantity, unit }, value));
    };
    let logs = || members.iter().map(|i| &recording.logs[*i]);
    let stopped = flow.stop.map_or(end, |stop| (Instant::ZERO + stop).clamp(begin, end));
    let silence = logs().filter_map(|log| log.silence(stopped)).max();
    add("silence", "ms", silence.map_or(f64::NAN, |t| 1e3 * t.as_secs_f64()));
    let held = || measured.iter().flat_map(|s| members.iter().filter_map(|i| s.out_of_order[*i]));
    let count = held().count();
    let mean = held().map(|bytes| bytes as f64).sum::<f64>() / count as f64;
    add("out-of-order", "kB", mean / 1e3);
    add("out-of-order-max", "kB", held().max().map_or(f64::NAN, |bytes| bytes as f64 / 1e3));
    if flow.source.has_messages() {
        let made = |m: &Message| m.made >= begin && m.made < end;
        let messages: Vec<Message> = logs().flat_map(|log| log.messages()).filter(made).collect();
        let delays = delays(&messages, end);
        for (quantity, share) in
            [("delay-p50", 0.5), ("delay-p95", 0.95), ("delay-p99", 0.99), ("delay-max", 1.0)]
        {
            add(quantity, "ms", 1e3 * percentile(&delays, share));
        }
        let missing = messages.iter().filter(|m| m.received.is_none_or(|t| t > end)).count();
        add("missing", "1", missing as f64);
    }
    if flow.source.is_page() {
        let loads = logs().flat_map(|log| &log.pages).filter(|m| m.made >= begin && m.made < end);
        let times: Vec<f64> = loads.filter_map(|m| Some((m.received? - m.made).as_secs_f64())).collect();
        add("page-mean", "ms", 1e3 * times.iter().sum::<f64>() / times.len() as f64);
        add("page-max", "ms", 1e3 * times.iter().copied().reduce(f64::max).unwrap_or(f64::NAN));
    }
    if flow.source.is_video() {
        let stalls = || logs().flat_map(|log| &log.stalls);
        let n = members.len() as f64;
        let begun = stalls().filter(|(from, _)| *from >= begin && *from < end).count();
        let within = |(from, until): &(Instant, Option<Instant>)| {
            let until = until.unwrap_or(end).min(end);
            until.saturating_duration_since((*from).max(begin)).as_secs_f64()
        };
        add("stalls", "1", begun as f64 / n);
        add("stalled", "%", 100.0 * stalls().map(within).sum::<f64>() / n / setup.duration.as_secs_f64());
    }
}

/// Seconds from when each message was made until it arrived, in ascending order. One that was missing at the
/// `end` counts as what it had waited by then, if that is more than the median of the others: of one that was
/// made just before the end nothing can be said.
fn delays(messages: &[Message], end: Instant) -> Vec<f64> {
    let arrived = |m: &Message| m.received.filter(|t| *t <= end).map(|t| (t - m.made).as_secs_f64());
    let mut delays: Vec<f64> = messages.iter().filter_map(arrived).collect();
    delays.sort_unstable_by(f64::total_cmp);
    let least = if delays.is_empty() { 0.0 } else { percentile(&delays, 0.5) };
    let missing = messages.iter().filter(|m| arrived(m).is_none()).map(|m| (end - m.made).as_secs_f64());
    delays.extend(missing.filter(|age| *age > least));
    delays.sort_unstable_by(f64::total_cmp);
    delays
}

/// The least of the ascending `values` that at least `share` of them do not exceed (nearest rank); `NaN`
/// without any.
fn percentile(values: &[f64], share: f64) -> f64 {
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

fn route_values(
    values: &mut Values,
    group: usize,
    flow: &FlowSetup,
    route: usize,
    recording: &Recording,
    measured: &[Snapshot],
) {
    let (Some(first), Some(last)) = (measured.first(), measured.last()) else { return };
    let members: Vec<usize> = (0..recording.groups.len()).filter(|i| recording.groups[*i] == group).collect();
    let n = members.len() as f64;
    let acked = |s: &Snapshot| members.iter().map(|i| s.routes[*i][route].acked).sum::<u64>();
    let mean = |f: &dyn Fn(&RouteState) -> f64| {
        let states = measured.iter().flat_map(|s| members.iter().map(|i| &s.routes[*i][route]));
        let known: Vec<f64> = states.map(f).filter(|v| v.is_finite()).collect();
        known.iter().sum::<f64>() / known.len() as f64
    };
    let name = format!("{}/{}", flow.name, route + 1);
    let mut add = |quantity, unit, value| {
        values.push((Key { object: "route", name: name.clone(), quantity, unit }, value));
    };
    let unknown = members.iter().any(|i| last.routes[*i][route].unknown);
    let bits = acked(last).saturating_sub(acked(first)) * 8;
    let rate = per_second(bits, first, last) / 1e6 / n;
    add("acknowledged", "Mbit/s", if unknown { f64::NAN } else { rate });
    add("rtt", "ms", 1e3 * mean(&|r| r.srtt));
    add("window", "kB", mean(&|r| if r.unknown { f64::NAN } else { r.window as f64 }) / 1e3);
}

fn link_values(
    values: &mut Values,
    name: String,
    rate: Option<u64>,
    measured: &[Snapshot],
    state: impl Fn(&Snapshot) -> LinkState,
) {
    let (Some(first), Some(last)) = (measured.first(), measured.last()) else { return };
    let (a, b) = (state(first).stats, state(last).stats);
    let bits = per_second((b.delivered_bytes - a.delivered_bytes) * 8, first, last);
    let offered = (b.offered_packets - a.offered_packets) as f64;
    let share = |n: u64| if offered > 0.0 { 100.0 * n as f64 / offered } else { 0.0 };
    let queue = |s: &umptcp_netsim::LinkStats| s.dropped_queue + s.dropped_early;
    let mut add = |quantity, unit, value| {
        values.push((Key { object: "link", name: name.clone(), quantity, unit }, value));
    };
    add("throughput", "Mbit/s", bits / 1e6);
    add("utilisation", "%", rate.map_or(f64::NAN, |r| 100.0 * bits / r as f64));
    add("congestion-loss", "%", share(queue(&b) - queue(&a)));
    add("random-loss", "%", share(b.dropped_loss - a.dropped_loss));
    add("marked", "%", share(b.marked - a.marked));
    let queued = measured.iter().map(|s| state(s).queued as f64).sum::<f64>() / measured.len() as f64;
    add("queue", "packets", queued);
}

/// Seconds until the goodput is back; `NaN` when it never is.
fn recovery_time(recovery: &RecoverySetup, recording: &Recording) -> f64 {
    let snapshots = &recording.snapshots;
    let at = |t: Duration| recording.index_at(Instant::ZERO + t);
    let (from, to) = (&snapshots[at(recovery.compare.0)], &snapshots[at(recovery.compare.1)]);
    let goal = recovery.share * recording.group_rate(recovery.flow, from, to);
    let after = Instant::ZERO + recovery.after;
    for end in at(recovery.after)..snapshots.len() {
        let begin = snapshots[end].at.saturating_duration_since(Instant::ZERO + recovery.window);
        let begin = recording.index_at(Instant::ZERO + begin);
        if snapshots[begin].at < after {
            continue;
        }
        if recording.group_rate(recovery.flow, &snapshots[begin], &snapshots[end]) >= goal {
            // The middle of the window in which it was reached.
            return ((snapshots[end].at - after) - recovery.window / 2).as_secs_f64();
        }
    }
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        let of = |share| percentile(&values, share);
        assert_eq!((of(0.5), of(0.95), of(0.99), of(1.0)), (100.0, 190.0, 198.0, 200.0));
        assert_eq!((percentile(&[7.0], 0.01), percentile(&[7.0], 0.99)), (7.0, 7.0));
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn what_is_missing_counts_as_what_it_has_waited() {
        let at = Instant::from_millis;
        let message = |made, received: Option<u64>| Message { made: at(made), received: received.map(at) };
        let messages = [
            message(0, Some(10)),
            message(100, Some(130)),
            message(200, Some(1_200)), // after the end
            message(300, None),
            message(995, None),
        ];
        assert_eq!(delays(&messages, at(1_000)), [0.01, 0.03, 0.7, 0.8]);
        assert_eq!(delays(&messages[3..], at(1_000)), [0.005, 0.7]);
    }
}
