//! `relay`: the daemon with nothing but a relay, and keys for its clients.

use crate::args::{RelayAction, RelayArgs};
use crate::console::print;
use crate::failure::Class;
use crate::registry::Registry;
use crate::up;
use anyhow::Context as _;
use umptcp_relay::{Credential, Key};

pub(crate) fn run(args: &RelayArgs, registry: &Registry, verbose: u8) -> anyhow::Result<()> {
    match &args.action {
        Some(RelayAction::Key(args)) => {
            let key = Key::generate().context(Class::Host.failure("this system has no randomness"))?;
            print(&Credential { client: args.client.clone(), key }.to_line())
        }
        None => up::relay(args, registry, verbose),
    }
}
