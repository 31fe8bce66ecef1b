//! Connections per second: connect, receive one byte, close. umptcp as the client of a kernel and as the
//! server of one, beside kernel to kernel.
//!
//! Each measurement is five rounds in a row against one server, in one pair of namespaces: what connections
//! leave behind, such as ports, sockets and entries of tables, would make later rounds slower.

use super::{Options, PORT, in_turn, median, pair};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use umptcp_testbed::topology::{Direct, Site};

/// What is asked: that share of the kernel's rate, and of the first round's in the last.
const GOAL: f64 = 0.5;
const LASTING: f64 = 0.8;
const ROUNDS: usize = 5;

struct Figure {
    name: &'static str,
    parallel: u16,
}

const FIGURES: &[Figure] =
    &[Figure { name: "connections-1", parallel: 1 }, Figure { name: "connections-64", parallel: 64 }];

/// The names of the figures.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FIGURES.iter().map(|f| f.name)
}

/// Who talks with whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contest {
    Kernels,
    UmptcpClient,
    UmptcpServer,
}

impl Contest {
    const ALL: [Contest; 3] = [Contest::Kernels, Contest::UmptcpClient, Contest::UmptcpServer];

    fn name(self) -> &'static str {
        match self {
            Contest::Kernels => "kernel",
            Contest::UmptcpClient => "umptcp, client",
            Contest::UmptcpServer => "umptcp, server",
        }
    }
}

/// Measures what is wanted, prints a row for each contest and returns all values. Whether all went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    let mut sound = true;
    for (i, figure) in FIGURES.iter().filter(|f| options.wants(f.name)).enumerate() {
        if i == 0 {
            println!(
                "\n{:<16} {:<15} {:>8} {:>7}  {:<38} {:>9}",
                "connections/s", "", "median", "ratio", "rounds", "5th/1st"
            );
        }
        let (values, all_went) =
            in_turn((figure.name, options.runs), &Contest::ALL, Contest::name, |contest| {
                measure_once(figure, contest, options, program)
            });
        sound &= all_went;
        if values.iter().any(Vec::is_empty) {
            continue;
        }
        let rounds = values.each_ref().map(|runs| medians(runs));
        let kernel = median(&rounds[0]);
        for (contest, rounds) in Contest::ALL.iter().zip(&rounds) {
            print_row(figure, *contest, rounds, kernel);
        }
        all.push(json!({
            "figure": figure.name,
            "what": "connect, receive one byte, close; rounds in a row",
            "unit": "1/s",
            "kernel": values[0],
            "umptcp_client": values[1],
            "umptcp_server": values[2],
        }));
    }
    Ok(sound)
}

/// The median of each round.
fn medians(runs: &[Vec<f64>]) -> Vec<f64> {
    (0..ROUNDS).map(|round| median(&runs.iter().map(|r| r[round]).collect::<Vec<_>>())).collect()
}

fn print_row(figure: &Figure, contest: Contest, rounds: &[f64], kernel: f64) {
    let rate = median(rounds);
    let lasting = rounds[ROUNDS - 1] / rounds[0];
    let list = rounds.iter().map(|r| format!("{r:.0}")).collect::<Vec<_>>().join(", ");
    let (name, verdict) = if contest == Contest::Kernels {
        (figure.name, "")
    } else if rate >= GOAL * kernel && lasting >= LASTING {
        ("", "met")
    } else {
        ("", "MISSED")
    };
    println!(
        "{name:<16} {:<15} {rate:>8.0} {:>7.2}  {list:<38} {lasting:>9.2} {verdict}",
        contest.name(),
        rate / kernel
    );
}

/// The rates of the rounds.
fn measure_once(figure: &Figure, contest: Contest, options: &Options, program: &Path) -> Result<Vec<f64>> {
    let net = Direct::new();
    for (site, umptcp) in
        [(&net.client, contest == Contest::UmptcpClient), (&net.server, contest == Contest::UmptcpServer)]
    {
        if !umptcp {
            site.use_kernel_mptcp();
        }
    }
    let stack = |site: &Site, umptcp: bool| -> Vec<String> {
        let name = if umptcp { "umptcp" } else { "kernel-mptcp" };
        let mut arguments = vec!["--stack".to_owned(), name.to_owned()];
        if umptcp {
            arguments.extend(options.path_arguments(site));
        }
        arguments
    };
    let umptcp_server = contest == Contest::UmptcpServer;
    let _server = pair::server(&net.server, program, &stack(&net.server, umptcp_server))?;

    let address = match (umptcp_server, options.mode.as_str()) {
        (true, "routed") => net.server.nics[0].routed_v4,
        _ => net.server.nics[0].v4,
    };
    (0..ROUNDS)
        .map(|round| {
            let parallel = [figure.parallel.to_string(), "--seconds".into(), options.seconds.to_string()];
            let mode = ["--mode", "connections", "--parallel"].map(str::to_owned);
            let own = stack(&net.client, contest == Contest::UmptcpClient);
            let to = [address.to_string(), PORT.to_string()];
            let arguments = mode.into_iter().chain(parallel).chain(own).chain(to);
            let outcome = pair::client(&net.client, program, arguments)
                .with_context(|| format!("in round {}", round + 1))?;
            outcome["per_second"].as_f64().with_context(|| format!("no rate in {outcome}"))
        })
        .collect()
}
