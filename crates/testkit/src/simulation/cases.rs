//! Everything of this crate that can be recorded in a digest, as a list of named cases.

use super::{matrix, operations, transfers};
use crate::digest::{Digest, Summary};
use crate::driver::{Random, read_corpus};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::any::Any;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Seeds of each property.
const SEEDS: u64 = 1_000;
/// Seeds per case.
const TOGETHER: u64 = 10;
/// The longest input of a fuzz target, in bytes.
const MAX_INPUT: usize = 2_000;

/// What a part of a case does; the text says what did not hold.
type Part<'a> = &'a mut dyn FnMut(&Digest) -> Result<(), String>;

/// Something to record.
pub struct Case {
    /// Unlike that of any other case.
    pub name: String,
    run: Box<dyn Fn(&mut Recording) + Send + Sync>,
}

/// What came of a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What was recorded.
    pub summary: Summary,
    /// What did not hold: an error or a panic of a part. They are as reproducible as anything else.
    pub faults: Vec<String>,
}

/// A case under way.
#[derive(Debug, Default)]
pub struct Recording {
    digest: Digest,
    faults: Vec<String>,
}

impl Recording {
    /// Runs a part of the case, and records how it ended. `name` names it in what is told of a fault.
    pub fn part(&mut self, name: &str, part: Part<'_>) {
        let result = catch_unwind(AssertUnwindSafe(|| part(&self.digest)));
        let result = result.unwrap_or_else(|panic| Err(format!("panicked: {}", message(&*panic))));
        self.digest.ended(result.is_ok());
        self.faults.extend(result.err().map(|fault| format!("{name}{fault}")));
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

impl Case {
    /// A case of one part or several.
    pub fn new(name: String, run: impl Fn(&mut Recording) + Send + Sync + 'static) -> Case {
        Case { name, run: Box::new(run) }
    }

    /// Runs it.
    pub fn run(&self) -> Outcome {
        let mut recording = Recording::default();
        (self.run)(&mut recording);
        Outcome { summary: recording.digest.summary(), faults: recording.faults }
    }
}

/// Every cell of the matrix of middleboxes.
pub fn middleboxes() -> Vec<Case> {
    let mut cases = Vec::new();
    for row in matrix::rows::ALL.iter().flat_map(|rows| rows()) {
        let row = std::sync::Arc::new(row);
        for cell in row.cells() {
            let row = row.clone();
            cases.push(Case::new(format!("middleboxes/{}", row.cell_name(cell)), move |recording| {
                recording.part("", &mut |digest| {
                    row.run(cell, Some(digest));
                    Ok(())
                });
            }));
        }
    }
    cases
}

/// The property tests of netsim with seeds of their own.
pub fn properties() -> Vec<Case> {
    let mut cases = seeded("transfers", |seed, digest| {
        let plan = generate(transfers::plan(), seed);
        transfers::run(&plan, Some(digest)).map(|_| ()).map_err(|(e, _)| e.to_string())
    });
    cases.extend(seeded("transfers with troubles", |seed, digest| {
        let (plan, troubles) = generate((transfers::plan(), transfers::troubles()), seed);
        transfers::survive(&plan, &troubles, Some(digest)).map_err(|(e, _)| e.to_string())
    }));
    cases.extend(seeded("operations", |seed, digest| {
        let (shape, ops) = generate((operations::shape(), operations::ops()), seed);
        operations::run(&shape, &ops, Some(digest))
    }));
    cases
}

/// A fuzz target that can be recorded.
type Target = fn(&[u8], &Digest);

/// The fuzz targets that have a stack: the inputs in the folders of `seeds`, and random ones.
///
/// # Errors
/// When the folders cannot be read.
pub fn fuzzing(seeds: &Path) -> io::Result<Vec<Case>> {
    let targets: [(&str, Target); 2] =
        [("connection", crate::connection::record), ("operations", crate::operations::record)];
    let mut cases = Vec::new();
    for (name, target) in targets {
        for (file, data) in read_corpus(&seeds.join(name))? {
            cases.push(Case::new(format!("fuzzing/{name}/{file}"), move |recording| {
                recording.part("", &mut |digest| {
                    target(&data, digest);
                    Ok(())
                });
            }));
        }
        cases.extend(seeded(&format!("fuzzing/{name}"), move |seed, digest| {
            let mut random = Random::new(seed);
            let len = random.below(MAX_INPUT);
            let data: Vec<u8> = (0..len).map(|_| random.number() as u8).collect();
            target(&data, digest);
            Ok(())
        }));
    }
    Ok(cases)
}

/// Cases of [`TOGETHER`] seeds each.
fn seeded(
    name: &str,
    run: impl Fn(u64, &Digest) -> Result<(), String> + Send + Sync + Clone + 'static,
) -> Vec<Case> {
    let ranges = (0..SEEDS / TOGETHER).map(|i| i * TOGETHER..(i + 1) * TOGETHER);
    let case = |seeds: Range<u64>| {
        let run = run.clone();
        Case::new(format!("{name}/seeds {:03} to {:03}", seeds.start, seeds.end - 1), move |recording| {
            for seed in seeds.clone() {
                recording.part(&format!("seed {seed}: "), &mut |digest| run(seed, digest));
            }
        })
    };
    ranges.map(case).collect()
}

/// The value that a strategy makes of a seed.
fn generate<S: Strategy>(strategy: S, seed: u64) -> S::Value {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    strategy.new_tree(&mut runner).expect("no strategy rejects values").current()
}
