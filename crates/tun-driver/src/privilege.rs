//! What this process may do to the network.
//!
//! It takes CAP_NET_ADMIN. Root has it; other users' processes may have it from the file of their program
//! (capabilities(7)). Then it ends with the process: a program that is started has none of it unless it is lent.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set,
    configure_capability_in_ambient_set, set_capabilities,
};

const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN;

/// Whether paths can be set up.
pub fn may_set_up_paths() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(NEEDED))
}

/// Whether the capability comes from the file of the program, so that whoever has started it need not have it.
/// What the environment says of programs to start is not to be followed then.
pub(crate) fn is_from_file() -> bool {
    let permitted = capabilities(None).is_ok_and(|sets| sets.permitted.contains(NEEDED));
    let ambient = || capability_is_in_ambient_set(NEEDED).unwrap_or(false);
    permitted && !nix::unistd::geteuid().is_root() && !ambient()
}

/// Gives up what this process has from the file of its program, for good: from now on it is one of the user's,
/// as if the file had nothing. The process must be single-threaded.
pub fn give_up() {
    if !is_from_file() {
        return;
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    // What is in /proc of such a process belongs to root, otherwise.
    if let Err(error) =
        set_capabilities(None, sets).and_then(|()| set_dumpable_behavior(DumpableBehavior::Dumpable))
    {
        tracing::warn!(%error, "the capabilities of the program's file stay");
    }
}

/// While it is there, programs that this thread starts have the capability that this process has from its file.
pub(crate) struct Lent(bool);

impl Lent {
    /// Lends it, if it would not go without.
    pub(crate) fn lend() -> Lent {
        Lent(is_from_file() && set(true).is_ok())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.0
            && let Err(error) = set(false)
        {
            tracing::warn!(%error, "a capability cannot be taken back");
        }
    }
}

fn set(lent: bool) -> rustix::io::Result<()> {
    let mut sets = capabilities(None)?;
    if lent {
        sets.inheritable |= NEEDED;
        set_capabilities(None, sets)?;
        return configure_capability_in_ambient_set(NEEDED, true);
    }
    // What is not inheritable is not ambient.
    sets.inheritable &= !NEEDED;
    set_capabilities(None, sets)
}
