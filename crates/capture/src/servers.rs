//! Servers inside a namespace.

use crate::error::CaptureError;
use crate::namespace::Namespace;
use crate::periodic::Periodic;
use crate::ports;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// How often servers are looked for. The kernel tells nobody of a new one.
const LOOK: Duration = Duration::from_millis(200);

/// Follows which ports the servers inside have, until what it returns is dropped: calls `changed` with each
/// port on which a server begins (`true`) or ceases to listen for others than this host. One that returns
/// `false` is asked again, as long as the server is there.
///
/// # Errors
/// When no thread can be started.
pub fn follow_servers(
    namespace: &Arc<Namespace>,
    mut changed: impl FnMut(u16, bool) -> bool + Send + 'static,
) -> Result<Periodic, CaptureError> {
    let namespace = namespace.clone();
    let mut known = BTreeSet::new();
    Periodic::start("umptcp-servers", LOOK, move || {
        match namespace.run(ports::served) {
            Ok(Ok(now)) => look(&mut known, &now, &mut changed),
            Ok(Err(error)) => tracing::debug!(%error, "cannot list the servers inside"),
            Err(_) => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    })
}

/// Tells what has changed between what is known and `now`.
fn look(known: &mut BTreeSet<u16>, now: &BTreeSet<u16>, changed: &mut impl FnMut(u16, bool) -> bool) {
    for port in known.difference(now).copied().collect::<Vec<_>>() {
        changed(port, false);
        known.remove(&port);
    }
    for port in now.difference(known).copied().collect::<Vec<_>>() {
        if changed(port, true) {
            known.insert(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_and_a_refusal_again() {
        let (mut known, mut told) = (BTreeSet::new(), Vec::new());
        let mut refuse = true;
        for now in [vec![80, 22], vec![80, 22], vec![22], vec![22]] {
            let mut changed = |port, open| {
                told.push((port, open));
                !(port == 22 && std::mem::take(&mut refuse))
            };
            look(&mut known, &now.into_iter().collect(), &mut changed);
        }
        assert_eq!(told, [(22, true), (80, true), (22, true), (80, false)]);
    }
}
