//! A section of a book.

use crate::error::LabError;
use crate::plot::Figure;
use crate::report::{PointReport, Report, number};
use std::fmt::Write as _;

/// Quantities of groups that a section shows.
const SHOWN: [&str; 3] = ["goodput", "throughput", "completion"];
/// Time series of the first combination of parameters that a section shows.
const SERIES: [&str; 3] = ["subflow-throughput", "subflow-window", "link-queue"];

impl Report {
    /// The results as a section in Markdown: what was published beside ours, the groups' numbers, what there
    /// is to say, and figures, to which it refers as files in `folder`.
    ///
    /// # Errors
    ///
    /// When a figure cannot be drawn.
    pub fn markdown(&self, folder: &str) -> Result<(String, Vec<Figure>), LabError> {
        let mut out = format!("## {}\n\n{}\n\n", self.title, self.description.trim());
        let (seeds, time) = self.points.first().map_or((0, (0.0, 0.0)), |p| {
            (p.seeds.len(), (p.setup.duration.as_secs_f64(), p.setup.warm_up.as_secs_f64()))
        });
        let _ = writeln!(
            out,
            "`scenarios/{}.toml` ({}), {seeds} seeds, {} s after {} s. Intervals are 95 % confidence intervals of the mean.\n",
            self.scenario, self.hash, time.0, time.1
        );
        for note in self.notes() {
            let _ = writeln!(out, "Note: {note}.\n");
        }
        let mut figures = Vec::new();
        out.push_str(&self.published());
        if let Some(figure) = self.comparison_figure()? {
            let _ =
                writeln!(out, "![{} beside what was published]({folder}/{}.svg)\n", self.title, figure.name);
            figures.push(figure);
        }
        out.push_str(&self.numbers());
        if !self.discussion.is_empty() {
            let _ = writeln!(out, "{}\n", self.discussion);
        }
        if let Some(first) = self.points.first() {
            let seed = first.seeds.first().copied().unwrap_or_default();
            for figure in self.point_figures(first)? {
                let Some(kind) = SERIES.iter().find(|s| figure.name.ends_with(**s)) else { continue };
                let _ = writeln!(
                    out,
                    "![{}, {}, seed {seed}]({folder}/{}.svg)\n",
                    kind.replace('-', " "),
                    first.name(),
                    figure.name
                );
                figures.push(figure);
            }
        }
        Ok((out, figures))
    }

    fn published(&self) -> String {
        if self.points.iter().all(|p| p.comparisons.is_empty()) {
            return String::new();
        }
        let mut out =
            String::from("| parameters | what | umptcp | published | model | |\n|---|---|--:|--:|--:|---|\n");
        for point in &self.points {
            for c in &point.comparisons {
                let goal = match (c.published, c.at_least) {
                    (Some(p), _) => number(p),
                    (None, Some(least)) => format!("≥ {}", number(least)),
                    (None, None) => String::new(),
                };
                let verdict = match (c.agrees(), c.deviation()) {
                    (true, Some(d)) => format!("agrees ({:+.0} %)", 100.0 * d),
                    (false, Some(d)) => format!("**misses** ({:+.0} %)", 100.0 * d),
                    (true, None) => "agrees".to_string(),
                    (false, None) => "**misses**".to_string(),
                };
                let _ = writeln!(
                    out,
                    "| {} | {} | {}{} | {goal} | {} | {verdict} |",
                    point.name(),
                    c.what,
                    number(c.summary.mean),
                    interval(c.summary.confidence),
                    c.predicted.map_or_else(String::new, number),
                );
            }
        }
        out.push('\n');
        out
    }

    fn numbers(&self) -> String {
        let mut out =
            String::from("| parameters | connections | quantity | mean | unit |\n|---|---|---|--:|---|\n");
        for point in &self.points {
            for row in &point.rows {
                let shown = row.object == "flow" && SHOWN.contains(&row.quantity) || row.object == "recovery";
                if shown {
                    let _ = writeln!(out, "{}", line(point, row));
                }
            }
        }
        out.push('\n');
        out
    }
}

fn line(point: &PointReport, row: &crate::report::Row) -> String {
    let what = if row.object == "recovery" { "recovery" } else { row.quantity };
    let mean = number(row.summary.mean);
    let interval = interval(row.summary.confidence);
    format!("| {} | {} | {what} | {mean}{interval} | {} |", point.name(), row.name, row.unit)
}

fn interval(confidence: Option<f64>) -> String {
    confidence.filter(|c| c.is_finite()).map_or_else(String::new, |c| format!(" ± {}", number(c)))
}
