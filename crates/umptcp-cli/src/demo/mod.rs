//! `demo`: one connection over two NICs, on an emulated network or in virtual time.

mod act;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod network;
mod plan;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod real;
mod sim;
mod view;

use crate::args::DemoArgs;
use crate::registry::{Names, Registry};
use anyhow::bail;
use plan::Plan;
use view::View;

pub(crate) fn run(args: &DemoArgs, registry: &Registry) -> anyhow::Result<()> {
    let plan = Plan::new(args)?;
    let (congestion, scheduler) = (args.congestion.as_deref(), args.scheduler.as_deref());
    registry.check(Names { congestion, scheduler, path_policy: None })?;
    let view = View::new(&plan);
    let (parts, check) = if args.sim {
        view.introduce("umptcp", "simulated, in virtual time")?;
        (sim::run(args, &plan, &view, registry)?, "every byte was compared with the data sent")
    } else {
        let parts = real(args, &plan, &view, registry)?;
        (parts, "SHA-256 is equal at both ends")
    };
    view.table(&parts, check)?;
    if parts.iter().any(|part| !part.intact) {
        bail!("data was corrupted");
    }
    Ok(())
}

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn real(
    args: &DemoArgs,
    plan: &Plan,
    view: &View<'_>,
    registry: &Registry,
) -> anyhow::Result<Vec<view::Part>> {
    real::run(args, plan, view, registry)
}

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn real(_: &DemoArgs, _: &Plan, _: &View<'_>, _: &Registry) -> anyhow::Result<Vec<view::Part>> {
    bail!("the demo with real packets requires Linux; `umptcp demo --sim` shows the same in virtual time")
}
