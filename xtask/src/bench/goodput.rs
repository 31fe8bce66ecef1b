//! Goodput of one plain TCP connection where packets are lost, late or out of order: umptcp and the kernel against the kernel.
//!
//! Loss is nftables' in a router between links of 100 Mbit/s that carry single packets; delay and disorder are netsim's, in real
//! time. Both stacks and both directions are measured at the same time, each on a network of its own: none of them uses more
//! than a fraction of a processor, and whatever else the machine does falls on all of them. Every byte is proved by SHA-256.

use super::{Options, median, serve_and_measure};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use umptcp_netsim::{Link, Queue};
use umptcp_tests::emulation::Emulated;
use umptcp_tests::topology::{Family, Routed, Site};

/// What is asked: umptcp's median is at least this share of the kernel's.
const GOAL: f64 = 0.9;

/// Algorithms that both stacks have.
const ALGORITHMS: [&str; 2] = ["cubic", "reno"];

/// A network and what goes wrong on it.
struct Scenario {
    name: &'static str,
    what: &'static str,
    /// Multiplies `--seconds`: paths with a long round-trip time need longer to show anything but their slow start.
    longer: u16,
    trouble: Trouble,
}

enum Trouble {
    /// The share of packets that a router loses.
    Loss(f64),
    /// A link of netsim's.
    Link(fn() -> Link),
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

const MEASUREMENTS: [Measurement; 4] = [
    Measurement { umptcp: false, down: false },
    Measurement { umptcp: true, down: false },
    Measurement { umptcp: false, down: true },
    Measurement { umptcp: true, down: true },
];

/// Measures the scenarios that are wanted, prints a row for each and returns all values. Whether all went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    let mut sound = true;
    let wanted = SCENARIOS.iter().filter(|s| options.wants(s.name));
    for (i, scenario) in wanted.enumerate() {
        if i == 0 {
            println!(
                "\n{:<38} {:<6} {:<9} {:>9} {:>9} {:>7}  least and most of umptcp's",
                "goodput of plain TCP, Mbit/s", "", "sender", "kernel", "umptcp", "ratio"
            );
        }
        for algorithm in ALGORITHMS {
            let mut values: [Vec<f64>; 4] = Default::default();
            for run in 0..options.runs {
                let results = at_once(scenario, algorithm, u64::from(run), options, program);
                for (values, result) in values.iter_mut().zip(results) {
                    match result {
                        Ok(value) => values.push(value),
                        Err(e) => {
                            println!("{:<38} {algorithm:<6} FAILED: {e:#}", scenario.what);
                            sound = false;
                        }
                    }
                }
            }
            if values.iter().any(Vec::is_empty) {
                continue;
            }
            for direction in [&values[..2], &values[2..]] {
                let sender = if std::ptr::eq(&direction[0], &values[0]) { "umptcp" } else { "kernel" };
                print_row(scenario, algorithm, sender, &direction[0], &direction[1]);
                all.push(json!({
                    "figure": scenario.name,
                    "what": scenario.what,
                    "unit": "Mbit/s",
                    "congestion": algorithm,
                    "sender": sender,
                    "kernel": direction[0],
                    "umptcp": direction[1],
                }));
            }
        }
    }
    Ok(sound)
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

/// All measurements of one run at the same time, in the order of [`MEASUREMENTS`].
fn at_once(
    scenario: &Scenario,
    algorithm: &str,
    seed: u64,
    options: &Options,
    program: &Path,
) -> Vec<Result<f64>> {
    std::thread::scope(|scope| {
        let threads = MEASUREMENTS
            .map(|m| scope.spawn(move || measure_once(scenario, algorithm, m, seed, options, program)));
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<f64>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("the laboratory failed")))
        };
        threads.into_iter().map(join).collect()
    })
}

fn measure_once(
    scenario: &Scenario,
    algorithm: &str,
    measurement: Measurement,
    seed: u64,
    options: &Options,
    program: &Path,
) -> Result<f64> {
    match scenario.trouble {
        Trouble::Loss(share) => {
            let net = Routed::new(1, 1);
            net.shape_client(0, 100.0);
            net.lose_at_random(share);
            transfer(scenario, algorithm, measurement, options, program, (&net.client, &net.server))
        }
        Trouble::Link(link) => {
            // The same draws for both stacks, as long as they send the same packets.
            let net = Emulated::new(link(), link(), seed);
            transfer(scenario, algorithm, measurement, options, program, (&net.client, &net.server))
        }
    }
}

fn transfer(
    scenario: &Scenario,
    algorithm: &str,
    measurement: Measurement,
    options: &Options,
    program: &Path,
    (client, server): (&Site, &Site),
) -> Result<f64> {
    let direction = if measurement.down { "down" } else { "up" };
    let seconds = options.seconds * scenario.longer;
    let mut arguments: Vec<String> =
        ["--verify", "--direction", direction, "--congestion", algorithm, "--seconds"]
            .map(str::to_owned)
            .to_vec();
    arguments.push(seconds.to_string());
    if measurement.umptcp {
        arguments.extend(["--stack", "umptcp", "--no-mptcp", "--path"].map(str::to_owned));
        let nic = &client.nics[0];
        arguments.push(match options.mode.as_str() {
            "routed" => format!("{},mode=routed,address={}", nic.device, nic.routed_address(Family::V4)),
            _ => nic.device.clone(),
        });
    } else {
        arguments.extend(["--stack", "kernel-tcp"].map(str::to_owned));
    }
    let outcome = serve_and_measure(program, (client, server), ("kernel-tcp", algorithm), &arguments)?;
    ensure!(outcome["verified"] == true, "the bytes that arrived are not those that were sent: {outcome}");
    ensure!(
        outcome["congestion"] == algorithm && outcome["server"]["congestion"] == algorithm,
        "another algorithm than {algorithm} was used: {outcome}"
    );
    let value = outcome.pointer(&format!("/{direction}/bits_per_second")).and_then(Value::as_f64);
    Ok(value.with_context(|| format!("no rate in {outcome}"))? / 1e6)
}
