//! What waits in the queue of a NIC: its root qdisc, as `tc -s qdisc` shows it.
//!
//! The queues of all NICs are listed, and one is picked out. To ask for one alone (RTM_GETQDISC without NLM_F_DUMP)
//! would have the kernel tell every `tc monitor` and network manager of it as if it had changed.

use super::traits::QueueState;
use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use std::io;

/// Room for one part of the list. The kernel fills up to this much at once.
const ANSWER: usize = 32 * 1024;

/// Length of `struct nlmsghdr`, and of it with the `struct tcmsg` that follows.
const HEADER: usize = 16;
const WITH_TC_HEADER: usize = HEADER + 20;

/// Asks the kernel for the state of a NIC's queue. It needs no privilege.
pub(crate) struct NicQueue {
    socket: Socket,
    nic: u32,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl NicQueue {
    /// For the NIC with this index in the network namespace of the calling thread.
    pub(crate) fn open(nic: u32) -> io::Result<NicQueue> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let payload = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
        message.finalize();
        let mut request = vec![0; message.buffer_len()];
        message.serialize(&mut request);
        Ok(NicQueue { socket, nic, request, answer: Vec::with_capacity(ANSWER) })
    }

    /// `None` if the NIC has no queue, as most virtual ones, or is gone.
    pub(crate) fn read(&mut self) -> Option<QueueState> {
        self.socket.send(&self.request, 0).ok()?;
        let mut found = None;
        loop {
            self.answer.clear();
            // The kernel answers before `send` returns, and each part when the one before it is read.
            self.socket.recv(&mut self.answer, 0).ok()?;
            let mut rest = self.answer.as_slice();
            while let Some((message, tail)) = split(rest) {
                rest = tail;
                if matches!(kind(message), NLMSG_DONE | NLMSG_ERROR) {
                    return found;
                }
                if is_root_of(message, self.nic) {
                    found = state(message);
                }
            }
        }
    }
}

/// The first of several messages, and the others.
fn split(messages: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(*messages.first_chunk::<4>()?) as usize;
    let message = messages.get(..length.max(HEADER))?;
    Some((message, messages.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

/// Whether a message is about the root qdisc of this NIC.
fn is_root_of(message: &[u8], nic: u32) -> bool {
    let word = |at: usize| {
        message.get(at..at + 4).and_then(|w| w.first_chunk::<4>()).copied().map(u32::from_ne_bytes)
    };
    message.len() >= WITH_TC_HEADER
        && word(HEADER + 4) == Some(nic)
        && word(HEADER + 12) == Some(u32::from(TcHandle::ROOT))
}

fn state(message: &[u8]) -> Option<QueueState> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).ok()?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewQueueDiscipline(message)) = message.payload
    else {
        return None;
    };
    let statistics = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Stats2(statistics) => Some(statistics),
        _ => None,
    })?;
    let mut state = QueueState::default();
    for part in statistics {
        match part {
            TcStats2::Basic(basic) => state.sent = basic.bytes,
            TcStats2::Queue(queue) => state.waiting = u64::from(queue.backlog),
            _ => {}
        }
    }
    Some(state)
}
