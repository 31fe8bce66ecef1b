//! Watches the host's nftables ruleset.
//!
//! `nft flush ruleset`, with which most firewalls begin to load their rules, removes our tables as well. The
//! kernel reports each change of the ruleset to the netlink group NFNLGRP_NFTABLES.

use futures::stream::{self, Stream};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use std::future::poll_fn;
use std::io;

/// NFNLGRP_NFTABLES as a bit of the mask that `bind` takes.
const NFTABLES: u32 = 1 << (7 - 1);
/// Enough for the largest message of the kernel. What does not fit is lost, which does no harm.
const MESSAGE: usize = 8192;

/// Yields each time the ruleset of the calling thread's network namespace has changed, whoever changed it.
/// Must be called in a tokio runtime. Ends if the socket fails.
pub(super) fn ruleset_changes() -> io::Result<impl Stream<Item = ()>> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, NFTABLES))?;
    let state = (socket, Vec::with_capacity(MESSAGE));
    Ok(stream::unfold(state, async |(socket, mut buffer)| {
        // The message is not read: what has changed is found out from the ruleset itself.
        buffer.clear();
        match poll_fn(|context| socket.poll_recv(context, &mut buffer)).await {
            // So many changes that some messages were lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot watch the nftables ruleset any longer");
                return None;
            }
            Ok(()) => {}
        }
        Some(((), (socket, buffer)))
    }))
}
