//! `cargo xtask uneven`: what a second path is worth beside a first that is not like it, in virtual time.

mod product;

use crate::tools;
use anyhow::{Result, bail};
use std::sync::Mutex;
use umptcp_testkit::simulation::uneven::{BUFFERS, Case, Comparison, LEAST, NSDI, Shape, TRICKLE};

/// Options of `cargo xtask uneven`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Random pairs of paths, buffers and schedulers.
    #[arg(long, default_value_t = 1000)]
    pairs: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only this scheduler instead of all.
    #[arg(long)]
    scheduler: Option<String>,
    /// The random pairs have buffers that tune themselves, instead of receive buffers of random sizes.
    #[arg(long)]
    automatic: bool,
    /// Every scheduler with every congestion control algorithm over four pairs instead, each for so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30")]
    product: Option<u64>,
    /// The random pairs alone, without the tables.
    #[arg(long)]
    no_tables: bool,
}

/// Prints the tables, and the pairs that do worse than they should.
pub(crate) fn run(options: &Options) -> Result<()> {
    if cfg!(debug_assertions) {
        let mut again = tools::optimised("uneven");
        again.args(["--pairs", &options.pairs.to_string(), "--seed", &options.seed.to_string()]);
        if let Some(name) = &options.scheduler {
            again.args(["--scheduler", name]);
        }
        for (flag, wanted) in [("--automatic", options.automatic), ("--no-tables", options.no_tables)] {
            if wanted {
                again.arg(flag);
            }
        }
        if let Some(seconds) = options.product {
            again.args(["--product", &seconds.to_string()]);
        }
        return tools::run(&mut again, "the comparison");
    }
    let registry = umptcp_cli::Registry::standard().schedulers;
    let names: Vec<&str> = match &options.scheduler {
        Some(name) if registry.create(name).is_none() => bail!("there is no scheduler {name:?}"),
        Some(name) => vec![name],
        None => Case::comparable(registry.names()),
    };
    if let Some(seconds) = options.product {
        let algorithms = umptcp_cli::Registry::standard().congestion;
        return product::run(&names, &algorithms.names().collect::<Vec<_>>(), seconds);
    }
    if !options.no_tables {
        table("Wi-Fi and 3G (NSDI 2012)", NSDI, &names)?;
        table("Wi-Fi and a trickle", TRICKLE, &names)?;
    }
    let random = |seed| match (Case::random(seed, &names), options.automatic) {
        (case, true) => case.automatic(),
        (case, false) => case,
    };
    let cases: Vec<Case> = (0..options.pairs).map(|k| random(options.seed + k)).collect();
    let found = compare_all(&cases)?;
    let mut misses: Vec<_> = cases.iter().zip(&found).filter(|(_, c)| c.ratio() < LEAST).collect();
    misses.sort_by(|(_, a), (_, b)| a.ratio().total_cmp(&b.ratio()));
    for (case, c) in &misses {
        let (ratio, [a, b]) = (c.ratio(), c.alone);
        println!("{ratio:.3} {case}: {:.2} Mbit/s, alone {a:.2} and {b:.2}", c.both);
        if let (_, Some(why)) = case.least() {
            println!("      {why}");
        }
    }
    println!("{} of {} random pairs under {LEAST} of the better path alone", misses.len(), cases.len());
    Ok(())
}

fn compare_all(cases: &[Case]) -> Result<Vec<Comparison>> {
    let found: Vec<Mutex<Option<_>>> = cases.iter().map(|_| Mutex::new(None)).collect();
    tools::in_parallel(cases.len(), None, |i| {
        *found[i].lock().unwrap_or_else(|e| e.into_inner()) = Some(cases[i].compare());
    });
    let found = found.into_iter().zip(cases).map(|(slot, case)| {
        match slot.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(found) => found.map_err(|e| anyhow::anyhow!("{case}: {e}")),
            None => bail!("{case}: did not run"),
        }
    });
    found.collect()
}

/// Goodput of LIA with each scheduler, by receive buffer.
fn table(title: &str, paths: [Shape; 2], names: &[&str]) -> Result<()> {
    println!("{title}: {{{}}} with {{{}}}; Mbit/s with LIA", paths[0], paths[1]);
    print!("{:>8} {:>11}", "buffer", "first alone");
    names.iter().for_each(|name| print!(" {name:>11}"));
    println!();
    let cases: Vec<Case> = BUFFERS
        .iter()
        .flat_map(|kb| {
            names
                .iter()
                .map(move |name| Case { scheduler: (*name).to_owned(), ..Case::new(paths, kb * 1000) })
        })
        .collect();
    let found = compare_all(&cases)?;
    for (kb, row) in BUFFERS.iter().zip(found.chunks(names.len())) {
        print!("{kb:>5} kB {:>11.2}", row[0].alone[0]);
        row.iter().for_each(|c| print!(" {:>11.2}", c.both));
        println!();
    }
    println!();
    Ok(())
}
