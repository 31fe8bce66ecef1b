//! Delay of messages over uneven paths: bursts near the better path's rate, and a thin stream.

use super::scenario::{PathText, ScenarioText};
use super::{Bench, Goal, Row, Stack, typical};
use anyhow::Result;

const FIGURE: &str = "paths-bursts";

const PATHS: [PathText; 2] = [PathText::new("better", 8, 20), PathText::new("other", 2, 150)];

/// 64 kB at 0.9 of the better path's rate.
const BURSTS: &str = "source = { kind = \"constant\", rate = \"7.2 Mbit/s\", message = \"64 kB\" }";
/// 1 Mbit/s of 1 kB messages.
const STREAM: &str = "source = { kind = \"constant\", rate = \"1 Mbit/s\", message = \"1 kB\" }";

/// Flows of umptcp: name, and lines of their text.
const CHOICES: &[(&str, &[&str])] = &[
    ("min-rtt", &["scheduler = \"min-rtt\""]),
    ("blest", &["scheduler = \"blest\""]),
    ("ecf", &["scheduler = \"ecf\""]),
    ("interactive", &["scheduler = \"interactive\"", "path-policy = \"interactive\""]),
];

/// Values of each flow, by its name.
type Delays = Vec<(String, Vec<f64>)>;

/// Measures both kinds of messages. What is asked is of BLEST and ECF with bursts, and of `interactive` with
/// the stream.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    println!("\nmessages over 8 Mbit/s, 20 ms with 2 Mbit/s, 150 ms: 99th percentile of delivery delay");
    for (what, source) in [("bursts of 64 kB, 7.2 Mbit/s", BURSTS), ("messages of 1 kB, 1 Mbit/s", STREAM)] {
        let (mut kernel, mut umptcp) = (Delays::new(), Delays::new());
        for run in 1..=bench.runs() {
            once(bench, source, run, Stack::Kernel, &mut kernel)?;
            once(bench, source, run, Stack::Umptcp, &mut umptcp)?;
        }
        let of = |all: &Delays, name: &str| {
            all.iter().find(|(n, _)| n == name).map_or(f64::NAN, |(_, values)| typical(values))
        };
        let alone = of(&kernel, "alone").min(of(&umptcp, "alone"));
        let (theirs, plain) = (of(&kernel, "both"), of(&umptcp, "min-rtt"));
        for (stack, all) in [("kernel", &kernel), ("umptcp", &umptcp)] {
            for (name, values) in all {
                let goal = match (source == BURSTS, name.as_str()) {
                    (true, "blest" | "ecf") => Some(Goal::AtMost(theirs.min(plain))),
                    (false, "interactive") => Some(Goal::AtMost(1.2 * alone)),
                    _ => None,
                };
                let who = match name.as_str() {
                    "alone" => format!("{stack}'s TCP, better alone"),
                    "both" => stack.to_owned(),
                    name => format!("{stack}, {name}"),
                };
                bench.row(FIGURE, &Row { case: what, who: &who, unit: "ms", values, goal });
            }
        }
    }
    Ok(())
}

fn once(bench: &mut Bench<'_>, source: &str, run: u16, stack: Stack, delays: &mut Delays) -> Result<()> {
    let mut text = ScenarioText::new("bursts", run, bench.warm_up(), bench.duration());
    text.flow("alone", &PATHS[..1], &["protocol = \"tcp\"", "congestion = \"cubic\"", source]);
    let mut names = vec!["alone"];
    if stack == Stack::Kernel {
        text.flow("both", &PATHS, &["congestion = \"cubic\"", source]);
        names.push("both");
    } else {
        for (name, fields) in CHOICES {
            text.flow(name, &PATHS, &[fields, &[source][..]].concat());
            names.push(name);
        }
    }
    let Some(outcome) = bench.emulate(FIGURE, &text, stack) else { return Ok(()) };
    for name in names {
        let value = outcome.flow(name, "delay-p99")?;
        match delays.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) => values.push(value),
            None => delays.push((name.to_owned(), vec![value])),
        }
    }
    Ok(())
}
