//! How long an upload takes over one path whose packets overtake one another, in both directions: umptcp with
//! each of its algorithms, and the kernel, against the kernel's MPTCP.
//!
//! All senders are measured at the same time, each on a network of its own with the same seed, so that what
//! else the machine does falls on all of them. Every byte is proved by SHA-256.

use super::{Options, at_once, median, serve_and_measure};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use umptcp_netsim::{Link, Queue};
use umptcp_testbed::emulated_link::EmulatedLink;

/// What is asked: umptcp's median is at most this many times the kernel's.
const GOAL: f64 = 1.2;

/// What is sent: 1.5 MB unless the figure says otherwise.
const BYTES: u64 = 1_500_000;

/// The kernel's algorithm.
const KERNEL: &str = "cubic";

/// Who sends to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contestant {
    /// Kernel to kernel.
    Kernel,
    /// umptcp with this algorithm to the kernel.
    Umptcp(&'static str),
    /// The kernel to umptcp.
    Receiver,
}

const CONTESTANTS: &[Contestant] = &[
    Contestant::Kernel,
    Contestant::Umptcp("lia"),
    Contestant::Umptcp("olia"),
    Contestant::Umptcp("balia"),
    Contestant::Umptcp("wvegas"),
    Contestant::Umptcp("cubic"),
    Contestant::Umptcp("reno"),
    Contestant::Receiver,
];

impl Contestant {
    fn name(self) -> &'static str {
        match self {
            Contestant::Kernel => "kernel",
            Contestant::Umptcp(algorithm) => algorithm,
            Contestant::Receiver => "received",
        }
    }
}

/// A degree of disorder, on a path of 100 Mbit/s with this delay each way.
struct Scenario {
    name: &'static str,
    /// Milliseconds each way.
    delay: u64,
    /// The share of packets that are late.
    share: f64,
    /// By so many milliseconds.
    late: u64,
    /// What is sent.
    bytes: u64,
}

impl Scenario {
    fn what(&self) -> String {
        let Scenario { delay, share, late, bytes, .. } = self;
        format!("{:.1} MB, {delay} ms, {} % late by {late} ms", *bytes as f64 / 1e6, share * 100.0)
    }

    fn link(&self) -> Link {
        Link::mbit(100)
            .delay_ms(self.delay)
            .queue(Queue::Time(Duration::from_millis(80)))
            .reorder(self.share, Duration::from_millis(self.late))
    }
}

const fn scenario(name: &'static str, delay: u64, share: f64, late: u64) -> Scenario {
    Scenario { name, delay, share, late, bytes: BYTES }
}

const SCENARIOS: &[Scenario] = &[
    // None: what the others are to be read against.
    scenario("disorder-none", 20, 0.0, 0),
    scenario("disorder-1-5", 20, 0.01, 5),
    scenario("disorder-10-5", 20, 0.1, 5),
    scenario("disorder-30-5", 20, 0.3, 5),
    scenario("disorder-1-20", 20, 0.01, 20),
    scenario("disorder-10-20", 20, 0.1, 20),
    scenario("disorder-30-20", 20, 0.3, 20),
    // Later than a round-trip time.
    scenario("disorder-10-60", 20, 0.1, 60),
    // One packet in ten overtakes all that were sent 20 ms before it.
    scenario("disorder-early", 0, 0.9, 20),
    scenario("disorder-half", 0, 0.5, 20),
    Scenario { bytes: 10 * BYTES, ..scenario("disorder-10-20-long", 20, 0.1, 20) },
];

/// The names of the scenarios.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|s| s.name)
}

/// Measures the scenarios that are wanted, prints a row for each sender and returns all values. Whether all
/// went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> bool {
    let mut sound = true;
    for (i, scenario) in SCENARIOS.iter().filter(|s| options.wants(s.name)).enumerate() {
        if i == 0 {
            println!(
                "\n{:<42} {:<9} {:>8} {:>7}  least and most",
                "upload over one path, seconds", "sender", "median", "ratio"
            );
        }
        sound &= compare(scenario, options, program, all);
    }
    sound
}

/// Measures one scenario. Whether all went through.
fn compare(scenario: &Scenario, options: &Options, program: &Path, all: &mut Vec<Value>) -> bool {
    let mut values = vec![Vec::new(); CONTESTANTS.len()];
    let mut sound = true;
    for run in 0..options.runs {
        // All contestants at the same time.
        let results = at_once(CONTESTANTS, |c| measure_once(scenario, c, u64::from(run), options, program));
        for ((values, result), contestant) in values.iter_mut().zip(results).zip(CONTESTANTS) {
            match result {
                Ok(value) => values.push(value),
                Err(e) => {
                    println!("{:<42} {:<9} FAILED: {e:#}", scenario.what(), contestant.name());
                    sound = false;
                }
            }
        }
    }
    if values.iter().any(Vec::is_empty) {
        return false;
    }
    let kernel = median(&values[0]);
    for (contestant, values) in CONTESTANTS.iter().zip(&values) {
        print_row(scenario, *contestant, values, kernel);
    }
    let of = |(contestant, values): (&Contestant, &Vec<f64>)| (contestant.name().to_owned(), json!(values));
    all.push(json!({
        "figure": scenario.name,
        "what": scenario.what(),
        "unit": "s",
        "values": CONTESTANTS.iter().zip(&values).map(of).collect::<serde_json::Map<_, _>>(),
    }));
    sound
}

fn print_row(scenario: &Scenario, contestant: Contestant, values: &[f64], kernel: f64) {
    let middle = median(values);
    let (least, most) = values.iter().fold((f64::INFINITY, 0.0_f64), |(l, m), v| (l.min(*v), m.max(*v)));
    let (what, verdict) = match contestant {
        Contestant::Kernel => (scenario.what(), ""),
        Contestant::Umptcp(_) if middle > GOAL * kernel => (String::new(), ", MISSED"),
        Contestant::Umptcp(_) => (String::new(), ", met"),
        Contestant::Receiver => (String::new(), ""),
    };
    println!(
        "{what:<42} {:<9} {middle:>8.2} {:>7.2}  {least:.2} to {most:.2}{verdict}",
        contestant.name(),
        middle / kernel
    );
}

fn measure_once(
    scenario: &Scenario,
    contestant: Contestant,
    seed: u64,
    options: &Options,
    program: &Path,
) -> Result<f64> {
    // The same draws for all, as long as they send the same packets.
    let net = EmulatedLink::new(scenario.link(), scenario.link(), seed);
    net.server.use_kernel_mptcp();
    let (direction, algorithm) = match contestant {
        Contestant::Umptcp(algorithm) => ("up", algorithm),
        Contestant::Kernel => ("up", KERNEL),
        Contestant::Receiver => ("down", KERNEL),
    };
    let mut arguments: Vec<String> =
        ["--verify", "--direction", direction, "--congestion", algorithm, "--bytes"]
            .map(str::to_owned)
            .to_vec();
    arguments.push(scenario.bytes.to_string());
    if contestant == Contestant::Kernel {
        net.client.use_kernel_mptcp();
        arguments.extend(["--stack", "kernel-mptcp"].map(str::to_owned));
    } else {
        arguments.extend(["--stack", "umptcp"].map(str::to_owned));
        arguments.extend(options.path_arguments(&net.client));
    }
    let service = ("kernel-mptcp", KERNEL);
    let outcome = serve_and_measure(program, (&net.client, &net.server), service, &arguments)?;
    ensure!(outcome["verified"] == true, "the bytes that arrived are not those that were sent: {outcome}");
    ensure!(outcome["mptcp"] != false, "the connection is not MPTCP: {outcome}");
    let value = outcome.pointer(&format!("/{direction}/seconds")).and_then(Value::as_f64);
    value.with_context(|| format!("no time in {outcome}"))
}
