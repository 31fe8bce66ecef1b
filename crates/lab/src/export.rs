//! Results as CSV and JSON. The columns are part of the interface: see [`FORMAT`].

use crate::report::{FORMAT, PointReport, Report};
use serde_json::{Value, json};

/// The columns of [`Report::csv`].
pub const CSV_COLUMNS: &str =
    "format,version,scenario,hash,parameters,warm_up_s,duration_s,seeds,seed,object,name,quantity,unit,value";

/// Writes rows of CSV (RFC 4180), the first of which are `columns`.
pub(crate) struct Table(csv::Writer<Vec<u8>>);

impl Table {
    pub(crate) fn new(columns: &str) -> Table {
        let mut table = Table(csv::Writer::from_writer(Vec::new()));
        table.row(columns.split(','));
        table
    }

    pub(crate) fn row<F: AsRef<[u8]>>(&mut self, fields: impl IntoIterator<Item = F>) {
        // Into memory, and with as many fields as the header: neither can fail.
        let _ = self.0.write_record(fields);
    }

    pub(crate) fn into_text(self) -> String {
        let bytes = self.0.into_inner().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Report {
    /// Every number of every run as CSV (RFC 4180), one per line, with a header line: the columns
    /// [`CSV_COLUMNS`].
    ///
    /// `parameters` is `name=value` with semicolons between; `seeds` are those of all runs, such as `1-5;9`; `value` is empty when there is none (a transfer
    /// that did not end, a round-trip time without a sample).
    pub fn csv(&self) -> String {
        let mut table = Table::new(CSV_COLUMNS);
        for point in &self.points {
            let [parameters, warm_up, duration, seeds] = circumstances(point);
            for row in &point.rows {
                for (seed, value) in point.seeds.iter().zip(&row.summary.values) {
                    let value = if value.is_finite() { value.to_string() } else { String::new() };
                    table.row([
                        FORMAT,
                        &self.version,
                        &self.scenario,
                        &self.hash,
                        &parameters,
                        &warm_up,
                        &duration,
                        &seeds,
                        &seed.to_string(),
                        row.object,
                        &row.name,
                        row.quantity,
                        row.unit,
                        &value,
                    ]);
                }
            }
        }
        table.into_text()
    }

    /// Everything as JSON: per combination of parameters the rows with means, standard deviations,
    /// half-widths of 95 % confidence intervals and the value of each seed, and published values beside ours.
    /// Missing numbers are `null`.
    pub fn json(&self) -> String {
        let points: Vec<Value> = self.points.iter().map(point).collect();
        let all = json!({
            "format": FORMAT,
            "version": self.version,
            "scenario": self.scenario,
            "title": self.title,
            "hash": self.hash,
            "runs": { "complete": self.runs.0, "wanted": self.runs.1 },
            "notes": self.notes(),
            "points": points,
        });
        format!("{all:#}\n")
    }
}

fn point(point: &PointReport) -> Value {
    let parameters: serde_json::Map<String, Value> =
        point.parameters.iter().map(|(n, v)| (n.clone(), Value::from(v.clone()))).collect();
    let rows: Vec<Value> = point
        .rows
        .iter()
        .map(|row| {
            json!({
                "object": row.object,
                "name": row.name,
                "quantity": row.quantity,
                "unit": row.unit,
                "mean": row.summary.mean,
                "deviation": row.summary.deviation,
                "confidence_95": row.summary.confidence,
                "values": row.summary.values,
            })
        })
        .collect();
    let comparisons: Vec<Value> = point
        .comparisons
        .iter()
        .map(|c| {
            json!({
                "what": c.what,
                "mean": c.summary.mean,
                "confidence_95": c.summary.confidence,
                "published": c.published,
                "predicted": c.predicted,
                "at_least": c.at_least,
                "tolerance": c.tolerance,
                "deviation": c.deviation(),
                "agrees": c.agrees(),
                "source": c.source,
            })
        })
        .collect();
    json!({
        "parameters": parameters,
        "seeds": point.seeds,
        "seeds_change_nothing": point.seeds_change_nothing(),
        "warm_up_s": point.setup.warm_up.as_secs_f64(),
        "duration_s": point.setup.duration.as_secs_f64(),
        "rows": rows,
        "comparisons": comparisons,
    })
}

/// How a point was run: its parameters as `name=value` with semicolons between, seconds of warm-up and of
/// measurement, and its seeds.
pub(crate) fn circumstances(point: &PointReport) -> [String; 4] {
    let parameters = point.parameters.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(";");
    let seconds = |time: std::time::Duration| time.as_secs_f64().to_string();
    let (warm_up, duration) = (seconds(point.setup.warm_up), seconds(point.setup.duration));
    [parameters, warm_up, duration, point.seed_ranges()]
}
