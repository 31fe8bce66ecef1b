//! What a run looked like over time.

use crate::export::{Table, circumstances};
use crate::measure::{RouteState, Snapshot, per_second};
use crate::report::{FORMAT, PointReport, Report};

/// The columns of [`Report::series_csv`].
pub const SERIES_COLUMNS: &str = "format,version,scenario,hash,parameters,warm_up_s,duration_s,seeds,seed,time_s,object,name,quantity,unit,value";

/// One curve: time in seconds and value.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    /// `subflow` or `link`.
    pub(crate) object: &'static str,
    /// `FLOW.INSTANCE/ROUTE` (both from 1), or `LINK`.
    pub(crate) name: String,
    pub(crate) quantity: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The curves of a point's first run: of the first `instances` connections of each group, and of every link's
/// forward direction.
pub(crate) fn curves(point: &PointReport, instances: usize) -> Vec<Curve> {
    let Some(recording) = &point.recording else { return Vec::new() };
    let snapshots = &recording.snapshots;
    let mut out = Vec::new();
    for (group, flow) in point.setup.flows.iter().enumerate() {
        let members = (0..recording.groups.len()).filter(|i| recording.groups[*i] == group);
        for (number, i) in members.take(instances).enumerate() {
            for route in 0..flow.routes.len() {
                let name = format!("{}.{}/{}", flow.name, number + 1, route + 1);
                subflow_curves(&mut out, &name, snapshots, |s| s.routes[i][route]);
            }
        }
    }
    for (l, link) in point.setup.links.iter().enumerate() {
        let mut add = |quantity, unit, points| {
            out.push(Curve { object: "link", name: link.name.clone(), quantity, unit, points });
        };
        add("queue", "packets", snapshots.iter().map(|s| (time(s), s.links[l][0].queued as f64)).collect());
        let bytes = |s: &Snapshot| s.links[l][0].stats.delivered_bytes;
        add("throughput", "Mbit/s", rates(snapshots, bytes));
    }
    out
}

fn subflow_curves(
    out: &mut Vec<Curve>,
    name: &str,
    snapshots: &[Snapshot],
    state: impl Fn(&Snapshot) -> RouteState,
) {
    let mut add = |quantity, unit, points| {
        out.push(Curve { object: "subflow", name: name.to_string(), quantity, unit, points });
    };
    let values = |f: &dyn Fn(RouteState) -> f64| {
        let all = snapshots.iter().map(|s| (time(s), f(state(s))));
        all.filter(|(_, v)| v.is_finite()).collect::<Vec<_>>()
    };
    add("throughput", "Mbit/s", rates(snapshots, |s| state(s).acked));
    add("window", "kB", values(&|r| r.window as f64 / 1e3));
    add("rtt", "ms", values(&|r| r.srtt * 1e3));
    add("data-sequence", "MB", values(&|r| r.data_sent as f64 / 1e6));
}

fn time(s: &Snapshot) -> f64 {
    s.at.as_secs_f64()
}

/// The rate of something counted in bytes, in Mbit/s: at each time the mean since the snapshot before.
fn rates(snapshots: &[Snapshot], bytes: impl Fn(&Snapshot) -> u64) -> Vec<(f64, f64)> {
    let pairs = snapshots.windows(2);
    pairs
        .map(|w| (time(&w[1]), per_second(bytes(&w[1]).saturating_sub(bytes(&w[0])) * 8, &w[0], &w[1]) / 1e6))
        .collect()
}

impl Report {
    /// The time series of each first run as CSV, one value per line, with a header line: the columns
    /// [`SERIES_COLUMNS`]. Throughput is the mean since the sample before; every connection and link is in
    /// it.
    pub fn series_csv(&self) -> String {
        let mut table = Table::new(SERIES_COLUMNS);
        for point in &self.points {
            let [parameters, warm_up, duration, seeds] = circumstances(point);
            let seed = point.seeds.first().copied().unwrap_or_default().to_string();
            for curve in curves(point, usize::MAX) {
                for (t, v) in &curve.points {
                    let Curve { object, name, quantity, unit, .. } = &curve;
                    table.row([
                        FORMAT,
                        &self.version,
                        &self.scenario,
                        &self.hash,
                        &parameters,
                        &warm_up,
                        &duration,
                        &seeds,
                        &seed,
                        &t.to_string(),
                        object,
                        name,
                        quantity,
                        unit,
                        &v.to_string(),
                    ]);
                }
            }
        }
        table.into_text()
    }
}
