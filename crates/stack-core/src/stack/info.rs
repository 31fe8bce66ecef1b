//! What can be asked about a connection.

use crate::info::{ConnectionInfo, ConnectionState, MptcpStatus, SubflowInfo};
use crate::mptcp::Connection;
use crate::mptcp::connection::Mode;
use alloc::vec::Vec;

impl Connection {
    pub(crate) fn info(&self) -> ConnectionInfo {
        let state = if self.ended.is_some() {
            ConnectionState::Closed
        } else if !self.established {
            ConnectionState::Connecting
        } else if self.fin.queued || self.recv.finished() {
            ConnectionState::Closing
        } else {
            ConnectionState::Established
        };
        let mptcp = match self.mode {
            Mode::Negotiating => MptcpStatus::Negotiating,
            Mode::Mptcp { since } => MptcpStatus::Active { since },
            Mode::Plain { reason } => MptcpStatus::Plain { reason },
        };
        ConnectionInfo {
            state,
            local: self.initial_tuple.local,
            remote: self.initial_tuple.remote,
            mptcp,
            token: self.is_mptcp().then_some(self.local_token),
            checksum: self.checksum && self.is_mptcp(),
            congestion: self.cc.name().into(),
            scheduler: self.scheduler.name().into(),
            bytes_sent: self.bytes_sent,
            bytes_acked: self.bytes_acked,
            bytes_received: self.bytes_received,
            readable: self.recv.readable_bytes(),
            writable: if self.fin.queued || self.ended.is_some() { 0 } else { self.send.room() },
            error: self.ended.flatten(),
            lost_subflows: self.lost.iter().copied().collect(),
        }
    }

    pub(crate) fn subflow_infos(&self) -> Vec<SubflowInfo> {
        let info = |(i, m): (usize, &crate::mptcp::subflow::Subflow)| {
            let tcp = &m.tcp;
            SubflowInfo {
                id: tcp.id(),
                path: tcp.path(),
                local: tcp.tuple().local,
                remote: tcp.tuple().remote,
                state: tcp.state().name(),
                backup: m.backup(),
                stale: m.stale,
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
        self.subflows.iter().enumerate().map(info).collect()
    }
}
