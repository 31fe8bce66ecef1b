//! What can be asked about a connection.

use super::connection::Connection;
use super::negotiation::Mode;
use super::subflow::Subflow;
use crate::info::{ConnectionInfo, ConnectionState, MptcpStatus, SubflowInfo};
use alloc::vec::Vec;

impl Connection {
    pub(crate) fn info(&self) -> ConnectionInfo {
        let state = if self.life.has_ended() {
            ConnectionState::Closed
        } else if self.life.is_connecting() {
            ConnectionState::Connecting
        } else if self.send.is_shut() || self.recv.is_finished() {
            ConnectionState::Closing
        } else {
            ConnectionState::Established
        };
        let mptcp = match self.mptcp.mode() {
            Mode::Negotiating => MptcpStatus::Negotiating,
            Mode::Mptcp { since } => MptcpStatus::Active { since },
            Mode::Plain { reason } => MptcpStatus::Plain { reason },
        };
        ConnectionInfo {
            state,
            local: self.initial_tuple.local,
            remote: self.initial_tuple.remote,
            mptcp,
            token: self.is_mptcp().then_some(self.mptcp.local_token()),
            checksum: self.mptcp.checksum() && self.is_mptcp(),
            congestion: self.cc.name().into(),
            scheduler: self.scheduler.name().into(),
            bytes_sent: self.send.bytes_sent(),
            bytes_acked: self.send.bytes_acked(),
            bytes_received: self.recv.bytes_received(),
            readable: self.recv.readable_bytes(),
            writable: if self.send.is_shut() || self.life.has_ended() { 0 } else { self.send.room() },
            send_queue: self.send.end() - self.send.una(),
            error: self.life.end().flatten(),
            lost_subflows: self.addresses.failures.lost(),
        }
    }

    pub(crate) fn subflow_infos(&self) -> Vec<SubflowInfo> {
        let info = |(i, m): (usize, &Subflow)| {
            let tcp = &m.tcp;
            SubflowInfo {
                id: tcp.id(),
                path: tcp.path(),
                local: tcp.tuple().local,
                remote: tcp.tuple().remote,
                state: tcp.state().name(),
                backup: m.is_backup(),
                stale: m.is_stale(),
                srtt: tcp.srtt(),
                rttvar: tcp.rttvar(),
                min_rtt: tcp.min_rtt(),
                rto: tcp.rto(),
                mss: self.packet_payload(i),
                window: self.cc.window(tcp.id()),
                ssthresh: self.cc.ssthresh(tcp.id()),
                in_flight: tcp.in_flight(),
                pacing_rate: tcp.srtt().and_then(|_| tcp.pacing_rate(self.cc.as_ref())).unwrap_or(0),
                bytes_sent: tcp.stats().bytes_sent,
                bytes_acked: tcp.stats().bytes_acked,
                data_sent: m.data_sent(),
                bytes_received: tcp.stats().bytes_received,
                bytes_retransmitted: tcp.stats().bytes_retransmitted,
                timeouts: tcp.stats().timeouts,
                recoveries: tcp.stats().recoveries,
                undone: tcp.stats().undone,
            }
        };
        self.subflows.enumerate().map(info).collect()
    }
}
