//! `setup`: the members of a group can use umptcp without being root; and back.

mod group;
mod manifest;
mod plan;
mod program;
mod services;
mod step;

use crate::args::SetupArgs;
use crate::console::print;
use crate::failure::{Class, usage};
use manifest::Manifest;
use plan::Plan;
use services::Services;
use step::Left;

/// Sets up what is missing, or takes it all back.
pub(crate) fn run(args: &SetupArgs) -> anyhow::Result<()> {
    if !group::is_name(&args.group) {
        let text = format!(
            "{:?} cannot be the name of a group: use up to 32 small letters, digits, '-' and '_', a letter or '_' first",
            args.group
        );
        return Err(usage(text));
    }
    if !args.dry_run && !nix::unistd::geteuid().is_root() {
        let text = "setup changes files of root: use `sudo umptcp setup`; --dry-run shows what it would do";
        return Err(Class::Host.failure(text).into());
    }
    let manifest = Manifest::load()?;
    if args.undo { undo(manifest, args.dry_run) } else { set_up(args, manifest) }
}

fn set_up(args: &SetupArgs, mut manifest: Manifest) -> anyhow::Result<()> {
    let services = Services::find();
    let Plan { program, steps, notes } = Plan::make(args, &manifest, &services)?;
    let mut changed = Vec::new();
    for step in steps {
        if step.is_done() {
            print(&format!("is there: {step}"))?;
            continue;
        }
        if args.dry_run {
            print(&format!("would {step}"))?;
            continue;
        }
        // Before it is done: what was half done is undone, too.
        manifest.note(step.clone())?;
        step.apply()?;
        print(&format!("done: {step}"))?;
        changed.push(step);
    }
    notes.iter().try_for_each(|note| print(&format!("note: {note}")))?;
    if args.dry_run {
        return Ok(());
    }
    services.take_note_of(&changed)?;
    let group = &args.group;
    print(&format!(
        "members of the group {group} can use {}: usermod -aG {group} USER, from the next login on",
        program.display()
    ))?;
    print(match args.daemon_only {
        true => "they run programs by the daemon, and look at what it does",
        false => {
            "they run programs by the daemon, and use listen, connect and bench: for that, the program lets them change this \
             host's network (CAP_NET_ADMIN), as --daemon-only does not"
        }
    })?;
    print(if services.has_systemd() {
        "the daemon is started by: systemctl enable --now umptcp"
    } else {
        "start `umptcp up` as root by whatever starts services here"
    })
}

fn undo(mut manifest: Manifest, dry_run: bool) -> anyhow::Result<()> {
    if manifest.is_empty() {
        return print("nothing was set up");
    }
    if dry_run {
        return manifest.steps().rev().try_for_each(|step| print(&format!("would undo: {step}")));
    }
    let services = Services::find();
    services.end(manifest.steps())?;
    let mut undone = Vec::new();
    while let Some(step) = manifest.last().cloned() {
        match step.undo()? {
            Left::Nothing => print(&format!("undone: {step}"))?,
            Left::Changed => print(&format!("left, because somebody has changed it since: {step}"))?,
        }
        manifest.strike_last()?;
        undone.push(step);
    }
    services.take_note_of(&undone)
}
