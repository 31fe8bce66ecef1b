//! Goodput of one connection where packets are lost, late or out of order: umptcp and the kernel against the
//! kernel. Plain TCP but for one scenario, whose two paths MPTCP uses.
//!
//! Loss is nftables' in a router between links of 100 Mbit/s that carry single packets; delay and disorder
//! are netsim's, in real time. Both stacks and both directions are measured at the same time, each on a
//! network of its own: none of them uses more than a fraction of a processor, and whatever else the machine
//! does falls on all of them. Every byte is proved by SHA-256.

use super::{Options, at_once, median, serve_and_measure};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use umptcp_netsim::{Link, Queue};
use umptcp_testbed::emulated_link::EmulatedLink;
use umptcp_testbed::topology::{Routed, Site};

/// What is asked: umptcp's median is at least this share of the kernel's.
const GOAL: f64 = 0.9;

/// A pair of algorithms that is compared.
#[derive(Clone, Copy)]
struct Algorithms {
    umptcp: &'static str,
    kernel: &'static str,
    /// Also where the kernel sends: another algorithm of umptcp's makes no difference there.
    both_directions: bool,
}

/// What both stacks have.
const PLAIN: &[Algorithms] = &[
    Algorithms { umptcp: "cubic", kernel: "cubic", both_directions: true },
    Algorithms { umptcp: "reno", kernel: "reno", both_directions: true },
];

/// The kernel has no coupled algorithm.
const MPTCP: &[Algorithms] = &[
    Algorithms { umptcp: "cubic", kernel: "cubic", both_directions: true },
    Algorithms { umptcp: "lia", kernel: "cubic", both_directions: false },
];

/// A network and what goes wrong on it.
struct Scenario {
    name: &'static str,
    what: &'static str,
    /// Multiplies `--seconds`: paths with a long round-trip time need longer to show anything but their slow
    /// start.
    longer: u16,
    trouble: Trouble,
}

enum Trouble {
    /// The share of packets that a router loses.
    Loss(f64),
    /// A link of netsim's.
    Link(fn() -> Link),
    /// Two paths of which a router loses these shares, and MPTCP over both.
    Paths([f64; 2]),
}

impl Scenario {
    fn is_mptcp(&self) -> bool {
        matches!(self.trouble, Trouble::Paths(_))
    }

    fn algorithms(&self) -> &'static [Algorithms] {
        if self.is_mptcp() { MPTCP } else { PLAIN }
    }
}

/// 50 Mbit/s with that delay each way and a queue of a round-trip time, at least 20 packets.
fn delayed(ms: u64) -> Link {
    let queue = Duration::from_millis(2 * ms).max(Duration::from_millis(5));
    Link::mbit(50).delay_ms(ms).queue(Queue::Time(queue))
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "loss-0.1", what: "100 Mbit/s, 0.1 % lost", longer: 1, trouble: Trouble::Loss(0.001) },
    Scenario { name: "loss-1", what: "100 Mbit/s, 1 % lost", longer: 1, trouble: Trouble::Loss(0.01) },
    Scenario { name: "loss-5", what: "100 Mbit/s, 5 % lost", longer: 1, trouble: Trouble::Loss(0.05) },
    Scenario {
        name: "mptcp-loss",
        what: "MPTCP, 2 x 50 Mbit/s, 0.1 and 1 % lost",
        longer: 1,
        trouble: Trouble::Paths([0.001, 0.01]),
    },
    Scenario {
        name: "delayed-loss",
        what: "50 Mbit/s, 10 ms, 0.1 % lost",
        longer: 1,
        trouble: Trouble::Link(|| delayed(10).loss(0.001)),
    },
    Scenario {
        name: "reordering",
        what: "50 Mbit/s, 10 ms, 1 % late by 2 ms",
        longer: 1,
        trouble: Trouble::Link(|| delayed(10).reorder(0.01, Duration::from_millis(2))),
    },
    Scenario {
        name: "reordering-strong",
        what: "50 Mbit/s, 10 ms, 1 % late by 10 ms",
        longer: 1,
        trouble: Trouble::Link(|| delayed(10).reorder(0.01, Duration::from_millis(10))),
    },
    Scenario { name: "delay-1", what: "50 Mbit/s, 1 ms", longer: 1, trouble: Trouble::Link(|| delayed(1)) },
    Scenario {
        name: "delay-50",
        what: "50 Mbit/s, 50 ms",
        longer: 2,
        trouble: Trouble::Link(|| delayed(50)),
    },
    Scenario {
        name: "delay-200",
        what: "50 Mbit/s, 200 ms",
        longer: 4,
        trouble: Trouble::Link(|| delayed(200)),
    },
];

/// The names of the scenarios.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|s| s.name)
}

/// One measurement: who is the client, and who sends.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Measurement {
    umptcp: bool,
    down: bool,
}

/// Measures the scenarios that are wanted, prints a row for each and returns all values. Whether all went
/// through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    let mut sound = true;
    let wanted = SCENARIOS.iter().filter(|s| options.wants(s.name));
    for (i, scenario) in wanted.enumerate() {
        if i == 0 {
            println!(
                "\n{:<38} {:<6} {:<9} {:>9} {:>9} {:>7}  least and most of umptcp's",
                "goodput, Mbit/s", "", "sender", "kernel", "umptcp", "ratio"
            );
        }
        for algorithms in scenario.algorithms() {
            sound &= compare(scenario, *algorithms, options, program, all);
        }
    }
    Ok(sound)
}

/// Measures one scenario with one pair of algorithms. Whether all went through.
fn compare(
    scenario: &Scenario,
    algorithms: Algorithms,
    options: &Options,
    program: &Path,
    all: &mut Vec<Value>,
) -> bool {
    let directions: &[bool] = if algorithms.both_directions { &[false, true] } else { &[false] };
    let measurements: Vec<Measurement> = directions
        .iter()
        .flat_map(|&down| [false, true].map(|umptcp| Measurement { umptcp, down }))
        .collect();
    let mut values = vec![Vec::new(); measurements.len()];
    let mut sound = true;
    for run in 0..options.runs {
        let results = at_once(&measurements, |m| {
            measure_once(scenario, algorithms, m, u64::from(run), options, program)
        });
        for (values, result) in values.iter_mut().zip(results) {
            match result {
                Ok(value) => values.push(value),
                Err(e) => {
                    println!("{:<38} {:<6} FAILED: {e:#}", scenario.what, algorithms.umptcp);
                    sound = false;
                }
            }
        }
    }
    if values.iter().any(Vec::is_empty) {
        return false;
    }
    for (direction, &down) in values.chunks(2).zip(directions) {
        let sender = if down { "kernel" } else { "umptcp" };
        print_row(scenario, algorithms.umptcp, sender, &direction[0], &direction[1]);
        all.push(json!({
            "figure": scenario.name,
            "what": scenario.what,
            "unit": "Mbit/s",
            "congestion": algorithms.umptcp,
            "kernel_congestion": algorithms.kernel,
            "sender": sender,
            "kernel": direction[0],
            "umptcp": direction[1],
        }));
    }
    sound
}

fn print_row(scenario: &Scenario, algorithm: &str, sender: &str, kernel: &[f64], umptcp: &[f64]) {
    let (base, ours) = (median(kernel), median(umptcp));
    let (least, most) = umptcp.iter().fold((f64::INFINITY, 0.0_f64), |(l, m), v| (l.min(*v), m.max(*v)));
    let verdict = if ours >= GOAL * base { "met" } else { "MISSED" };
    println!(
        "{:<38} {algorithm:<6} {sender:<9} {base:>9.2} {ours:>9.2} {:>7.2}  {least:.2} to {most:.2}, {verdict}",
        scenario.what,
        ours / base
    );
}

fn measure_once(
    scenario: &Scenario,
    algorithms: Algorithms,
    measurement: Measurement,
    seed: u64,
    options: &Options,
    program: &Path,
) -> Result<f64> {
    let sites =
        |client, server| transfer(scenario, algorithms, measurement, options, program, (client, server));
    match scenario.trouble {
        Trouble::Loss(share) => {
            let net = Routed::new(1, 1);
            net.shape_client(0, 100.0);
            net.lose_at_random(share);
            sites(&net.client, &net.server)
        }
        Trouble::Link(link) => {
            // The same draws for both stacks, as long as they send the same packets.
            let net = EmulatedLink::new(link(), link(), seed);
            sites(&net.client, &net.server)
        }
        Trouble::Paths(shares) => {
            let net = Routed::new(2, 1);
            net.shape_client(0, 50.0);
            net.shape_client(1, 50.0);
            net.lose_at_random_on_links(&shares);
            net.server.use_kernel_mptcp();
            if !measurement.umptcp {
                net.client.use_kernel_mptcp();
            }
            sites(&net.client, &net.server)
        }
    }
}

fn transfer(
    scenario: &Scenario,
    algorithms: Algorithms,
    measurement: Measurement,
    options: &Options,
    program: &Path,
    (client, server): (&Site, &Site),
) -> Result<f64> {
    let direction = if measurement.down { "down" } else { "up" };
    let algorithm = if measurement.umptcp { algorithms.umptcp } else { algorithms.kernel };
    let kernel = if scenario.is_mptcp() { "kernel-mptcp" } else { "kernel-tcp" };
    let seconds = options.seconds * scenario.longer;
    let mut arguments: Vec<String> =
        ["--verify", "--direction", direction, "--congestion", algorithm, "--seconds"]
            .map(str::to_owned)
            .to_vec();
    arguments.push(seconds.to_string());
    if measurement.umptcp {
        arguments.extend(["--stack", "umptcp"].map(str::to_owned));
        if !scenario.is_mptcp() {
            arguments.push("--no-mptcp".to_owned());
        }
        arguments.extend(options.path_arguments(client));
    } else {
        arguments.extend(["--stack", kernel].map(str::to_owned));
    }
    let service = (kernel, algorithms.kernel);
    let outcome = serve_and_measure(program, (client, server), service, &arguments)?;
    ensure!(outcome["verified"] == true, "the bytes that arrived are not those that were sent: {outcome}");
    ensure!(
        outcome["congestion"] == algorithm && outcome["server"]["congestion"] == algorithms.kernel,
        "other algorithms than {algorithm} and {} were used: {outcome}",
        algorithms.kernel
    );
    // The kernel does not always say.
    ensure!(outcome["mptcp"] != !scenario.is_mptcp(), "MPTCP or not, it should be the other: {outcome}");
    let value = outcome.pointer(&format!("/{direction}/bits_per_second")).and_then(Value::as_f64);
    Ok(value.with_context(|| format!("no rate in {outcome}"))? / 1e6)
}
