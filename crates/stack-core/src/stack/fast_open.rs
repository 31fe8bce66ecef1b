//! TCP Fast Open (RFC 7413): what can be kept beyond the life of a stack.

use super::state::Stack;
use crate::info::FastOpenServer;
use alloc::vec::Vec;
use umptcp_types::Instant;

impl Stack {
    /// What the stack, as a client, has learned of servers itself, those heard of least recently first; at
    /// most 1024.
    pub fn fast_open_servers(&self, now: Instant) -> Vec<FastOpenServer> {
        self.ctx.fast_open_servers(now)
    }

    /// Takes over what another stack had learned, unless this one knows the server already or there are 1024.
    /// False: it was not taken, for one of these reasons or because no server gives such a cookie.
    pub fn remember_fast_open_server(&mut self, now: Instant, server: &FastOpenServer) -> bool {
        self.ctx.take_over_fast_open(now, server)
    }
}
