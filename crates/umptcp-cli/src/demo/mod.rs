//! `demo`: one connection over two NICs, on an emulated network on this machine or in virtual time.

#[cfg(target_os = "linux")]
mod emulation;
#[cfg(target_os = "linux")]
mod namespace;
mod plan;
#[cfg(target_os = "linux")]
mod real;
mod sim;
mod view;

use crate::Registry;
use crate::args::DemoArgs;
use anyhow::bail;
use plan::{Plan, TICK};
use std::time::Duration;
use view::View;

pub(crate) fn run(args: &DemoArgs, registry: &Registry) -> anyhow::Result<()> {
    let plan = Plan::new(args)?;
    registry.check(args.congestion.as_deref(), args.scheduler.as_deref())?;
    let view = View::new(&plan);
    let (parts, check) = if args.sim {
        view.introduce("umptcp", "simulated, in virtual time")?;
        (sim::run(args, &plan, &view, registry)?, "each was compared with what was sent")
    } else {
        let parts = real(args, &plan, &view, registry)?;
        (parts, "SHA-256 of what was sent and of what arrived are equal")
    };
    view.table(&parts, check)?;
    if parts.iter().any(|part| !part.intact) {
        bail!("data were damaged");
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn real(
    args: &DemoArgs,
    plan: &Plan,
    view: &View<'_>,
    registry: &Registry,
) -> anyhow::Result<Vec<view::Part>> {
    real::run(args, plan, view, registry)
}

#[cfg(not(target_os = "linux"))]
fn real(_: &DemoArgs, _: &Plan, _: &View<'_>, _: &Registry) -> anyhow::Result<Vec<view::Part>> {
    bail!("the demo with real packets needs Linux; `umptcp demo --sim` shows the same in virtual time")
}

/// One of the demo's three transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    /// Over the first NIC alone.
    One,
    /// Over both.
    Both,
    /// Over both, the first being silent for a while.
    Silence,
}

impl Act {
    const ALL: [Act; 3] = [Act::One, Act::Both, Act::Silence];

    /// Line above the progress.
    fn title(self, plan: &Plan) -> String {
        let first = &plan.nics[0].name;
        let bytes = crate::units::bytes(plan.bytes);
        match self {
            Act::One => format!("1. {bytes} over {first} alone"),
            Act::Both => "2. The same over both NICs, in one connection".to_string(),
            Act::Silence => format!(
                "3. {:.0} s over both NICs; {first} goes silent for {:.1} s and comes back",
                plan.last.as_secs_f64(),
                (plan.silent.1 - plan.silent.0).as_secs_f64()
            ),
        }
    }

    /// Name in the table.
    fn name(self, plan: &Plan) -> String {
        let first = &plan.nics[0].name;
        match self {
            Act::One => format!("{first} alone"),
            Act::Both => "both NICs".to_owned(),
            Act::Silence => format!("both, {first} silent meanwhile"),
        }
    }

    /// What happened in the tick that ends `elapsed` after the start.
    fn note(self, plan: &Plan, elapsed: Duration) -> String {
        let first = &plan.nics[0].name;
        let happened = |at: Duration| elapsed >= at && elapsed < at + TICK;
        match self {
            Act::Silence if happened(plan.silent.0) => format!("<- {first} goes silent"),
            Act::Silence if happened(plan.silent.1) => format!("<- {first} is back"),
            _ => String::new(),
        }
    }
}
