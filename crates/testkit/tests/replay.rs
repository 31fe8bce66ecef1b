//! The fuzz targets on any compiler: every committed input, and random mutations of them.
//!
//! `UMPTCP_FUZZ_SECONDS` runs mutations for so long per target instead of a fixed number; `UMPTCP_FUZZ_SEED`
//! (a number) starts from others, `UMPTCP_FUZZ_TARGET` runs one target only, `UMPTCP_FUZZ_INPUT` one file
//! only, and with `UMPTCP_FUZZ_TRACE` every packet is printed. An input that fails is written to the
//! temporary directory.

use std::path::Path;
use std::time::{Duration, Instant};
use umptcp_testkit::driver::{Random, mutate, read_corpus};
use umptcp_testkit::{TARGETS, Target};

/// Mutations per target when no time is given: a few seconds at most.
const RUNS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one input; says which one when it fails.
fn run((name, target): Target, data: &[u8], from: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| target(data)) {
        let path = std::env::temp_dir().join(format!("umptcp-fuzz-{name}-{}", std::process::id()));
        let kept = match std::fs::write(&path, data) {
            Ok(()) => path.display().to_string(),
            Err(e) => format!("nowhere ({e})"),
        };
        eprintln!("{name}: {from} fails; the input was written to {kept}");
        std::panic::resume_unwind(panic);
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let inputs = read_corpus(&directory).expect("every target has a directory of inputs");
    assert!(!inputs.is_empty(), "{} has no input", directory.display());
    inputs
}

#[test]
fn committed_inputs_pass() {
    if let Some(path) = std::env::var_os("UMPTCP_FUZZ_INPUT") {
        let only =
            std::env::var("UMPTCP_FUZZ_TARGET").expect("UMPTCP_FUZZ_TARGET says what the input is for");
        let target = TARGETS.into_iter().find(|t| t.0 == only).expect("a target of that name");
        return run(target, &std::fs::read(path).expect("the input can be read"), "UMPTCP_FUZZ_INPUT");
    }
    for target in TARGETS {
        for (name, data) in corpus(target.0) {
            run(target, &data, &name);
        }
    }
}

#[test]
fn mutations_of_committed_inputs_pass() {
    let seconds = number("UMPTCP_FUZZ_SECONDS").map(Duration::from_secs);
    let only = std::env::var("UMPTCP_FUZZ_TARGET").ok();
    for target in TARGETS.iter().copied().filter(|t| only.as_deref().is_none_or(|o| o == t.0)) {
        let inputs: Vec<Vec<u8>> = corpus(target.0).into_iter().map(|(_, data)| data).collect();
        let mut random = Random::new(number("UMPTCP_FUZZ_SEED").unwrap_or(1));
        let start = Instant::now();
        let mut runs = 0;
        while seconds.map_or(runs < RUNS, |s| start.elapsed() < s) {
            let data = mutate(&inputs, &mut random);
            run(target, &data, &format!("mutation {runs}"));
            runs += 1;
        }
        println!("{}: {runs} inputs in {:.1} s", target.0, start.elapsed().as_secs_f64());
    }
}
