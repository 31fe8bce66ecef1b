//! What can be asked about a connection.

use super::connection::Connection;
use super::negotiation::Mode;
use super::subflow::Subflow;
use crate::info::{ConnectionInfo, ConnectionState, DataSequence, MptcpStatus, ReceivedMapping, SubflowInfo};
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
            remote_token: self.is_mptcp().then_some(self.mptcp.remote_token()),
            sequence: self.is_mptcp().then(|| DataSequence {
                write_next: self.send.end().to_wire(self.mptcp.local_idsn()).0,
                send_unacknowledged: self.send.una().to_wire(self.mptcp.local_idsn()).0,
                receive_next: self.recv.next().to_wire(self.mptcp.remote_idsn()).0,
            }),
            max_subflows: self.config.max_subflows,
            max_add_addr_accepted: self.config.max_add_addr_accepted,
            checksum: self.mptcp.checksum() && self.is_mptcp(),
            congestion: self.cc.name().into(),
            scheduler: self.scheduler.name().into(),
            path_policy: self.addresses.policy().name().into(),
            bytes_sent: self.send.bytes_sent(),
            bytes_acked: self.send.bytes_acked(),
            bytes_received: self.recv.bytes_received(),
            readable: self.recv.readable_bytes(),
            out_of_order: self.recv.out_of_order_bytes()
                + self.subflows.iter().map(|m| m.tcp.out_of_order()).sum::<u64>(),
            writable: if self.send.is_shut() || self.life.has_ended() { 0 } else { self.send.room() },
            send_queue: self.send.held(),
            send_window: self.send.window(),
            peer_finished: self.recv.is_finished(),
            bytes_reinjected: self.send.reinjected().0,
            bytes_reinjected_needlessly: self.send.reinjected().1,
            send_buffer: self.send.capacity(),
            receive_buffer: self.recv.capacity() as u64,
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
                local_id: m.local_id(),
                remote_id: m.remote_id(),
                initial: m.join.is_initial(),
                state: tcp.state().name(),
                backup: m.is_backup(),
                stale: m.is_stale(),
                health: m.health(),
                last_ack: tcp.delivered_at(),
                last_sent: tcp.sent_at(),
                last_received: tcp.payload_at(),
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
                received_mapping: m.incoming.last_mapping().filter(|_| self.is_mptcp()).map(|mapping| {
                    ReceivedMapping {
                        data_sequence: mapping.data.to_wire(self.mptcp.remote_idsn()).0,
                        subflow_sequence: mapping.ssn,
                        initial_sequence: tcp.peer_isn().0,
                        length: mapping.len,
                    }
                }),
            }
        };
        self.subflows.enumerate().map(info).collect()
    }
}
