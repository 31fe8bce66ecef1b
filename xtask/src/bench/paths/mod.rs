//! Two paths at once: failover, paths that are not alike, bursts, small transfers; umptcp's schedulers and
//! algorithms, and the kernel's MPTCP beside them in the same run.
//!
//! Every measurement is a scenario of `umptcp emulate`: the simulator's links in real time between
//! namespaces, so that both stacks carry the same traffic over the same links. Both ends are of the same
//! stack. Flows that are measured at the same time have links and hosts of their own. Runs of the stacks
//! alternate.

mod bursts;
mod failover;
mod scenario;
mod small;
mod uneven;

use super::{Options, median};
use anyhow::Result;
use scenario::{Outcome, ScenarioText};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// A stack of `umptcp emulate`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    Umptcp,
    Kernel,
}

impl Stack {
    const BOTH: [Stack; 2] = [Stack::Kernel, Stack::Umptcp];

    fn name(self) -> &'static str {
        match self {
            Stack::Umptcp => "umptcp",
            Stack::Kernel => "kernel",
        }
    }
}

/// Who sends.
const DIRECTIONS: [&str; 2] = ["up", "down"];

/// The figures, and what measures each.
type Measure = fn(&mut Bench<'_>) -> Result<()>;
const FIGURES: &[(&str, Measure)] = &[
    ("paths-failover", failover::measure),
    ("paths-uneven", uneven::measure),
    ("paths-bursts", bursts::measure),
    ("paths-small", small::measure),
];

/// The names of the figures.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FIGURES.iter().map(|(name, _)| *name)
}

/// Measures the figures that are wanted, prints their rows and returns all values. Whether all went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    let wanted: Vec<_> = FIGURES.iter().filter(|(name, _)| options.wants(name)).collect();
    if wanted.is_empty() {
        return Ok(true);
    }
    let mut bench = Bench { options, program, all, sound: true };
    for (name, measure) in wanted {
        let started = Instant::now();
        if let Err(e) = measure(&mut bench) {
            println!("{name} FAILED: {e:#}");
            bench.sound = false;
        }
        println!("{name}: {:.0} s", started.elapsed().as_secs_f64());
    }
    Ok(bench.sound)
}

/// What a figure is measured with, and where its values go.
struct Bench<'a> {
    options: &'a Options,
    program: &'a Path,
    all: &'a mut Vec<Value>,
    sound: bool,
}

impl Bench<'_> {
    /// Length of a measurement of goodput.
    fn duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.options.seconds))
    }

    /// What passes before it: 5 s, less for short ones.
    fn warm_up(&self) -> Duration {
        self.duration().div_f64(2.0).clamp(Duration::from_secs(1), Duration::from_secs(5))
    }

    fn runs(&self) -> u16 {
        self.options.runs
    }

    /// Runs a scenario. A failure is printed.
    fn emulate(&mut self, what: &str, text: &ScenarioText, stack: Stack) -> Option<Outcome> {
        match text.emulate(self.program, stack) {
            Ok(outcome) => Some(outcome),
            Err(e) => {
                println!("  {what}, {} FAILED: {e:#}", stack.name());
                self.sound = false;
                None
            }
        }
    }

    /// Prints a row with what is asked, and keeps its values.
    fn row(&mut self, figure: &str, row: &Row<'_>) {
        let Row { case, who, unit, values, goal } = row;
        let value = typical(values);
        let (text, verdict) = match goal {
            Some(goal) => (goal.text(), if goal.is_met(value) { "met" } else { "MISSED" }),
            None => (String::new(), ""),
        };
        println!("  {case:<54} {who:<30} {:>8} {unit:<6} {text:>12} {verdict}", shown(value));
        self.all.push(json!({
            "figure": figure,
            "case": case,
            "who": who,
            "unit": unit,
            "values": values,
            "goal": goal.map(|g| g.text()),
            "met": goal.map(|g| g.is_met(value)),
        }));
    }
}

/// A line of the table.
struct Row<'a> {
    case: &'a str,
    who: &'a str,
    unit: &'a str,
    values: &'a [f64],
    goal: Option<Goal>,
}

/// What is asked of a median.
#[derive(Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn text(self) -> String {
        match self {
            Goal::AtLeast(bound) => format!("≥ {}", shown(bound)),
            Goal::AtMost(bound) => format!("≤ {}", shown(bound)),
        }
    }

    /// A value that there is not, or that is not a number, meets nothing; nor does a bound that is none.
    fn is_met(self, value: f64) -> bool {
        match self {
            Goal::AtLeast(bound) => value >= bound,
            Goal::AtMost(bound) => value <= bound,
        }
    }
}

/// The median; `NaN` of none. A run without a value (what did not recover) counts as infinite.
fn typical(values: &[f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let known: Vec<f64> = values.iter().map(|v| if v.is_nan() { f64::INFINITY } else { *v }).collect();
    median(&known)
}

fn shown(value: f64) -> String {
    match value {
        v if v.is_nan() => "-".to_owned(),
        v if v.is_infinite() => "never".to_owned(),
        v if v.abs() < 10.0 => format!("{v:.2}"),
        v => format!("{v:.1}"),
    }
}

#[cfg(test)]
mod tests;
