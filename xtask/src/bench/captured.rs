//! Programs under `umptcp run`, beside the same programs with the kernel's MPTCP (`mptcpize`): iperf3 at
//! either end and at both, over two shaped NICs and over one that is not; latency and connections per second
//! of plain TCP inside. Without a limit also beside the same program under `pasta` (Debian's passt), which
//! puts a program behind a user-space stack without MPTCP.
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
use umptcp_testbed::netns;
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

/// What limits the NICs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shaper {
    None,
    /// A token bucket with a queue of 20 ms.
    Bucket,
    /// A bucket of 64 kB, which holds no segment of that size with the headers of its packets, with a queue of 50 ms.
    Deep,
    /// A class of a hierarchical token bucket, with a queue of a thousand packets.
    Class,
}

/// Throughput of iperf3.
struct Figure {
    name: &'static str,
    flow: Flow,
    shaper: Shaper,
    /// What is asked with `run` at one end, and at both, of the kernel's.
    goals: [f64; 2],
}

const FIGURES: &[Figure] = &[
    Figure { name: "run-shaped-up", flow: Flow::Up, shaper: Shaper::Bucket, goals: [0.97, 0.97] },
    Figure { name: "run-shaped-down", flow: Flow::Down, shaper: Shaper::Bucket, goals: [0.97, 0.97] },
    Figure { name: "run-shaped-four", flow: Flow::Four, shaper: Shaper::Bucket, goals: [0.97, 0.97] },
    Figure { name: "run-shaped-both", flow: Flow::Both, shaper: Shaper::Bucket, goals: [0.97, 0.97] },
    Figure { name: "run-deep-both", flow: Flow::Both, shaper: Shaper::Deep, goals: [0.97, 0.97] },
    Figure { name: "run-htb-up", flow: Flow::Up, shaper: Shaper::Class, goals: [0.97, 0.97] },
    Figure { name: "run-htb-down", flow: Flow::Down, shaper: Shaper::Class, goals: [0.97, 0.97] },
    Figure { name: "run-unshaped-up", flow: Flow::Up, shaper: Shaper::None, goals: [0.4, 0.2] },
    Figure { name: "run-unshaped-down", flow: Flow::Down, shaper: Shaper::None, goals: [0.4, 0.2] },
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

/// What is under what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contest {
    /// Both ends with the kernel's MPTCP.
    Kernel,
    /// The client under `run`.
    Client,
    /// The server under `run`.
    Server,
    /// Both under `run`.
    Both,
    /// The client under `pasta`.
    Pasta,
}

impl Contest {
    const ALL: [Contest; 5] =
        [Contest::Kernel, Contest::Client, Contest::Server, Contest::Both, Contest::Pasta];

    fn name(self) -> &'static str {
        match self {
            Contest::Kernel => "kernel",
            Contest::Client => "run, client",
            Contest::Server => "run, server",
            Contest::Both => "run, both",
            Contest::Pasta => "pasta, client",
        }
    }

    fn goal(self, figure: &Figure) -> Option<f64> {
        match self {
            Contest::Kernel | Contest::Pasta => None,
            Contest::Both => Some(figure.goals[1]),
            Contest::Client | Contest::Server => Some(figure.goals[0]),
        }
    }

    /// Whether it is measured for a figure: there is one path without a limit behind `pasta`.
    fn takes_part(self, figure: &Figure) -> bool {
        self != Contest::Pasta || figure.shaper == Shaper::None
    }

    /// What the client's program is under.
    fn around_client(self) -> Around {
        match self {
            Contest::Kernel | Contest::Server => Around::Kernel,
            Contest::Client | Contest::Both => Around::Umptcp,
            Contest::Pasta => Around::Pasta,
        }
    }

    fn around_server(self) -> Around {
        match self {
            Contest::Server | Contest::Both => Around::Umptcp,
            _ => Around::Kernel,
        }
    }
}

/// What carries a program's TCP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Kernel,
    Umptcp,
    Pasta,
}

/// Bits per second, and CPU seconds per GB.
#[derive(Clone, Copy)]
pub(super) struct Measured {
    pub(super) rate: f64,
    pub(super) cpu: f64,
}

/// Measures what is wanted, prints a row for each contest and returns all values. Whether all went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    let mut sound = true;
    for (i, figure) in FIGURES.iter().filter(|f| options.wants(f.name)).enumerate() {
        if i == 0 {
            println!(
                "\n{:<18} {:<14} {:>9} {:>7} {:>9}  goal",
                "iperf3, Mbit/s", "", "median", "ratio", "CPU s/GB"
            );
        }
        let (values, all_went) =
            in_turn((figure.name, options.runs), &Contest::ALL, Contest::name, |contest| {
                let taking_part = contest.takes_part(figure);
                taking_part.then(|| measure(figure, contest, options, program)).transpose()
            });
        sound &= all_went;
        let values = values.map(|v| v.into_iter().flatten().collect::<Vec<Measured>>());
        let measured = |(c, v): (&Contest, &Vec<Measured>)| !c.takes_part(figure) || !v.is_empty();
        if !Contest::ALL.iter().zip(&values).all(measured) {
            continue;
        }
        let of = |values: &[Measured], what: fn(&Measured) -> f64| {
            median(&values.iter().map(what).collect::<Vec<_>>())
        };
        let kernel = of(&values[0], |m| m.rate);
        let parts = || Contest::ALL.iter().zip(&values).filter(|(c, _)| c.takes_part(figure));
        for (contest, values) in parts() {
            let (rate, cpu) = (of(values, |m| m.rate), of(values, |m| m.cpu));
            let verdict = contest.goal(figure).map_or(String::new(), |goal| {
                format!("{goal} {}", if rate >= goal * kernel { "met" } else { "MISSED" })
            });
            let first = *contest == Contest::Kernel;
            let (name, ratio) = (if first { figure.name } else { "" }, rate / kernel);
            println!(
                "{name:<18} {:<14} {:>9.0} {ratio:>7.2} {cpu:>9.2}  {verdict}",
                contest.name(),
                rate / 1e6
            );
        }
        let rates = |values: &[Measured]| values.iter().map(|m| m.rate / 1e6).collect::<Vec<_>>();
        let each = parts().map(|(c, v)| (c.name().to_owned(), json!(rates(v))));
        all.push(json!({ "figure": figure.name, "unit": "Mbit/s", "values": each.collect::<serde_json::Map<_, _>>() }));
    }
    for cost in COSTS.iter().filter(|c| options.wants(c.name)) {
        sound &= measure_cost(cost, options, program, all);
    }
    Ok(sound)
}

fn shape_deep(ns: &Netns, device: &str, mbit: f64) {
    ns.sh(&format!("tc qdisc replace dev {device} root tbf rate {mbit}mbit burst 64k latency 50ms"));
}

/// Two client NICs of 300 and 200 Mbit/s on the server's subnet, or one link without a limit.
enum Ground {
    Shaped(Bridged),
    Plain(Direct),
}

impl Ground {
    fn new(shaper: Shaper) -> Ground {
        let shape = match shaper {
            Shaper::None => {
                let net = Direct::new();
                net.client.use_kernel_mptcp();
                net.server.use_kernel_mptcp();
                return Ground::Plain(net);
            }
            Shaper::Bucket => netns::shape,
            Shaper::Deep => shape_deep,
            Shaper::Class => netns::shape_by_class,
        };
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

/// `command` under what is around it.
fn command(around: Around, program: &Path, command: &[&str]) -> Command {
    let mut whole = match around {
        Around::Kernel => Command::new("mptcpize"),
        Around::Umptcp => Command::new(program),
        Around::Pasta => Command::new("pasta"),
    };
    match around {
        Around::Kernel => whole.arg("run"),
        Around::Umptcp => whole.args(["run", "--"]),
        // Otherwise the gateway's address leads to the host itself.
        Around::Pasta => whole.args(["--config-net", "--no-map-gw", "--netns-only", "--runas", "0", "--"]),
    };
    whole.args(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    whole
}

fn measure(figure: &Figure, contest: Contest, options: &Options, program: &Path) -> Result<Measured> {
    let ground = Ground::new(figure.shaper);
    let [client, server] = ground.namespaces();
    if contest == Contest::Pasta {
        // It looks for the NIC of the default route.
        client.sh(&format!("ip route replace default via {}", ground.server()));
    }
    let mut serve = command(contest.around_server(), program, &["iperf3", "-s", "-1"]);
    let serving = server.run(|| serve.spawn()).context("cannot start the server")?;
    let _serving = Running::new(serving);
    let (address, seconds) = (ground.server(), options.seconds.to_string());
    // A host's default may be BBR, which takes a link without delay for a slow one, and a full queue for the
    // end.
    let mut arguments = vec!["iperf3", "-J", "-C", "cubic", "-c", &address, "-t", &seconds];
    arguments.extend(figure.flow.arguments());
    iperf(client, || command(contest.around_client(), program, &arguments))
}

/// Runs a client of iperf3, of which `start` makes the command, as soon as its server is there.
pub(super) fn iperf(client: &Netns, start: impl Fn() -> Command) -> Result<Measured> {
    let end = Instant::now() + Duration::from_secs(10);
    // A server under `run` is reachable a moment after it listens.
    let (outcome, cpu) = loop {
        let mut measuring = start();
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
pub(super) fn busy() -> Result<f64> {
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
    let ground = Ground::new(Shaper::None);
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
        let unshaped = FIGURES.iter().find(|f| f.shaper == Shaper::None).expect("a figure");
        let goals = Contest::ALL.map(|c| c.goal(unshaped));
        assert_eq!(goals, [None, Some(0.4), Some(0.4), Some(0.2), None]);
        assert!(Contest::ALL.iter().all(|c| c.takes_part(unshaped)));
        assert!(!Contest::Pasta.takes_part(&FIGURES[0]));
    }
}
