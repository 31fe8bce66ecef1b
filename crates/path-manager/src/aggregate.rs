//! The default policy: every path carries data.

use crate::{Command, PathPolicy, Plan, RemoteAddress, View};
use alloc::vec::Vec;
use umptcp_types::AddressId;

/// A subflow on every local path and to every address the peer advertises.
///
/// The client opens one subflow from every local path to the peer's first address, and one to every address
/// the peer advertises, and another beside one that does not answer any more. The server opens none unless it
/// is configured to, in which case it does the same. Either side, if asked to, advertises its other
/// addresses. [`Uses`](crate::Uses) of an address say otherwise for that address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aggregate;

impl Aggregate {
    /// The name it is registered under.
    pub const NAME: &str = "aggregate";
}

impl PathPolicy for Aggregate {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        let mut plan = Plan::new(view);
        if view.opens {
            over_each_path(&mut plan, view);
            to_each_advertised(&mut plan, view);
        }
        plan.into_commands()
    }
}

/// One subflow per path, to the first remote address of the same family that has not failed. Subflows of which
/// it is not known whether they lead anywhere are no reason against it, nor are those that do not answer any
/// more.
pub(crate) fn over_each_path(plan: &mut Plan<'_>, view: &View<'_>) {
    for (i, l) in view.local.iter().enumerate().filter(|(_, l)| l.uses.subflow) {
        if plan.subflows().iter().any(|s| s.path == l.path && !s.tentative && !s.stale) {
            continue;
        }
        // The address may be why a subflow does not answer: another first, if there is one.
        let silent = |r: &RemoteAddress| view.subflows.iter().any(|s| s.stale && s.remote == r.address);
        let other = view.remote.iter().position(|r| plan.fits(l, r) && !silent(r));
        if let Some(j) = other.or_else(|| view.remote.iter().position(|r| plan.fits(l, r))) {
            plan.open_first(i, j);
        }
    }
}

/// One subflow per advertised address, from the path with the fewest subflows; as Linux has it, from every
/// address for a full mesh if there are any, or from one of the laminar ones.
fn to_each_advertised(plan: &mut Plan<'_>, view: &View<'_>) {
    let locals = || view.local.iter().enumerate();
    let laminar = locals().any(|(_, l)| l.uses.laminar);
    let mesh: Vec<usize> = locals().filter(|(_, l)| l.uses.full_mesh).map(|(i, _)| i).collect();
    for (j, r) in view.remote.iter().enumerate() {
        let advertised = r.id != AddressId(0);
        mesh.iter().for_each(|i| plan.open(*i, j));
        if !mesh.is_empty() || plan.subflows().iter().any(|s| s.remote == r.address) {
            continue;
        }
        let least = locals()
            .filter(|(_, l)| if laminar && advertised { l.uses.laminar } else { l.uses.subflow })
            .filter(|(_, l)| plan.fits(l, r))
            .min_by_key(|(_, l)| plan.subflows().iter().filter(|s| s.path == l.path).count());
        if let Some((i, _)) = least {
            plan.open(i, j);
        }
    }
}
