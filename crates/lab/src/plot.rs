//! Figures as SVG, and a page with all of them as HTML.

use crate::error::LabError;
use crate::report::{Comparison, PointReport, Report, number};
use crate::series::{Curve, curves};
use plotters::prelude::*;
use std::fmt::{Display, Write as _};

/// Points of a curve that a figure shows at most; more are averaged.
const MOST_POINTS: usize = 600;
/// Connections of a group that figures show.
const INSTANCES: usize = 2;
const SIZE: (u32, u32) = (760, 300);
/// Colours that people with colour vision deficiencies can tell apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// What figures there are: object, quantity, title, axis.
const FIGURES: [(&str, &str, &str, &str); 6] = [
    ("subflow", "throughput", "Throughput per subflow", "Mbit/s"),
    ("subflow", "window", "Congestion window", "kB"),
    ("subflow", "rtt", "Smoothed round-trip time", "ms"),
    ("subflow", "data-sequence", "Data sequence sent on each subflow", "MB"),
    ("link", "queue", "Queue", "packets"),
    ("link", "throughput", "Throughput per link", "Mbit/s"),
];

/// A figure.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Figure {
    /// A name for a file: letters, digits, `-`, `_`, `.` and `=`.
    pub name: String,
    /// The SVG document.
    pub svg: String,
}

fn failed(error: impl Display) -> LabError {
    LabError::File { file: "a figure".to_string(), message: error.to_string() }
}

impl Report {
    /// Time series of the first run of each combination of parameters: throughput, window, round-trip time
    /// and data-sequence progress of each subflow (of the first two connections of each group), queue and
    /// throughput of each link.
    ///
    /// # Errors
    ///
    /// When a figure cannot be drawn.
    pub fn figures(&self) -> Result<Vec<Figure>, LabError> {
        let mut figures = Vec::new();
        for point in &self.points {
            figures.extend(self.point_figures(point)?);
        }
        Ok(figures)
    }

    pub(crate) fn point_figures(&self, point: &PointReport) -> Result<Vec<Figure>, LabError> {
        let all = curves(point, INSTANCES);
        let mut figures = Vec::new();
        for (object, quantity, title, unit) in FIGURES {
            let chosen: Vec<&Curve> = all
                .iter()
                .filter(|c| c.object == object && c.quantity == quantity && !c.points.is_empty())
                .collect();
            if chosen.is_empty() {
                continue;
            }
            let parameters =
                if point.parameters.is_empty() { String::new() } else { format!("_{}", point.name()) };
            let name = format!("{}{parameters}_{object}-{quantity}", self.scenario);
            let name = name.chars().map(|c| if c.is_alphanumeric() || "-_.=".contains(c) { c } else { '_' });
            figures.push(Figure { name: name.collect(), svg: time_series(title, unit, &chosen)? });
        }
        Ok(figures)
    }

    /// Ours (dots, with 95 % confidence intervals) beside what was published (bars: the range that counts as
    /// agreement), of all combinations of parameters. `None` when nothing was.
    ///
    /// # Errors
    ///
    /// When the figure cannot be drawn.
    pub fn comparison_figure(&self) -> Result<Option<Figure>, LabError> {
        let all: Vec<(String, &Comparison)> =
            self.points.iter().flat_map(|p| p.comparisons.iter().map(|c| (p.name(), c))).collect();
        if all.is_empty() {
            return Ok(None);
        }
        let svg = comparison(&all).map_err(failed)?;
        Ok(Some(Figure { name: format!("{}_published", self.scenario), svg }))
    }

    /// One page with the table, what was published, and all figures; it needs no other file.
    ///
    /// # Errors
    ///
    /// When a figure cannot be drawn.
    pub fn html(&self) -> Result<String, LabError> {
        let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
        let title = escape(&self.title);
        let _ =
            write!(out, "<title>{title}</title>\n<style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n");
        let _ = writeln!(out, "<p>{}</p>", escape(&self.description));
        let _ = writeln!(
            out,
            "<p class=\"small\">Scenario {}, hash {}, umptcp {}.</p>",
            escape(&self.scenario),
            self.hash,
            self.version
        );
        for note in self.notes() {
            let _ = writeln!(out, "<p>Note: {}.</p>", escape(&note));
        }
        if let Some(figure) = self.comparison_figure()? {
            let _ = writeln!(out, "<h2>Beside what was published</h2>\n{}", figure.svg);
        }
        for point in &self.points {
            let seeds: Vec<String> = point.seeds.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                out,
                "<h2>{}</h2>\n<p class=\"small\">Measured for {} s after {} s. Seeds: {}.</p>",
                escape(&point.name()),
                point.setup.duration.as_secs_f64(),
                point.setup.warm_up.as_secs_f64(),
                seeds.join(", ")
            );
            out.push_str(&html_rows(point));
            let seed = point.seeds.first().copied().unwrap_or_default();
            let _ = writeln!(out, "<details><summary>Figures of seed {seed}</summary>");
            for figure in self.point_figures(point)? {
                let _ = writeln!(out, "<div>{}</div>", figure.svg);
            }
            out.push_str("</details>\n");
        }
        out.push_str("</body></html>\n");
        Ok(out)
    }
}

const STYLE: &str = "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse}td,th{padding:.1em .8em;text-align:left}td.n{text-align:right}\
.small{color:#555;font-size:90%}.miss{color:#b00;font-weight:bold}svg{max-width:100%;height:auto}";

fn html_rows(point: &PointReport) -> String {
    let mut out = String::new();
    if !point.comparisons.is_empty() {
        out.push_str("<table><tr><th></th><th>ours</th><th>±95 %</th><th>published</th><th></th></tr>\n");
        for c in &point.comparisons {
            let (class, word) = if c.agrees() { ("", "agrees") } else { ("miss", "misses") };
            let goal = match (c.published, c.at_least) {
                (Some(p), _) => number(p),
                (None, Some(least)) => format!("≥ {}", number(least)),
                (None, None) => String::new(),
            };
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{goal}</td>\
                 <td class=\"{class}\">{word}</td></tr>",
                escape(&c.what),
                number(c.summary.mean),
                c.summary.confidence.map_or_else(String::new, number),
            );
        }
        out.push_str("</table>\n");
    }
    out.push_str("<details><summary>All numbers</summary><table>");
    out.push_str("<tr><th></th><th></th><th></th><th>mean</th><th>±95 %</th><th></th></tr>\n");
    for row in &point.rows {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            row.object,
            escape(&row.name),
            row.quantity,
            number(row.summary.mean),
            row.summary.confidence.map_or_else(String::new, number),
            if row.unit == "1" { "" } else { row.unit },
        );
    }
    out.push_str("</table></details>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// At most [`MOST_POINTS`] points: means of equally many neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |chunk: &[(f64, f64)], f: fn(&(f64, f64)) -> f64| {
        chunk.iter().map(f).sum::<f64>() / chunk.len() as f64
    };
    points.chunks(size).map(|c| (mean(c, |p| p.0), mean(c, |p| p.1))).collect()
}

fn time_series(title: &str, unit: &str, curves: &[&Curve]) -> Result<String, LabError> {
    let thin: Vec<(String, Vec<(f64, f64)>)> =
        curves.iter().map(|c| (c.name.clone(), thinned(&c.points))).collect();
    draw_series(title, unit, &thin).map_err(failed)
}

fn draw_series(
    title: &str,
    unit: &str,
    curves: &[(String, Vec<(f64, f64)>)],
) -> Result<String, Box<dyn std::error::Error>> {
    let most = |f: fn(&(f64, f64)) -> f64| curves.iter().flat_map(|(_, c)| c).map(f).fold(0.0f64, f64::max);
    let (right, top) = (most(|p| p.0).max(1e-3), (most(|p| p.1) * 1.1).max(1e-3));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .margin_right(16)
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc("time in s")
            .y_desc(unit)
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .draw()?;
        for (i, (name, points)) in curves.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            chart
                .draw_series(LineSeries::new(points.iter().copied(), &colour))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
        root.present()?;
    }
    Ok(svg)
}

/// The range of values that agrees with a published one.
fn agreement(c: &Comparison) -> Option<(f64, f64)> {
    let Some(published) = c.published else { return c.at_least.map(|least| (least, least)) };
    let (low, high) = (published * (1.0 - c.tolerance), published * (1.0 + c.tolerance));
    let predicted = c.predicted.unwrap_or(published);
    Some((low.min(predicted), high.max(predicted)))
}

fn comparison(all: &[(String, &Comparison)]) -> Result<String, Box<dyn std::error::Error>> {
    let top = all
        .iter()
        .flat_map(|(_, c)| {
            [c.summary.mean + c.summary.confidence.unwrap_or(0.0), agreement(c).map_or(0.0, |a| a.1)]
        })
        .filter(|v| v.is_finite())
        .fold(0.1f64, f64::max)
        * 1.08;
    let rows = all.len() as f64;
    // Labels are long: one line each, values to the right.
    let size = (SIZE.0, 70 + 22 * all.len() as u32);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let (labels, plot) = root.split_horizontally(330);
        let mut chart = ChartBuilder::on(&plot)
            .margin(8)
            .margin_right(16)
            .x_label_area_size(36)
            .build_cartesian_2d(0.0..top, -rows..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_desc("bars: what counts as agreement; line: published; dot: umptcp")
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .draw()?;
        for (i, (point, c)) in all.iter().enumerate() {
            let y = -(i as f64) - 0.5;
            if let Some((low, high)) = agreement(c) {
                let high = if c.published.is_some() { high } else { top };
                let bar = Rectangle::new([(low, y - 0.3), (high, y + 0.3)], RGBColor(210, 225, 240).filled());
                chart.draw_series([bar])?;
            }
            if let Some(p) = c.published {
                let line = PathElement::new([(p, y - 0.3), (p, y + 0.3)], RGBColor(0, 0, 0).stroke_width(2));
                chart.draw_series([line])?;
            }
            let colour = if c.agrees() { COLOURS[0] } else { COLOURS[1] };
            if c.summary.mean.is_finite() {
                let half = c.summary.confidence.unwrap_or(0.0);
                let (low, high) = ((c.summary.mean - half).max(0.0), (c.summary.mean + half).min(top));
                chart.draw_series([PathElement::new([(low, y), (high, y)], colour.stroke_width(2))])?;
                chart.draw_series([Circle::new((c.summary.mean, y), 4, colour.filled())])?;
            }
            let (_, at) = chart.backend_coord(&(0.0, y));
            let text = if point == "-" { c.what.clone() } else { format!("{point}: {}", c.what) };
            labels.draw(&Text::new(text, (8, at - 6), ("sans-serif", 12)))?;
        }
        root.present()?;
    }
    Ok(svg)
}
