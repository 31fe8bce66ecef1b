//! Programs under `umptcp run`, beside the same programs with the kernel's MPTCP (`mptcpize`): iperf3 at
//! either end and at both, over two shaped NICs and over one that is not; latency and connections per second
//! of plain TCP inside.
//!
//! Beside each throughput is the CPU time of the whole machine, both ends, in seconds per GB.

use super::{Options, PORT, in_turn, median};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::netns::shape;
use umptcp_testbed::topology::{self, Bridged, Direct};

/// Which way data flows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Up,
    Down,
    Four,
    Both,
}

impl Flow {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Flow::Up => &[],
            Flow::Down => &["-R"],
            Flow::Four => &["-P", "4"],
            Flow::Both => &["--bidir"],
        }
    }
}

/// Throughput of iperf3.
struct Figure {
    name: &'static str,
    flow: Flow,
    shaped: bool,
    /// What is asked with `run` at one end, and at both, of the kernel's.
    goals: [f64; 2],
}

const FIGURES: &[Figure] = &[
    Figure { name: "run-shaped-up", flow: Flow::Up, shaped: true, goals: [0.97, 0.97] },
    Figure { name: "run-shaped-down", flow: Flow::Down, shaped: true, goals: [0.97, 0.97] },
    Figure { name: "run-shaped-four", flow: Flow::Four, shaped: true, goals: [0.97, 0.97] },
    Figure { name: "run-shaped-both", flow: Flow::Both, shaped: true, goals: [0.97, 0.97] },
    Figure { name: "run-unshaped-up", flow: Flow::Up, shaped: false, goals: [0.4, 0.2] },
    Figure { name: "run-unshaped-down", flow: Flow::Down, shaped: false, goals: [0.4, 0.2] },
];

/// What plain TCP inside costs, beside the kernel's MPTCP without us.
struct Cost {
    name: &'static str,
    unit: &'static str,
    arguments: &'static [&'static str],
    value: &'static str,
}

const COSTS: &[Cost] = &[
    Cost {
        name: "run-latency",
        unit: "us",
        arguments: &["--mode", "latency", "--count", "2000"],
        value: "/latency/median_us",
    },
    Cost {
        name: "run-per-second",
        unit: "1/s",
        arguments: &["--mode", "connections", "--seconds", "2"],
        value: "/per_second",
    },
];

/// The names of the figures.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FIGURES.iter().map(|f| f.name).chain(COSTS.iter().map(|c| c.name))
}

/// Who is under `run`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Contest {
    client: bool,
    server: bool,
}

impl Contest {
    const ALL: [Contest; 4] = [
        Contest { client: false, server: false },
        Contest { client: true, server: false },
        Contest { client: false, server: true },
        Contest { client: true, server: true },
    ];

    fn name(self) -> &'static str {
        match (self.client, self.server) {
            (false, false) => "kernel",
            (true, false) => "run, client",
            (false, true) => "run, server",
            (true, true) => "run, both",
        }
    }

    fn goal(self, figure: &Figure) -> Option<f64> {
        match (self.client, self.server) {
            (false, false) => None,
            (true, true) => Some(figure.goals[1]),
            _ => Some(figure.goals[0]),
        }
    }
}

/// Bits per second, and CPU seconds per GB.
#[derive(Clone, Copy)]
struct Measured {
    rate: f64,
    cpu: f64,
}

/// Measures what is wanted, prints a row for each contest and returns all values. Whether all went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    let mut sound = true;
    for (i, figure) in FIGURES.iter().filter(|f| options.wants(f.name)).enumerate() {
        if i == 0 {
            println!(
                "\n{:<18} {:<12} {:>9} {:>7} {:>9}  goal",
                "iperf3, Mbit/s", "", "median", "ratio", "CPU s/GB"
            );
        }
        let (values, all_went) =
            in_turn((figure.name, options.runs), &Contest::ALL, Contest::name, |contest| {
                measure(figure, contest, options, program)
            });
        sound &= all_went;
        if values.iter().any(Vec::is_empty) {
            continue;
        }
        let of = |values: &[Measured], what: fn(&Measured) -> f64| {
            median(&values.iter().map(what).collect::<Vec<_>>())
        };
        let kernel = of(&values[0], |m| m.rate);
        for (contest, values) in Contest::ALL.iter().zip(&values) {
            let (rate, cpu) = (of(values, |m| m.rate), of(values, |m| m.cpu));
            let verdict = contest.goal(figure).map_or(String::new(), |goal| {
                format!("{goal} {}", if rate >= goal * kernel { "met" } else { "MISSED" })
            });
            let (name, ratio) = (if verdict.is_empty() { figure.name } else { "" }, rate / kernel);
            println!(
                "{name:<18} {:<12} {:>9.0} {ratio:>7.2} {cpu:>9.2}  {verdict}",
                contest.name(),
                rate / 1e6
            );
        }
        let rates = |values: &[Measured]| values.iter().map(|m| m.rate / 1e6).collect::<Vec<_>>();
        let each = Contest::ALL.iter().zip(&values).map(|(c, v)| (c.name().to_owned(), json!(rates(v))));
        all.push(json!({ "figure": figure.name, "unit": "Mbit/s", "values": each.collect::<serde_json::Map<_, _>>() }));
    }
    for cost in COSTS.iter().filter(|c| options.wants(c.name)) {
        sound &= measure_cost(cost, options, program, all);
    }
    Ok(sound)
}

/// Two client NICs of 300 and 200 Mbit/s on the server's subnet, or one link without a limit.
enum Ground {
    Shaped(Bridged),
    Plain(Direct),
}

impl Ground {
    fn new(shaped: bool) -> Ground {
        if !shaped {
            let net = Direct::new();
            net.client.use_kernel_mptcp();
            net.server.use_kernel_mptcp();
            return Ground::Plain(net);
        }
        let net = topology::bridged();
        net.use_kernel_mptcp();
        for (nic, mbit) in net.client.nics.iter().zip([300.0, 200.0]) {
            shape(&net.client.ns, &nic.device, mbit);
            shape(&net.switch, &nic.far_device, mbit);
        }
        Ground::Shaped(net)
    }

    fn namespaces(&self) -> [&Netns; 2] {
        match self {
            Ground::Shaped(net) => [&net.client.ns, &net.server.ns],
            Ground::Plain(net) => [&net.client.ns, &net.server.ns],
        }
    }

    fn server(&self) -> String {
        match self {
            Ground::Shaped(net) => net.server.nics[0].v4.to_string(),
            Ground::Plain(net) => net.server.nics[0].v4.to_string(),
        }
    }
}

/// `command` under `run`, or with the kernel's MPTCP.
fn command(captured: bool, program: &Path, command: &[&str]) -> Command {
    let mut whole = if captured { Command::new(program) } else { Command::new("mptcpize") };
    whole.arg("run");
    if captured {
        whole.arg("--");
    }
    whole.args(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    whole
}

fn measure(figure: &Figure, contest: Contest, options: &Options, program: &Path) -> Result<Measured> {
    let ground = Ground::new(figure.shaped);
    let [client, server] = ground.namespaces();
    let mut serve = command(contest.server, program, &["iperf3", "-s", "-1"]);
    let serving = server.run(|| serve.spawn()).context("cannot start the server")?;
    let _serving = Running::new(serving);
    let (address, seconds) = (ground.server(), options.seconds.to_string());
    // A host's default may be BBR, which takes a link without delay for a slow one, and a full queue for the
    // end.
    let mut arguments = vec!["iperf3", "-J", "-C", "cubic", "-c", &address, "-t", &seconds];
    arguments.extend(figure.flow.arguments());
    let end = Instant::now() + Duration::from_secs(10);
    // A server under `run` is reachable a moment after it listens.
    let (outcome, cpu) = loop {
        let mut measuring = command(contest.client, program, &arguments);
        let before = busy()?;
        let output = client.run(|| measuring.output()).context("cannot start the client")?;
        let cpu = busy()? - before;
        let outcome: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        match outcome["error"].as_str() {
            None if output.status.success() => break (outcome, cpu),
            Some(error) if error.contains("refused") && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(100));
            }
            error => bail!("{} {}", error.unwrap_or(""), String::from_utf8_lossy(&output.stderr).trim()),
        }
    };
    let sum = |name: &str, field: &str| outcome["end"][name][field].as_f64();
    let rate = sum("sum_received", "bits_per_second").with_context(|| format!("no rate in {outcome}"))?;
    let bytes = sum("sum_received", "bytes").unwrap_or(0.0);
    let back = sum("sum_received_bidir_reverse", "bits_per_second").unwrap_or(0.0);
    let bytes = bytes + sum("sum_received_bidir_reverse", "bytes").unwrap_or(0.0);
    ensure!(bytes > 0.0, "nothing was received");
    Ok(Measured { rate: rate + back, cpu: cpu / (bytes / 1e9) })
}

/// CPU time that this machine has spent so far, in seconds.
fn busy() -> Result<f64> {
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    ensure!(fields.len() > 6, "/proc/stat has another form");
    // user, nice, system, and interrupts; not idle and waiting.
    Ok([0, 1, 2, 5, 6].map(|i| fields[i]).iter().sum::<f64>() / TICKS)
}

/// A client of plain TCP inside, beside one of the kernel's MPTCP. Prints both. Whether all went through.
fn measure_cost(cost: &Cost, options: &Options, program: &Path, all: &mut Vec<Value>) -> bool {
    let mut values: [Vec<f64>; 2] = Default::default();
    for _ in 0..options.runs {
        for (captured, values) in [false, true].into_iter().zip(&mut values) {
            match measure_cost_once(cost, captured, program) {
                Ok(value) => values.push(value),
                Err(e) => {
                    println!("{:<18} FAILED: {e:#}", cost.name);
                    return false;
                }
            }
        }
    }
    let [kernel, inside] = values.each_ref().map(|v| median(v));
    println!(
        "{:<18} kernel {kernel:.0} {unit}, inside {inside:.0} {unit}, ratio {:.2}",
        cost.name,
        inside / kernel,
        unit = cost.unit
    );
    all.push(json!({ "figure": cost.name, "unit": cost.unit, "kernel": values[0], "inside": values[1] }));
    true
}

fn measure_cost_once(cost: &Cost, captured: bool, program: &Path) -> Result<f64> {
    let ground = Ground::new(false);
    let [client, server] = ground.namespaces();
    let mut serve = Command::new(program);
    serve.args(["bench", "server", "--stack", "kernel-mptcp"]).arg(PORT.to_string());
    serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _serving = Running::new(server.run(|| serve.spawn()).context("cannot start the server")?);
    super::wait_listening(server)?;
    let mut measuring = Command::new(program);
    if captured {
        measuring.args(["run", "--"]).arg(program);
    }
    let stack = if captured { "kernel-tcp" } else { "kernel-mptcp" };
    measuring.args(["bench", "client", "--json", "--quiet", "--stack", stack]);
    measuring.args(cost.arguments).arg(ground.server()).arg(PORT.to_string()).stdin(Stdio::null());
    let output = client.run(|| measuring.output()).context("cannot start the client")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let outcome: Value = serde_json::from_slice(&output.stdout).context("the client's output is not JSON")?;
    outcome.pointer(cost.value).and_then(Value::as_f64).with_context(|| format!("no value in {outcome}"))
}

/// iperf3 is there only for these.
pub(super) fn requires(options: &Options) -> bool {
    FIGURES.iter().any(|f| options.wants(f.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_alone_has_no_goal() {
        let goals = Contest::ALL.map(|c| c.goal(&FIGURES[4]));
        assert_eq!(goals, [None, Some(0.4), Some(0.4), Some(0.2)]);
    }
}
