//! `emulate`: runs scenarios in real time between namespaces.

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod ground;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod hosts;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod kernel;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod network;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod site;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod user_space;

use crate::args::EmulateArgs;
use crate::registry::Registry;

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
pub(crate) fn run(_: &EmulateArgs, _: &Registry) -> anyhow::Result<()> {
    Err(crate::failure::Class::Host
        .failure("emulation needs Linux; `umptcp sim` runs the same scenarios in virtual time")
        .into())
}

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) fn run(args: &EmulateArgs, registry: &Registry) -> anyhow::Result<()> {
    use crate::console;
    use crate::namespace;
    use crate::sim::{output, read, stop::Stop};
    use anyhow::Context as _;
    use ground::{Network, Stacks};
    use umptcp_lab::{Registries, RunOptions};

    const INSTEAD: &str = "`umptcp sim`, which runs the same scenarios in virtual time and";

    let registries = Registries {
        congestion: registry.congestion.clone(),
        schedulers: registry.schedulers.clone(),
        path_policies: registry.path_policies.clone(),
    };
    let experiment = read(&args.scenario, &args.set, &registries)?;
    let stacks = Stacks { client: args.stack, server: args.peer.unwrap_or(args.stack) };
    namespace::check_tun(INSTEAD)?;
    // Before any other thread starts.
    namespace::enter(INSTEAD)?;
    let stop = Stop::watch()?;
    stacks.check()?;
    let scratch = Scratch::new()?;
    let options = RunOptions {
        seeds: args.seeds.map(|n| (1..=n).collect()),
        duration: args.duration,
        warm_up: args.warm_up,
        threads: 1,
        stop: Some(stop.stop.clone()),
    };
    let told = std::cell::Cell::new(args.quiet);
    let build = |plan: &umptcp_lab::emulation::Plan| {
        if !told.replace(true) {
            for line in stacks.differences(plan) {
                console::say(&format!("{}: {line}", experiment.name()));
            }
        }
        Network::build(plan, stacks, registry, &scratch.0).map_err(|e| console::describe(&e))
    };
    let progress = |done: usize, all: usize| {
        if !args.quiet {
            console::say(&format!("{}: {done} of {all} runs", experiment.name()));
        }
    };
    let report = experiment.emulate(&options, &stacks.name(), build, progress)?;
    drop(scratch);
    for note in report.notes() {
        console::say(&format!("{}: note: {note}", experiment.name()));
    }
    output(&report, &args.output).context("cannot write the results")?;
    stop.end_if_set();
    Ok(())
}

/// A temporary directory for the records of changes: all of them are made in our namespaces and gone with
/// these, so that the host's own records are not involved.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
struct Scratch(std::path::PathBuf);

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
impl Scratch {
    fn new() -> anyhow::Result<Scratch> {
        use anyhow::Context as _;

        let path = std::env::temp_dir().join(format!("umptcp-emulate-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch(path))
    }
}

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
