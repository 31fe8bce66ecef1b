//! Watches the host's nftables ruleset.
//!
//! `nft flush ruleset`, with which most firewalls begin to load their rules, removes our tables as well. The
//! kernel reports each change of the ruleset to the netlink group NFNLGRP_NFTABLES.
//!
//! Only the names of tables are read from the messages. What has changed is found out from the ruleset
//! itself, because messages can be lost. The names tell the changes that other instances of ours make, which
//! are many when several start.

use super::nfnetlink::{HEADER, NF_HEADER, SUBSYSTEM, TABLE, aligned, attribute};
use super::nft::TUN_PREFIX;
use futures::stream::{self, Stream};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use std::future::poll_fn;
use std::io;

/// NFNLGRP_NFTABLES as a bit of the mask that `bind` takes.
const NFTABLES: u32 = 1 << (7 - 1);
/// Enough for the largest message of the kernel. What does not fit is lost, which does no harm.
const MESSAGE: usize = 8192;

/// Kinds of message that matter.
const DELETED_TABLE: u8 = 2;
const NEW_GENERATION: u8 = 15;
/// What has changed in the ruleset.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct RulesetChange {
    /// Something that is not in a table of ours, or nobody knows what.
    pub(super) foreign: bool,
    /// Tables of ours that somebody has deleted, perhaps this instance itself.
    pub(super) deleted: Vec<String>,
}

/// Yields each time the ruleset of the calling thread's network namespace has changed, whoever changed it.
/// Must be called in a tokio runtime. Ends if the socket fails.
pub(super) fn ruleset_changes() -> io::Result<impl Stream<Item = RulesetChange>> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, NFTABLES))?;
    let state = (socket, Vec::with_capacity(MESSAGE));
    Ok(stream::unfold(state, async |(socket, mut buffer)| {
        buffer.clear();
        let change = match poll_fn(|context| socket.poll_recv(context, &mut buffer)).await {
            // So many changes that some messages were lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                RulesetChange { foreign: true, ..RulesetChange::default() }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot watch the nftables ruleset any longer");
                return None;
            }
            Ok(()) => read(&buffer),
        };
        Some((change, (socket, buffer)))
    }))
}

fn read(mut messages: &[u8]) -> RulesetChange {
    let mut change = RulesetChange::default();
    while let Some(length) = messages.first_chunk::<4>() {
        let length = u32::from_ne_bytes(*length) as usize;
        let Some(message) = messages.get(..length).filter(|m| m.len() >= HEADER) else {
            // Cut off: it did not fit.
            change.foreign = true;
            break;
        };
        let [kind, subsystem] = u16::from_ne_bytes([message[4], message[5]]).to_le_bytes();
        // The end of a transaction says nothing more.
        if subsystem == SUBSYSTEM && kind != NEW_GENERATION {
            match table(message).filter(|name| name.starts_with(TUN_PREFIX)) {
                Some(name) if kind == DELETED_TABLE => change.deleted.push(name),
                Some(_) => {}
                None => change.foreign = true,
            }
        }
        messages = messages.get(aligned(length)..).unwrap_or_default();
    }
    change
}

/// The name of the table that a message is about.
fn table(message: &[u8]) -> Option<String> {
    let name = attribute(message.get(HEADER + NF_HEADER..)?, TABLE)?;
    Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, table: Option<&str>) -> Vec<u8> {
        let mut m = vec![0; HEADER + NF_HEADER];
        m[4..6].copy_from_slice(&u16::from_le_bytes([kind, SUBSYSTEM]).to_ne_bytes());
        // An attribute of another kind before it.
        m.extend([5u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat());
        m.extend([9, 0, 0, 0]);
        if let Some(name) = table {
            m.extend((5 + name.len() as u16).to_ne_bytes());
            m.extend(TABLE.to_ne_bytes());
            m.extend(name.as_bytes());
            m.push(0);
            m.resize(aligned(m.len()), 0);
        }
        let length = m.len() as u32;
        m[..4].copy_from_slice(&length.to_ne_bytes());
        m
    }

    #[test]
    fn changes_of_our_own_tables_are_told_from_others() {
        let change = |foreign: bool, deleted: &[&str]| RulesetChange {
            foreign,
            deleted: deleted.iter().map(|d| (*d).to_owned()).collect(),
        };
        let ours = [message(0, Some("umptcp0")), message(6, Some("umptcp0")), message(15, None)].concat();
        assert_eq!(read(&ours), change(false, &[]));
        let flush = [message(8, Some("umptcp0")), message(2, Some("umptcp0")), message(2, Some("filter"))];
        assert_eq!(read(&flush.concat()), change(true, &["umptcp0"]));
        assert_eq!(read(&message(6, Some("docker"))), change(true, &[]));
        assert_eq!(read(&message(6, None)), change(true, &[]));
        assert_eq!(read(&message(0, Some("umptcp0"))[..20]), change(true, &[]));
    }
}
