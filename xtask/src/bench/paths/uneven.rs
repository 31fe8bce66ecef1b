//! Goodput over paths that are not alike, beside plain TCP on each of them alone.

use super::scenario::{PathText, ScenarioText};
use super::{Bench, DIRECTIONS, Goal, Row, Stack, typical};
use anyhow::Result;
use umptcp_lab::Registries;

const FIGURE: &str = "paths-uneven";

const BETTER: PathText = PathText::new("better", 50, 10);

/// What stands beside it. The sum is asked for where neither path loses.
const OTHERS: &[(&str, PathText)] = &[
    ("10 Mbit/s, 100 ms", PathText::new("delayed", 10, 100)),
    ("2 Mbit/s, 300 ms", PathText::new("slow", 2, 300)),
    ("50 Mbit/s, 10 ms, 1 % lost", PathText { loss: 1, ..PathText::new("lossy", 50, 10) }),
    ("10 Mbit/s, 10 ms, 2 s of buffer", PathText { queue: Some(2000), ..PathText::new("bloated", 10, 10) }),
];

/// Sizes of the receive buffer; the empty one: that which a stack has by itself.
const BUFFERS: [&str; 3] = ["256 KiB", "1 MiB", ""];

/// How all pairs are measured at the same time.
#[derive(Clone, Copy)]
struct Setting<'a> {
    direction: &'a str,
    /// Of the receiver; empty: the stack's own.
    buffer: &'a str,
    stack: Stack,
    /// A line of the flows' text.
    choice: Option<&'a str>,
}

/// Goodputs of the pairs, in order.
type Goodputs = Vec<Vec<f64>>;

/// Measures all pairs, both directions and all buffers with umptcp's defaults and with the kernel; every
/// scheduler with LIA and every algorithm with min-RTT with automatic buffers and a fifth of the runs.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    println!("\nuneven pairs: 50 Mbit/s, 10 ms with another path; goodput beside plain TCP on each alone");
    for direction in DIRECTIONS {
        let alone = alone(bench, direction)?;
        let better = alone.first().map_or(f64::NAN, |v| typical(v));
        for buffer in BUFFERS {
            let mut results: [Goodputs; 2] = [vec![vec![]; OTHERS.len()], vec![vec![]; OTHERS.len()]];
            for run in 1..=bench.runs() {
                for (stack, results) in Stack::BOTH.into_iter().zip(&mut results) {
                    let setting = Setting { direction, buffer, stack, choice: None };
                    once(bench, setting, run, results)?;
                }
            }
            for (at, (what, other)) in OTHERS.iter().enumerate() {
                let size = if buffer.is_empty() { "automatic" } else { buffer };
                let case = format!("with {what}, {size}, {direction}");
                let kernel = typical(&results[0][at]);
                let sum = better + alone.get(at + 1).map_or(f64::NAN, |v| typical(v));
                let enough = if buffer.is_empty() && other.loss == 0 { 0.9 * sum } else { 0.0 };
                let least = (0.97 * better).max(enough).max(kernel);
                row(bench, &case, "kernel", &results[0][at], None);
                row(bench, &case, "umptcp", &results[1][at], Some(Goal::AtLeast(least)));
            }
        }
        if direction == "down" {
            choices(bench, better)?;
        }
    }
    Ok(())
}

fn row(bench: &mut Bench<'_>, case: &str, who: &str, values: &[f64], goal: Option<Goal>) {
    bench.row(FIGURE, &Row { case, who, unit: "Mbit/s", values, goal });
}

/// Plain TCP of the kernel on the better path, and on each of the others.
fn alone(bench: &mut Bench<'_>, direction: &str) -> Result<Goodputs> {
    let paths: Vec<(String, PathText)> = std::iter::once(("50 Mbit/s, 10 ms".to_owned(), BETTER))
        .chain(OTHERS.iter().map(|(what, path)| ((*what).to_owned(), *path)))
        .collect();
    let mut values = vec![Vec::new(); paths.len()];
    let way = format!("direction = \"{direction}\"");
    for run in 1..=bench.runs() {
        let mut text = ScenarioText::new("alone", run, bench.warm_up(), bench.duration());
        for (_, path) in &paths {
            text.flow(path.name, &[*path], &["protocol = \"tcp\"", "congestion = \"cubic\"", &way]);
        }
        let Some(outcome) = bench.emulate("TCP alone", &text, Stack::Kernel) else { continue };
        for ((_, path), values) in paths.iter().zip(&mut values) {
            values.push(outcome.flow(path.name, "goodput")?);
        }
    }
    for ((what, _), values) in paths.iter().zip(&values) {
        row(bench, &format!("{what}, {direction}"), "kernel's TCP alone", values, None);
    }
    Ok(values)
}

/// One run of all pairs at the same time.
fn once(bench: &mut Bench<'_>, setting: Setting<'_>, run: u16, results: &mut Goodputs) -> Result<()> {
    let Setting { direction, buffer, stack, choice } = setting;
    let mut text = ScenarioText::new("uneven", run, bench.warm_up(), bench.duration());
    let way = format!("direction = \"{direction}\"");
    let size = format!("receive-buffer = \"{buffer}\"");
    for (_, other) in OTHERS {
        let mut fields = vec![way.as_str()];
        if !buffer.is_empty() {
            fields.push(&size);
        }
        if stack == Stack::Kernel {
            fields.push("congestion = \"cubic\"");
        }
        fields.extend(choice);
        text.flow(&format!("with-{}", other.name), &[BETTER, *other], &fields);
    }
    let Some(outcome) = bench.emulate(FIGURE, &text, stack) else { return Ok(()) };
    for ((_, other), values) in OTHERS.iter().zip(results) {
        values.push(outcome.flow(&format!("with-{}", other.name), "goodput")?);
    }
    Ok(())
}

/// Every scheduler with LIA, and every algorithm with min-RTT. Goal: not less than the better path alone.
fn choices(bench: &mut Bench<'_>, better: f64) -> Result<()> {
    let registries = Registries::default();
    let scheduler = |name: &str| (name.to_owned(), format!("scheduler = \"{name}\""));
    let algorithm = |name: &str| (name.to_owned(), format!("congestion = \"{name}\""));
    let choices = registries.schedulers.names().map(scheduler);
    let choices: Vec<(String, String)> =
        choices.chain(registries.congestion.names().filter(|n| *n != "lia").map(algorithm)).collect();
    for (name, field) in choices {
        let choice = Some(field.as_str());
        let setting = Setting { direction: "down", buffer: "", stack: Stack::Umptcp, choice };
        let mut results = vec![vec![]; OTHERS.len()];
        for run in 1..=bench.runs().div_ceil(5) {
            once(bench, setting, run, &mut results)?;
        }
        for ((what, _), values) in OTHERS.iter().zip(&results) {
            let case = format!("with {what}, automatic, down");
            row(bench, &case, &format!("umptcp, {name}"), values, Some(Goal::AtLeast(0.97 * better)));
        }
    }
    Ok(())
}
