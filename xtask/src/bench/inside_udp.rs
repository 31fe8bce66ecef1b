//! Paths inside UDP beside paths with a TUN device and translation: umptcp at both ends, one veth, not shaped.
//!
//! Throughput each way, CPU time of the whole machine for it, and the time from request to response, in one
//! table.

use super::captured::busy;
use super::{Options, PORT, in_turn, median, pair};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use umptcp_testbed::topology::{Direct, Site};

const NAME: &str = "inside-udp";

/// What is asked of paths inside UDP, in Gbit/s, on one core.
const GOAL: f64 = 2.0;

/// The names of the figures.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    [NAME].into_iter()
}

/// What the paths of both ends are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contest {
    Nat,
    Udp,
}

impl Contest {
    const ALL: [Contest; 2] = [Contest::Nat, Contest::Udp];

    fn name(self) -> &'static str {
        match self {
            Contest::Nat => "nat",
            Contest::Udp => "udp",
        }
    }

    fn arguments(self, site: &Site) -> [String; 2] {
        ["--path".to_owned(), format!("{},mode={}", site.nics[0].device, self.name())]
    }
}

/// Bits per second and CPU seconds per GB, each way, and microseconds.
#[derive(Clone, Copy)]
struct Measured {
    rates: [f64; 2],
    cpu: [f64; 2],
    latency: f64,
}

/// Measures if that is wanted, prints a row for each contest and returns all values. Whether all went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    if !options.wants(NAME) {
        return Ok(true);
    }
    println!(
        "\n{:<24} {:<6} {:>9} {:>9} {:>9} {:>9} {:>12}",
        "umptcp at both ends", "", "up Gbit/s", "CPU s/GB", "down", "CPU s/GB", "latency µs"
    );
    let (values, sound) = in_turn((NAME, options.runs), &Contest::ALL, Contest::name, |contest| {
        measure(contest, options, program)
    });
    for (contest, values) in Contest::ALL.iter().zip(&values).filter(|(_, values)| !values.is_empty()) {
        let of = |pick: &dyn Fn(&Measured) -> f64| median(&values.iter().map(pick).collect::<Vec<_>>());
        let rates = [of(&|m| m.rates[0] / 1e9), of(&|m| m.rates[1] / 1e9)];
        let verdict = match contest {
            Contest::Nat => "",
            Contest::Udp if rates.iter().all(|rate| *rate >= GOAL) => "met",
            Contest::Udp => "MISSED",
        };
        println!(
            "{:<24} {:<6} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>12.1} {verdict}",
            NAME,
            contest.name(),
            rates[0],
            of(&|m| m.cpu[0]),
            rates[1],
            of(&|m| m.cpu[1]),
            of(&|m| m.latency)
        );
        all.push(json!({
            "figure": format!("{NAME}-{}", contest.name()),
            "what": "one veth, not shaped, umptcp at both ends",
            "up_bits_per_second": values.iter().map(|m| m.rates[0]).collect::<Vec<_>>(),
            "up_cpu_seconds_per_gb": values.iter().map(|m| m.cpu[0]).collect::<Vec<_>>(),
            "down_bits_per_second": values.iter().map(|m| m.rates[1]).collect::<Vec<_>>(),
            "down_cpu_seconds_per_gb": values.iter().map(|m| m.cpu[1]).collect::<Vec<_>>(),
            "latency_us": values.iter().map(|m| m.latency).collect::<Vec<_>>(),
        }));
    }
    Ok(sound)
}

fn measure(contest: Contest, options: &Options, program: &Path) -> Result<Measured> {
    let net = Direct::new();
    let _server = pair::server(&net.server, program, &contest.arguments(&net.server))?;
    let ask = |arguments: &[&str]| -> Result<Value> {
        let address = [net.server.nics[0].v4.to_string(), PORT.to_string()];
        let own = contest.arguments(&net.client).into_iter();
        let all = own.chain(arguments.iter().map(|a| (*a).to_owned())).chain(address);
        pair::client(&net.client, program, all)
    };
    let number = |outcome: &Value, at: &str| {
        outcome.pointer(at).and_then(Value::as_f64).with_context(|| format!("no {at} in {outcome}"))
    };
    let seconds = options.seconds.to_string();
    let (mut rates, mut cpu) = ([0.0; 2], [0.0; 2]);
    for (i, direction) in ["up", "down"].into_iter().enumerate() {
        let before = busy()?;
        let outcome = ask(&["--direction", direction, "--seconds", &seconds])?;
        let spent = busy()? - before;
        rates[i] = number(&outcome, &format!("/{direction}/bits_per_second"))?;
        let bytes = number(&outcome, &format!("/{direction}/bytes"))?;
        ensure!(bytes > 0.0, "nothing was carried: {outcome}");
        cpu[i] = spent / (bytes / 1e9);
    }
    let latency = ask(&["--mode", "latency", "--count", "10000"])?;
    Ok(Measured { rates, cpu, latency: number(&latency, "/latency/median_us")? })
}
