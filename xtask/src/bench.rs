//! `cargo xtask bench`: the figures that umptcp is held against, each beside the kernel's MPTCP in the same
//! run.
//!
//! Every measurement is one `umptcp bench client` in a network namespace against one `umptcp bench server`
//! with the kernel's MPTCP (or TCP, see [`goodput`]; or umptcp, see [`connections`]) in another. Runs of the
//! stacks alternate, so that what else the machine does falls on all of them.

mod captured;
mod connections;
mod goodput;
mod inside_udp;
mod pair;
mod paths;
mod relay_latency;
pub(crate) mod relay_many;
mod relayed;
mod reordering;

use crate::tools;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::topology::{Direct, Family, Routed, Site};

const PORT: u16 = 8684;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measurements of each kind; the table has their medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Length of each throughput measurement in seconds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// How umptcp's packets reach the NIC.
    #[arg(long, default_value = "nat", value_parser = ["nat", "routed"])]
    mode: String,
    /// Only figures whose name contains this. Without it: the figures beside kernel MPTCP and one with loss.
    #[arg(long)]
    only: Option<String>,
    /// Every figure, save those of `--only paths`.
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// Idle connections of `relay-many`.
    #[arg(long, default_value_t = 10_000)]
    idle: u32,
    /// Busy connections of `relay-many`.
    #[arg(long, default_value_t = 1_000)]
    busy: u16,
    /// Measure this program instead of building it.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Also write every measurement to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        match &self.only {
            Some(part) => name.contains(part.as_str()),
            // Those of two paths take longer than all others together.
            None => USUAL.contains(&name) || self.all && !paths::names().any(|path| path == name),
        }
    }

    /// `--path` for each NIC of a client.
    fn path_arguments(&self, client: &Site) -> impl Iterator<Item = String> {
        client.nics.iter().flat_map(|nic| {
            let path = match self.mode.as_str() {
                "routed" => format!("{},mode=routed,address={}", nic.device, nic.routed_address(Family::V4)),
                _ => nic.device.clone(),
            };
            ["--path".to_owned(), path]
        })
    }
}

/// Figures that are measured unless others are named.
const USUAL: &[&str] = &["shaped-up", "shaped-down", "unshaped", "latency", "loss-1"];

/// What carries a measurement's client side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contestant {
    Kernel,
    UmptcpCubic,
    UmptcpDefault,
}

impl Contestant {
    const ALL: [Contestant; 3] = [Contestant::Kernel, Contestant::UmptcpCubic, Contestant::UmptcpDefault];

    fn name(self) -> &'static str {
        match self {
            Contestant::Kernel => "kernel, cubic",
            Contestant::UmptcpCubic => "umptcp, cubic",
            Contestant::UmptcpDefault => "umptcp, lia",
        }
    }

    fn arguments(self, client: &Site, options: &Options) -> Vec<String> {
        let congestion = if self == Contestant::UmptcpDefault { "lia" } else { "cubic" };
        let mut arguments = vec!["--congestion".to_owned(), congestion.to_owned(), "--stack".to_owned()];
        if self == Contestant::Kernel {
            arguments.push("kernel-mptcp".to_owned());
            return arguments;
        }
        arguments.push("umptcp".to_owned());
        arguments.extend(options.path_arguments(client));
        arguments
    }
}

/// One figure: how it is measured and what is asked of umptcp.
struct Figure {
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    /// Where it is measured.
    network: Network,
    /// Arguments of `umptcp bench client`.
    arguments: &'static [&'static str],
    /// The value in its JSON, and what to divide it by to be in `unit`.
    value: (&'static str, f64),
    goal: Goal,
}

#[derive(Clone, Copy)]
enum Network {
    /// Client NICs shaped to 300 and 200 Mbit/s, through a router.
    Shaped,
    /// One veth pair, not shaped.
    Plain,
}

/// What is asked of umptcp, given the kernel's value.
#[derive(Clone, Copy)]
enum Goal {
    AtLeast { factor: f64, but_no_more_than: Option<f64> },
    AtMost { factor: f64 },
}

impl Goal {
    /// The bound, and whether `value` keeps it.
    fn judge(self, kernel: f64, value: f64) -> (f64, bool) {
        match self {
            Goal::AtLeast { factor, but_no_more_than } => {
                let bound = (kernel * factor).min(but_no_more_than.unwrap_or(f64::INFINITY));
                (bound, value >= bound)
            }
            Goal::AtMost { factor } => (kernel * factor, value <= kernel * factor),
        }
    }
}

const SHAPED_GOAL: Goal = Goal::AtLeast { factor: 0.97, but_no_more_than: None };

const FIGURES: &[Figure] = &[
    Figure {
        name: "shaped-up",
        what: "two NICs, 300 + 200 Mbit/s, client to server",
        unit: "Mbit/s",
        network: Network::Shaped,
        arguments: &["--direction", "up"],
        value: ("/up/bits_per_second", 1e6),
        goal: SHAPED_GOAL,
    },
    Figure {
        name: "shaped-down",
        what: "two NICs, 300 + 200 Mbit/s, server to client",
        unit: "Mbit/s",
        network: Network::Shaped,
        arguments: &["--direction", "down"],
        value: ("/down/bits_per_second", 1e6),
        goal: SHAPED_GOAL,
    },
    Figure {
        name: "unshaped",
        what: "one veth, not shaped, client to server",
        unit: "Gbit/s",
        network: Network::Plain,
        arguments: &["--direction", "up"],
        value: ("/up/bits_per_second", 1e9),
        goal: Goal::AtLeast { factor: 0.25, but_no_more_than: Some(5.0) },
    },
    Figure {
        name: "latency",
        what: "request and response of 1 byte, median",
        unit: "µs",
        network: Network::Plain,
        arguments: &["--mode", "latency", "--request", "1", "--response", "1", "--count", "10000"],
        value: ("/latency/median_us", 1.0),
        goal: Goal::AtMost { factor: 4.0 },
    },
];

/// A client and a server namespace, and what keeps them connected.
struct Ground {
    client: Site,
    server: Site,
    _router: Option<Netns>,
}

impl Ground {
    fn new(network: Network) -> Ground {
        match network {
            Network::Shaped => {
                let net = Routed::new(2, 1);
                net.shape_client(0, 300.0);
                net.shape_client(1, 200.0);
                Ground { client: net.client, server: net.server, _router: Some(net.router) }
            }
            Network::Plain => {
                let net = Direct::new();
                Ground { client: net.client, server: net.server, _router: None }
            }
        }
    }
}

/// Measures, prints the table and writes the JSON file.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(tools::is_root(), "benchmarks make network namespaces and need root: sudo -E cargo xtask bench");
    tools::require(tools::BENCH)?;
    if captured::requires(options) || relayed::requires(options) {
        tools::require(tools::CAPTURED)?;
    }
    let program = match &options.program {
        Some(program) => program.clone(),
        None => tools::build_program(true)?,
    };

    let mut all = Vec::new();
    let mut failed = false;
    for (i, figure) in FIGURES.iter().filter(|f| options.wants(f.name)).enumerate() {
        if i == 0 {
            println!("{:<46} {:<14} {:>10} {:>8} {:>16}", "figure", "client", "median", "kernel", "goal");
        }
        let measured = measure(figure, options, &program)?;
        let kernel = median(&measured[0].values);
        for (contestant, result) in Contestant::ALL.iter().zip(&measured) {
            match &result.failure {
                None => print_row(figure, *contestant, median(&result.values), kernel),
                Some(failure) => {
                    println!("{:<46} {:<14} FAILED: {failure:#}", figure.what, contestant.name());
                    failed = true;
                }
            }
        }
        all.push(json!({
            "figure": figure.name,
            "what": figure.what,
            "unit": figure.unit,
            "kernel": measured[0].values,
            "umptcp_cubic": measured[1].values,
            "umptcp_default": measured[2].values,
        }));
    }
    failed |= !connections::run(options, &program, &mut all)?;
    failed |= !captured::run(options, &program, &mut all)?;
    failed |= !goodput::run(options, &program, &mut all)?;
    failed |= !inside_udp::run(options, &program, &mut all)?;
    failed |= !relayed::run(options, &program, &mut all)?;
    failed |= !relay_latency::run(options, &program, &mut all)?;
    failed |= !relay_many::run(options, &program, &mut all)?;
    failed |= !reordering::run(options, &program, &mut all);
    failed |= !paths::run(options, &program, &mut all)?;
    ensure!(failed || !all.is_empty(), "no figure has that in its name; there are: {}", names());
    if let Some(path) = &options.json {
        let report = json!({
            "kernel_version": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
            "processors": std::thread::available_parallelism()?.get(),
            "runs": options.runs,
            "seconds": options.seconds,
            "mode": options.mode,
            "figures": all,
        });
        let mut file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(file, "{report:#}")?;
    }
    ensure!(!failed, "some measurements failed");
    Ok(())
}

fn names() -> String {
    let names = FIGURES.iter().map(|f| f.name).chain(connections::names());
    let names = names.chain(captured::names());
    let names = names.chain(goodput::names()).chain(inside_udp::names()).chain(relayed::names());
    let names = names.chain(relay_latency::names()).chain(relay_many::names()).chain(reordering::names());
    names.chain(paths::names()).collect::<Vec<_>>().join(", ")
}

fn print_row(figure: &Figure, contestant: Contestant, value: f64, kernel: f64) {
    let unit = figure.unit;
    let (what, comparison) = if contestant == Contestant::Kernel {
        (figure.what, String::new())
    } else {
        let (bound, kept) = figure.goal.judge(kernel, value);
        let sign = if matches!(figure.goal, Goal::AtMost { .. }) { '≤' } else { '≥' };
        let verdict = if kept { "met" } else { "MISSED" };
        ("", format!("{:>7.2}x {:>16}", value / kernel, format!("{sign} {bound:.1} {verdict}")))
    };
    println!("{what:<46} {:<14} {:>10} {comparison}", contestant.name(), format!("{value:.1} {unit}"));
}

/// What a contestant's measurements gave.
#[derive(Default)]
struct Measured {
    values: Vec<f64>,
    /// Why it was measured no further.
    failure: Option<anyhow::Error>,
}

/// The measurements of every contestant, in the order of [`Contestant::ALL`]. One that fails is left out from
/// then on; without the kernel's there is nothing to compare with.
fn measure(figure: &Figure, options: &Options, program: &Path) -> Result<[Measured; 3]> {
    let mut measured: [Measured; 3] = Default::default();
    for run in 0..options.runs {
        for (contestant, result) in Contestant::ALL.iter().zip(&mut measured) {
            if result.failure.is_some() {
                continue;
            }
            match measure_once(figure, *contestant, options, program) {
                Ok(value) => result.values.push(value),
                Err(e) => {
                    let e = e.context(format!(
                        "figure {}, run {} with {}",
                        figure.name,
                        run + 1,
                        contestant.name()
                    ));
                    if *contestant == Contestant::Kernel {
                        return Err(e);
                    }
                    result.failure = Some(e);
                }
            }
        }
    }
    Ok(measured)
}

/// Runs one client and one server on a network of their own, so that nothing of an earlier run is left in
/// queues, caches or rules.
fn measure_once(figure: &Figure, contestant: Contestant, options: &Options, program: &Path) -> Result<f64> {
    let ground = Ground::new(figure.network);
    ground.server.use_kernel_mptcp();
    if contestant == Contestant::Kernel {
        ground.client.use_kernel_mptcp();
    }
    let mut arguments: Vec<String> = figure.arguments.iter().map(|a| (*a).to_owned()).collect();
    if !figure.arguments.contains(&"--count") {
        arguments.extend(["--seconds".to_owned(), options.seconds.to_string()]);
    }
    arguments.extend(contestant.arguments(&ground.client, options));
    let sites = (&ground.client, &ground.server);
    let outcome = serve_and_measure(program, sites, ("kernel-mptcp", "cubic"), &arguments)?;
    ensure!(outcome["mptcp"] != false, "the connection is not MPTCP: {outcome}");
    let (pointer, scale) = figure.value;
    let value = outcome.pointer(pointer).and_then(Value::as_f64);
    Ok(value.with_context(|| format!("no {pointer} in {outcome}"))? / scale)
}

/// Runs `umptcp bench server` with the stack and algorithm of `service` and `umptcp bench client` with
/// `arguments`; returns the client's JSON.
fn serve_and_measure(
    program: &Path,
    (client_site, server_site): (&Site, &Site),
    service: (&str, &str),
    arguments: &[String],
) -> Result<Value> {
    let address = server_site.nics[0].v4.to_string();
    let mut server = Command::new(program);
    server.args(["bench", "server", "--once", "--stack", service.0, "--congestion", service.1]);
    server.arg(format!("{address}:{PORT}"));
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let server = Running::new(server_site.ns.run(|| server.spawn()).context("cannot start the server")?);
    wait_listening(&server_site.ns)?;

    let mut client = Command::new(program);
    client.args(["bench", "client", "--json", "--quiet"]).args(arguments);
    client.arg(&address).arg(PORT.to_string());
    let output =
        client_site.ns.run(|| client.stdin(Stdio::null()).output()).context("cannot start the client")?;
    if !output.status.success() {
        bail!("the client failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    server.wait();
    serde_json::from_slice(&output.stdout).context("the client's output is not JSON")
}

fn wait_listening(ns: &Netns) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ns.listens(PORT) {
        ensure!(Instant::now() < deadline, "the server does not listen after 10 s");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// `measure` for each of `measurements` at the same time; the results in their order.
fn at_once<T: Copy + Send>(
    measurements: &[T],
    measure: impl Fn(T) -> Result<f64> + Sync,
) -> Vec<Result<f64>> {
    std::thread::scope(|scope| {
        let measure = &measure;
        let threads: Vec<_> = measurements
            .iter()
            .map(|m| {
                scope.spawn({
                    let m = *m;
                    move || measure(m)
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<f64>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("the laboratory failed")))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Measures each of `contests` in turn, as often as the options say, so that what else the machine does falls
/// on all of them. A failure is printed. The values of each, and whether all went through.
fn in_turn<C: Copy, T, const N: usize>(
    (figure, runs): (&str, u16),
    contests: &[C; N],
    name: impl Fn(C) -> &'static str,
    measure: impl Fn(C) -> Result<T>,
) -> ([Vec<T>; N], bool) {
    let mut values = std::array::from_fn(|_| Vec::new());
    let mut sound = true;
    for run in 1..=runs {
        for (contest, values) in contests.iter().zip(&mut values) {
            match measure(*contest) {
                Ok(value) => values.push(value),
                Err(e) => {
                    println!("{figure:<16} {:<15} FAILED in run {run}: {e:#}", name(*contest));
                    sound = false;
                }
            }
        }
    }
    (values, sound)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_chosen_by_name() {
        let options = |only: Option<&str>, all| Options {
            runs: 1,
            seconds: 1,
            mode: "nat".to_owned(),
            only: only.map(str::to_owned),
            all,
            idle: 1,
            busy: 1,
            program: None,
            json: None,
        };
        let chosen = |options: Options| -> Vec<&str> {
            FIGURES
                .iter()
                .map(|f| f.name)
                .chain(connections::names())
                .chain(captured::names())
                .chain(goodput::names())
                .chain(inside_udp::names())
                .chain(relayed::names())
                .chain(relay_latency::names())
                .chain(relay_many::names())
                .chain(reordering::names())
                .chain(paths::names())
                .filter(|name| options.wants(name))
                .collect()
        };
        assert_eq!(chosen(options(None, false)), USUAL);
        assert_eq!(chosen(options(Some("mptcp-loss"), false)), ["mptcp-loss"]);
        assert_eq!(chosen(options(Some("connections"), false)), ["connections-1", "connections-64"]);
        let further = connections::names().chain(captured::names()).chain(goodput::names());
        let further = further.chain(inside_udp::names()).chain(relayed::names());
        let further = further.chain(relay_latency::names()).chain(relay_many::names());
        let further = further.chain(reordering::names()).count();
        assert_eq!(chosen(options(None, true)).len(), FIGURES.len() + further);
    }

    #[test]
    fn medians_and_goals() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let goal = Goal::AtLeast { factor: 0.25, but_no_more_than: Some(5.0) };
        assert_eq!(goal.judge(28.0, 5.1), (5.0, true));
        assert_eq!(goal.judge(16.0, 3.9), (4.0, false));
        assert_eq!(Goal::AtMost { factor: 4.0 }.judge(20.0, 81.0), (80.0, false));
    }
}
