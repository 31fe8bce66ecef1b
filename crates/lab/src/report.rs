//! What an experiment showed.

use crate::measure::Recording;
use crate::point::Point;
use crate::run::{Key, Values};
use crate::setup::{ReferenceSetup, Setup};
use crate::statistics::Summary;
use std::fmt::Write as _;

/// Name and version of the output's format: it changes when a column does.
pub const FORMAT: &str = "umptcp-sim/2";

/// What the table shows of groups of connections unless everything is asked for.
const SHOWN: &[&str] = &[
    "goodput",
    "completion",
    "delay-p50",
    "delay-p95",
    "delay-p99",
    "delay-max",
    "page-mean",
    "stalls",
    "stalled",
];

/// One quantity over all seeds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row {
    /// `flow`, `route`, `link` or `recovery`.
    pub object: &'static str,
    /// Its name: `FLOW`, `FLOW/ROUTE` (from 1), `LINK` or `LINK/reverse`.
    pub name: String,
    /// What was measured.
    pub quantity: &'static str,
    /// In which unit.
    pub unit: &'static str,
    /// The values.
    pub summary: Summary,
}

/// A published value and ours.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Comparison {
    /// What is compared, such as `multipath goodput` or `mptcp / tcp goodput`.
    pub what: String,
    /// Ours.
    pub summary: Summary,
    /// The published measurement.
    pub published: Option<f64>,
    /// What the published model predicts.
    pub predicted: Option<f64>,
    /// At least this is right.
    pub at_least: Option<f64>,
    /// Deviation from the published value that is right.
    pub tolerance: f64,
    /// Where it was published.
    pub source: String,
}

impl Comparison {
    /// Our mean relative to the published value, such as 0.05 for 5 % more.
    pub fn deviation(&self) -> Option<f64> {
        self.published.map(|p| self.summary.mean / p - 1.0)
    }

    /// Whether ours is within the tolerance, or between the measurement and the model, and not less than it
    /// may be.
    pub fn agrees(&self) -> bool {
        let ours = self.summary.mean;
        let enough = self.at_least.is_none_or(|least| ours >= least);
        let close = self.deviation().is_none_or(|d| d.abs() <= self.tolerance);
        let between = match (self.published, self.predicted) {
            (Some(a), Some(b)) => (a.min(b)..=a.max(b)).contains(&ours),
            _ => false,
        };
        enough && (close || between)
    }
}

/// The results of one combination of parameters.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PointReport {
    /// The parameters' values.
    pub parameters: Vec<(String, String)>,
    /// The seeds of its runs.
    pub seeds: Vec<u64>,
    /// Everything that was measured.
    pub rows: Vec<Row>,
    /// Published values beside ours.
    pub comparisons: Vec<Comparison>,
    pub(crate) setup: Setup,
    /// The run with the first seed.
    pub(crate) recording: Option<Recording>,
}

/// The results of an experiment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Version of umptcp.
    pub version: String,
    /// The scenario's name.
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// What it is about.
    pub description: String,
    /// What there is to say about its results.
    pub discussion: String,
    /// The first 16 hexadecimal digits of the SHA-256 of its text, and of what was set beside it.
    pub hash: String,
    /// Runs that are in it, and that there were to be: fewer when it was stopped.
    pub runs: (usize, usize),
    /// Connections that ended with an error, in real time.
    pub faults: Vec<String>,
    /// One for each combination of parameters of which there is a run.
    pub points: Vec<PointReport>,
}

impl PointReport {
    pub(crate) fn new(point: Point, runs: Vec<(u64, Values)>, recording: Option<Recording>) -> PointReport {
        let (seeds, runs): (Vec<u64>, Vec<Values>) = runs.into_iter().unzip();
        let keys: Vec<Key> =
            runs.first().map_or_else(Vec::new, |v| v.iter().map(|(k, _)| k.clone()).collect());
        let rows: Vec<Row> = keys
            .into_iter()
            .enumerate()
            .map(|(i, key)| Row {
                object: key.object,
                name: key.name,
                quantity: key.quantity,
                unit: key.unit,
                summary: Summary::of(runs.iter().map(|v| v[i].1).collect()),
            })
            .collect();
        let comparisons = point.setup.references.iter().filter_map(|r| compare(r, &rows)).collect();
        PointReport { parameters: point.parameters, seeds, rows, comparisons, setup: point.setup, recording }
    }

    /// The parameters as `name=value` with commas between; `-` without parameters.
    pub fn name(&self) -> String {
        let list: Vec<String> = self.parameters.iter().map(|(n, v)| format!("{n}={v}")).collect();
        if list.is_empty() { "-".to_string() } else { list.join(",") }
    }

    /// Whether every run had the same results: the seeds changed nothing. Not with one run.
    pub fn seeds_change_nothing(&self) -> bool {
        let same = |row: &Row| row.summary.values.windows(2).all(|w| w[0].to_bits() == w[1].to_bits());
        self.seeds.len() > 1 && self.rows.iter().all(same)
    }

    /// The seeds of its runs: `1-5;9`.
    pub(crate) fn seed_ranges(&self) -> String {
        seed_ranges(&self.seeds)
    }

    /// One quantity, by the names of object, thing and quantity.
    pub fn value(&self, object: &str, name: &str, quantity: &str) -> Option<&Summary> {
        let row = self.rows.iter().find(|r| r.object == object && r.name == name && r.quantity == quantity);
        row.map(|r| &r.summary)
    }
}

fn compare(reference: &ReferenceSetup, rows: &[Row]) -> Option<Comparison> {
    let of = |name: &str| {
        let row =
            rows.iter().find(|r| r.object == "flow" && r.name == name && r.quantity == reference.quantity);
        row.map(|r| r.summary.clone())
    };
    let all: Vec<Summary> = reference.flows.iter().map(|f| of(f)).collect::<Option<_>>()?;
    let runs = all.first().map_or(0, |s| s.values.len());
    let mean = |run: usize| all.iter().map(|s| s.values[run]).sum::<f64>() / all.len() as f64;
    let ours: Vec<f64> = (0..runs).map(mean).collect();
    let names = reference.flows.join(", ");
    let (what, summary) = match &reference.per {
        None => (names, Summary::of(ours)),
        Some(per) => {
            let ratios = ours.iter().zip(of(per)?.values).map(|(a, b)| a / b).collect();
            (format!("{names} / {per}"), Summary::of(ratios))
        }
    };
    Some(Comparison {
        what: format!("{what} {}", reference.quantity),
        summary,
        published: reference.published,
        predicted: reference.predicted,
        at_least: reference.at_least,
        tolerance: reference.tolerance,
        source: reference.source.clone(),
    })
}

/// Numbers with those that follow one another as ranges: `1-5;9`.
pub(crate) fn seed_ranges(seeds: &[u64]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for seed in seeds {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*seed) => *last = *seed,
            _ => ranges.push((*seed, *seed)),
        }
    }
    let text = |(from, to): &(u64, u64)| if from == to { format!("{from}") } else { format!("{from}-{to}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(";")
}

impl Report {
    /// What whoever reads the numbers must know of them: that seeds change nothing, that runs are missing.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let same = self.points.iter().filter(|p| p.seeds_change_nothing());
        let same: Vec<String> = same.map(PointReport::name).collect();
        if !same.is_empty() {
            let which = match same.len() {
                n if n == self.points.len() => String::new(),
                1 => format!(" with {}", same[0]),
                n => format!(" with {} and {} more", same[0], n - 1),
            };
            notes.push(format!(
                "the seeds change nothing{which}: every run has the same results, and intervals say nothing"
            ));
        }
        if let (done, wanted) = self.runs
            && done < wanted
        {
            notes.push(format!("stopped: {done} of {wanted} runs are in these results"));
        }
        notes.extend(self.faults.iter().cloned());
        notes
    }

    /// The results as text for people. With `all`, every row; otherwise the groups' and what was published.
    pub fn table(&self, all: bool) -> String {
        let mut out = format!("{} (scenario {}, umptcp {})\n", self.title, self.hash, self.version);
        for note in self.notes() {
            let _ = writeln!(out, "note: {note}");
        }
        for point in &self.points {
            let seeds = point.seeds.len();
            let runs = if seeds == 1 { "1 seed".to_string() } else { format!("{seeds} seeds") };
            let time = point.setup.duration.as_secs_f64();
            let _ = writeln!(
                out,
                "\n{}: {runs}, {time} s after {} s",
                point.name(),
                point.setup.warm_up.as_secs_f64()
            );
            let mut lines = vec![["", "", "mean", "±95 %", ""].map(str::to_string)];
            for row in &point.rows {
                let shown = all
                    || (row.object == "flow" && SHOWN.contains(&row.quantity))
                    || row.object == "recovery";
                if shown {
                    lines.push([
                        format!("{} {}", row.object, row.name),
                        row.quantity.to_string(),
                        number(row.summary.mean),
                        row.summary.confidence.map_or_else(String::new, number),
                        if row.unit == "1" { String::new() } else { row.unit.to_string() },
                    ]);
                }
            }
            out.push_str(&columns(&lines, 2..4));
            if !point.comparisons.is_empty() {
                out.push_str(&comparison_table(&point.comparisons));
            }
        }
        out
    }
}

fn comparison_table(comparisons: &[Comparison]) -> String {
    let mut lines = vec![["published", "ours", "±95 %", "published", "model", ""].map(str::to_string)];
    for c in comparisons {
        let verdict = match (c.agrees(), c.deviation()) {
            (true, Some(d)) => format!("agrees ({:+.0} %)", 100.0 * d),
            (false, Some(d)) => format!("MISSES ({:+.0} %)", 100.0 * d),
            (true, None) => "agrees".to_string(),
            (false, None) => "MISSES".to_string(),
        };
        lines.push([
            c.what.clone(),
            number(c.summary.mean),
            c.summary.confidence.map_or_else(String::new, number),
            match (c.published, c.at_least) {
                (Some(p), _) => number(p),
                (None, Some(least)) => format!(">= {}", number(least)),
                (None, None) => String::new(),
            },
            c.predicted.map_or_else(String::new, number),
            verdict,
        ]);
    }
    columns(&lines, 1..5)
}

/// Four significant digits.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_string();
    }
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let decimals = (3 - magnitude).clamp(0, 4) as usize;
    format!("{value:.decimals$}")
}

/// Lines whose columns have equal widths, those in `right` flush right.
fn columns<const N: usize>(lines: &[[String; N]], right: std::ops::Range<usize>) -> String {
    let width = |c: usize| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::from(" ");
        for (c, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            if right.contains(&c) {
                let _ = write!(text, " {pad}{cell}");
            } else {
                let _ = write!(text, " {cell}{pad}");
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}
