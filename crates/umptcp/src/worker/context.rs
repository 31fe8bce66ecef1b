//! What the worker's parts use while they run.

use umptcp_stack_core::Stack;
use umptcp_tun_driver::event_loop;

/// The stack, the time and the paths.
pub(crate) type Context<'a> = event_loop::Context<'a, Stack>;
