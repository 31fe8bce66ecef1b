//! A scenario with its parameters, and running all of it.

use crate::error::{LabError, Source};
use crate::grid::grid;
use crate::measure::Recording;
use crate::point::Point;
use crate::registries::Registries;
use crate::report::{PointReport, Report};
use crate::run::{Values, Watch, evaluate, run};
use crate::scenario::Scenario;
use crate::validate::Validator;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How to run an experiment.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Seeds in the place of the scenario's.
    pub seeds: Option<Vec<u64>>,
    /// Length of the measurement in the place of the scenario's.
    pub duration: Option<Duration>,
    /// Time before the measurement in the place of the scenario's.
    pub warm_up: Option<Duration>,
    /// Runs at a time; 0: as many as there are processors.
    pub threads: usize,
    /// Once it is true no run begins, and those under way are given up: the report has those that were
    /// complete.
    pub stop: Option<Arc<AtomicBool>>,
}

impl RunOptions {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// A scenario that was read and checked.
#[derive(Clone, Debug)]
pub struct Experiment {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) discussion: String,
    pub(crate) hash: String,
    pub(crate) points: Vec<Point>,
}

impl Experiment {
    /// Reads the scenario `text` from the file `file`, which is named in errors. Other files that it names
    /// are looked for in `folder`. `set` gives parameters values in the place of those in the text.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, with line and field.
    pub fn parse(
        file: &str,
        text: &str,
        folder: Option<&Path>,
        set: &[(String, String)],
        registries: &Registries,
    ) -> Result<Experiment, LabError> {
        let source = Source { file, text };
        let grid = grid(&source, set)?;
        let mut points = Vec::with_capacity(grid.len());
        let mut first = None;
        for parameters in grid {
            let filled = fill(text, &parameters);
            // Values have no line breaks, so that lines are those of the file.
            let source = Source { file, text: &filled };
            let scenario: Scenario = toml::from_str(&filled).map_err(|e| source.parser(&e))?;
            if let Some(at) = filled.find("${") {
                let name = filled[at + 2..].split(['}', '\n']).next().unwrap_or_default();
                let message = format!("there is no parameter {name:?}; parameters stand in [parameters]");
                return Err(source.at(at..at + 2, message));
            }
            let validator = Validator { source, folder, registries, parameters: &parameters };
            let setup = validator.check(&scenario)?;
            points.push(Point { parameters, setup });
            first.get_or_insert(scenario);
        }
        let Some(scenario) = first else { return Err(source.whole("a parameter has no value")) };
        Ok(Experiment {
            title: scenario.title.unwrap_or_else(|| scenario.name.clone()),
            name: scenario.name,
            description: scenario.description.unwrap_or_default().trim().to_string(),
            discussion: scenario.discussion.unwrap_or_default().trim().to_string(),
            hash: hash(text, set),
            points,
        })
    }

    /// The scenario's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Combinations of parameters, each as `name=value` with commas between.
    pub fn point_names(&self) -> Vec<String> {
        self.points.iter().map(Point::name).collect()
    }

    /// Runs every combination of parameters with every seed. `progress` is told how many runs of how many are
    /// done.
    ///
    /// # Errors
    ///
    /// The first fault that a simulation found.
    pub fn run(
        &self,
        options: &RunOptions,
        registries: &Registries,
        progress: impl Fn(usize, usize) + Sync,
    ) -> Result<Report, LabError> {
        let points = self.points_with(options);
        let jobs = Experiment::jobs(&points);
        let stop = || options.is_stopped();
        let results = parallel(jobs.len(), options.threads, &progress, &stop, |job| {
            let (point, seed) = jobs[job];
            let point = &points[point];
            // The first seed of each point is kept for plots.
            let keep = point.setup.seeds.first() == Some(&seed);
            let watch = Watch::default();
            let Some(recording) = run(&point.setup, &point.name(), seed, registries, watch, &stop)? else {
                return Ok(None);
            };
            Ok(Some((evaluate(&point.setup, &recording), keep.then_some(recording))))
        })?;
        Ok(self.report(options, points, &jobs, results))
    }

    /// Runs one combination of parameters with one seed, showing all packets to `tap`.
    ///
    /// # Errors
    ///
    /// The first fault that the simulation found.
    pub fn capture(
        &self,
        point: usize,
        options: &RunOptions,
        registries: &Registries,
        tap: Box<dyn umptcp_netsim::trace::Tap>,
    ) -> Result<(), LabError> {
        self.watch(point, options, registries, Watch { tap: Some(tap), probe: None })
    }

    /// Runs one combination of parameters with its first seed, showing what all stacks are given and give to
    /// `probe`.
    ///
    /// # Errors
    ///
    /// The first fault that the simulation found.
    pub fn probe(
        &self,
        point: usize,
        options: &RunOptions,
        registries: &Registries,
        probe: Box<dyn umptcp_netsim::Probe>,
    ) -> Result<(), LabError> {
        self.watch(point, options, registries, Watch { tap: None, probe: Some(probe) })
    }

    fn watch(
        &self,
        point: usize,
        options: &RunOptions,
        registries: &Registries,
        watch: Watch,
    ) -> Result<(), LabError> {
        let points = self.points_with(options);
        let Some(point) = points.get(point) else { return Ok(()) };
        let Some(seed) = point.setup.seeds.first() else { return Ok(()) };
        run(&point.setup, &point.name(), *seed, registries, watch, &|| options.is_stopped()).map(|_| ())
    }

    /// The links' names, in order of the cables that a tap is told of.
    pub fn links(&self) -> Vec<&str> {
        self.points.first().map_or_else(Vec::new, |p| p.setup.links.iter().map(|l| l.name.as_str()).collect())
    }

    /// Each point with each of its seeds.
    pub(crate) fn jobs(points: &[Point]) -> Vec<(usize, u64)> {
        let of = |(i, p): (usize, &Point)| p.setup.seeds.iter().map(|seed| (i, *seed)).collect::<Vec<_>>();
        points.iter().enumerate().flat_map(of).collect()
    }

    pub(crate) fn points_with(&self, options: &RunOptions) -> Vec<Point> {
        let mut points = self.points.clone();
        for point in &mut points {
            let setup = &mut point.setup;
            setup.duration = options.duration.unwrap_or(setup.duration);
            setup.warm_up = options.warm_up.unwrap_or(setup.warm_up);
            if let Some(seeds) = &options.seeds {
                setup.seeds.clone_from(seeds);
            }
        }
        points
    }

    pub(crate) fn report(
        &self,
        options: &RunOptions,
        points: Vec<Point>,
        jobs: &[(usize, u64)],
        results: Vec<Option<(Values, Option<Recording>)>>,
    ) -> Report {
        let (done, wanted) = (results.iter().flatten().count(), jobs.len());
        let hash = self.hash_with(options, &points);
        let mut runs: Vec<Vec<(u64, Values)>> = points.iter().map(|_| Vec::new()).collect();
        let mut recordings: Vec<Option<Recording>> = points.iter().map(|_| None).collect();
        for ((point, seed), result) in jobs.iter().zip(results) {
            let Some((values, recording)) = result else { continue };
            runs[*point].push((*seed, values));
            if recording.is_some() {
                recordings[*point] = recording;
            }
        }
        let points = points.into_iter().zip(runs).zip(recordings).filter(|((_, runs), _)| !runs.is_empty());
        let points = points.map(|((point, runs), recording)| PointReport::new(point, runs, recording));
        Report {
            version: env!("CARGO_PKG_VERSION").to_string(),
            scenario: self.name.clone(),
            title: self.title.clone(),
            description: self.description.clone(),
            discussion: self.discussion.clone(),
            hash,
            runs: (done, wanted),
            faults: Vec::new(),
            points: points.collect(),
        }
    }

    /// The scenario's hash with the duration, warm-up and seeds that are not the scenario's own: those that
    /// are stand in its text.
    fn hash_with(&self, options: &RunOptions, points: &[Point]) -> String {
        let mut others = Vec::new();
        for (own, used) in self.points.iter().zip(points) {
            let (own, used) = (&own.setup, &used.setup);
            if options.duration.is_some() && own.duration != used.duration {
                others.push(("duration".to_string(), format!("{:?}", used.duration)));
            }
            if options.warm_up.is_some() && own.warm_up != used.warm_up {
                others.push(("warm-up".to_string(), format!("{:?}", used.warm_up)));
            }
            if options.seeds.is_some() && own.seeds != used.seeds {
                others.push(("seeds".to_string(), format!("{:?}", used.seeds)));
            }
        }
        // They are the same for all combinations of parameters.
        others.sort();
        others.dedup();
        if others.is_empty() { self.hash.clone() } else { hash(&self.hash, &others) }
    }
}

/// The text with `${name}` replaced by the parameter's value.
fn fill(text: &str, parameters: &[(String, String)]) -> String {
    let put = |text: String, (name, value): &(String, String)| text.replace(&format!("${{{name}}}"), value);
    parameters.iter().fold(text.to_string(), put)
}

/// The first 16 digits of the SHA-256 of the scenario's text, and of parameters that were set.
fn hash(text: &str, set: &[(String, String)]) -> String {
    let mut sha = Sha256::new();
    sha.update(text.as_bytes());
    for (name, value) in set {
        sha.update(format!("\n{name}={value}").as_bytes());
    }
    sha.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// Does jobs 0 to `count` on several threads; their results in order. `None`: it was not done, because `stop`
/// said so.
fn parallel<T: Send>(
    count: usize,
    threads: usize,
    progress: &(impl Fn(usize, usize) + Sync),
    stop: &(impl Fn() -> bool + Sync),
    job: impl Fn(usize) -> Result<Option<T>, LabError> + Sync,
) -> Result<Vec<Option<T>>, LabError> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { processors } else { threads }.min(count).max(1);
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<T>>> = Mutex::new((0..count).map(|_| None).collect());
    // The fault of the first job that has one, which does not depend on the threads' order.
    let fault: Mutex<Option<(usize, LabError)>> = Mutex::new(None);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count || stop() {
                return;
            }
            match job(index) {
                Ok(result) => {
                    if let Ok(mut results) = results.lock() {
                        results[index] = result;
                    }
                }
                Err(error) => {
                    // Nobody begins another one.
                    next.store(count, Ordering::Relaxed);
                    if let Ok(mut fault) = fault.lock()
                        && fault.as_ref().is_none_or(|(first, _)| index < *first)
                    {
                        *fault = Some((index, error));
                    }
                }
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, count);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let fault = fault.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    match fault {
        Some((_, error)) => Err(error),
        None => Ok(results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())),
    }
}
