//! `sim`: runs scenarios in virtual time, with tables, data files, captures and plots.

pub(crate) mod stop;

use crate::args::{OutputArgs, SimArgs};
use crate::console;
use crate::failure::usage;
use crate::registry::Registry;
use anyhow::{Context as _, bail};
use std::fs;
use std::io::{BufWriter, IsTerminal as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use stop::Stop;
use umptcp_lab::{Experiment, Figure, LabError, Registries, Report, RunOptions};
use umptcp_netsim::capture::Capture;

pub(crate) fn run(args: &SimArgs, registry: &Registry) -> anyhow::Result<()> {
    let registries = Registries {
        congestion: registry.congestion.clone(),
        schedulers: registry.schedulers.clone(),
        path_policies: registry.path_policies.clone(),
    };
    let OutputArgs { csv, json, series, html, .. } = &args.output;
    let one_output = [csv, json, series, html, &args.pcap];
    if args.scenarios.len() > 1 && one_output.iter().any(|o| o.is_some()) {
        return Err(usage("--csv, --json, --series, --html and --pcap take one scenario only"));
    }
    let stop = Stop::watch()?;
    let mut misses = 0;
    let mut chapter = String::new();
    for path in &args.scenarios {
        let experiment = read(path, &args.set, &registries)?;
        if args.check {
            let points = experiment.point_names().len();
            console::print(&format!("{}: valid; {points} combination(s) of parameters", path.display()))?;
            continue;
        }
        let report = simulate(&experiment, args, &registries, &stop)?;
        for note in report.notes() {
            console::say(&format!("{}: note: {note}", experiment.name()));
        }
        misses += report.points.iter().flat_map(|p| &p.comparisons).filter(|c| !c.agrees()).count();
        output(&report, &args.output)?;
        if let Some(file) = &args.markdown {
            let folder = file.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
            let (section, figures) = report.markdown(&folder)?;
            chapter.push_str(&section);
            write_figures(&file.with_extension(""), &figures)?;
        }
        if let Some(file) = args.pcap.as_ref().filter(|_| !stop.is_set()) {
            capture(&experiment, &report, args, &registries, file)?;
        }
        if stop.is_set() {
            break;
        }
    }
    if let Some(file) = &args.markdown {
        write(file, &chapter)?;
    }
    stop.end_if_set();
    if args.strict && misses > 0 {
        bail!("{misses} result(s) disagree with the published ones");
    }
    Ok(())
}

/// Reads and checks a scenario. Errors in it count as usage errors: the exit code is 2.
pub(crate) fn read(
    path: &Path,
    set: &[(String, String)],
    registries: &Registries,
) -> anyhow::Result<Experiment> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = path.display().to_string();
    Experiment::parse(&file, &text, path.parent(), set, registries).map_err(|e| match e {
        LabError::Scenario { .. } => usage(e.to_string()),
        other => other.into(),
    })
}

fn options(args: &SimArgs) -> RunOptions {
    RunOptions {
        seeds: args.seeds.map(|n| (1..=n).collect()),
        duration: args.duration,
        warm_up: args.warm_up,
        threads: args.threads,
        stop: None,
    }
}

fn simulate(
    experiment: &Experiment,
    args: &SimArgs,
    registries: &Registries,
    stop: &Stop,
) -> anyhow::Result<Report> {
    let show = !args.quiet && std::io::stderr().is_terminal();
    let last = Mutex::new(Instant::now());
    let progress = |done: usize, all: usize| {
        // At most one line per second.
        if show
            && let Ok(mut last) = last.lock()
            && (last.elapsed() > Duration::from_secs(1) || done == all)
        {
            *last = Instant::now();
            console::say(&format!("{}: {done} of {all} runs", experiment.name()));
        }
    };
    let started = Instant::now();
    let options = RunOptions { stop: Some(stop.stop.clone()), ..options(args) };
    let report = experiment.run(&options, registries, progress)?;
    if !args.quiet {
        let (runs, _) = report.runs;
        let seconds = started.elapsed().as_secs_f64();
        console::say(&format!("{}: {runs} run(s) in {seconds:.2} s", experiment.name()));
    }
    Ok(report)
}

pub(crate) fn output(report: &Report, args: &OutputArgs) -> anyhow::Result<()> {
    let mut table = true;
    for (file, text) in [(&args.csv, report.csv()), (&args.json, report.json())] {
        match file {
            None => {}
            Some(file) if file.as_os_str() == "-" => {
                table = false;
                console::print(text.trim_end())?;
            }
            Some(file) => write(file, &text)?,
        }
    }
    if let Some(file) = &args.series {
        write(file, &report.series_csv())?;
    }
    if let Some(file) = &args.html {
        write(file, &report.html()?)?;
    }
    if let Some(folder) = &args.figures {
        let mut figures = report.figures()?;
        figures.extend(report.comparison_figure()?);
        write_figures(folder, &figures)?;
    }
    if table { console::print(report.table(args.all).trim_end()) } else { Ok(()) }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn write_figures(folder: &Path, figures: &[Figure]) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    for figure in figures {
        write(&folder.join(format!("{}.svg", figure.name)), &figure.svg)?;
    }
    Ok(())
}

/// Runs the first combination of parameters with its first seed again, capturing the packets on the links.
fn capture(
    experiment: &Experiment,
    report: &Report,
    args: &SimArgs,
    registries: &Registries,
    file: &Path,
) -> anyhow::Result<()> {
    let links = experiment.links();
    if let Some(unknown) = args.pcap_link.iter().find(|l| !links.contains(&l.as_str())) {
        return Err(usage(format!(
            "--pcap-link: no link is called {unknown:?}; the links are: {}",
            links.join(", ")
        )));
    }
    let wanted = |name: &&str| args.pcap_link.is_empty() || args.pcap_link.iter().any(|l| l == name);
    let names: Vec<Option<&str>> = links.iter().map(|name| Some(*name).filter(wanted)).collect();
    let cannot = || format!("cannot write {}", file.display());
    let out = BufWriter::new(fs::File::create(file).with_context(cannot)?);
    let first = report.points.first();
    let seed = first.and_then(|p| p.seeds.first()).copied().unwrap_or_default();
    let parameters = first.map_or_else(String::new, |p| p.name());
    let comment = format!("scenario {} ({}), {parameters}, seed {seed}", report.scenario, report.hash);
    let (tap, status) = Capture::new(out, &names, &comment).with_context(cannot)?;
    experiment.capture(0, &options(args), registries, Box::new(tap))?;
    status.check().with_context(cannot)
}
