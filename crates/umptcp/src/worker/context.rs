//! What the worker's parts use while they run.

use crate::carry::Front;
use umptcp_tun_driver::event_loop;

/// The stack, the time and the paths.
pub(crate) type Context<'a> = event_loop::Context<'a, Front>;
