//! Looks at the windows that are offered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use umptcp_netsim::trace::{PacketEvent, PacketEventKind, Tap};
use umptcp_stack_core::wire::mptcp::{DataAck, MptcpOption};
use umptcp_stack_core::wire::tcp::TcpOptions;

/// Watches windows: the right edge that a side advertises on a subflow never moves back (RFC 8684 §3.3.4 for
/// the data level, RFC 9293 §3.8.6 for plain TCP).
/// Clones share what they have seen.
#[derive(Clone, Debug)]
pub struct Windows {
    unit: usize,
    scales: HashMap<(SocketAddr, SocketAddr), u8>,
    edges: HashMap<(SocketAddr, SocketAddr), u64>,
    shrunk: Arc<Mutex<Option<String>>>,
}

impl Windows {
    /// Nothing seen. `unit`: bytes to which the windows are rounded (RFC 7323 §2.4), by as much an edge may move
    /// back.
    pub fn new(unit: usize) -> Windows {
        let (scales, edges) = Default::default();
        Windows { unit, scales, edges, shrunk: Arc::default() }
    }

    /// What was seen to move back since the last call, if something did.
    pub fn shrunk(&self) -> Option<String> {
        self.shrunk.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Tap for Windows {
    fn packet(&mut self, event: &PacketEvent<'_>) {
        let (PacketEventKind::Sent, Some(tcp)) = (event.what, event.packet.tcp()) else { return };
        let (Some(from), Some(to)) = (event.packet.tcp_source(), event.packet.tcp_destination()) else {
            return;
        };
        if tcp.flags().syn {
            let scale = TcpOptions::parse(tcp.options()).window_scale;
            self.scales.insert((from, to), scale.unwrap_or(0));
            self.edges.remove(&(from, to));
            return;
        }
        let data_ack = TcpOptions::parse(tcp.options()).mptcp.iter().find_map(|option| match option {
            MptcpOption::Dss(dss) => match dss.ack? {
                DataAck::Long(v) => Some(v),
                DataAck::Short(_) => None,
            },
            _ => None,
        });
        let Some(ack) = data_ack.filter(|_| !(tcp.flags().rst || tcp.flags().fin)) else { return };
        let edge = ack.wrapping_add(u64::from(tcp.window()) << self.scales.get(&(from, to)).unwrap_or(&0));
        let before = self.edges.insert((from, to), edge).unwrap_or(edge);
        if (edge.wrapping_sub(before) as i64) <= -(self.unit as i64) {
            let told = format!(
                "{}: {:?} moved the window's edge back from {before} to {edge}",
                event.at, event.packet
            );
            self.shrunk.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(told);
        }
    }
}
