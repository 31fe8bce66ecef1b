//! The encoding: a tag, the time in nanoseconds, the host, and the fields, all little-endian.
//!
//! Tags and the order of fields are fixed for ever.

use super::counters::counter;
use sha2::{Digest as _, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use umptcp_stack_core::device::{ChecksumRequest, ChecksumState, RxPacket, Transmit};
use umptcp_stack_core::error::{ConnectionError, FallbackReason};
use umptcp_stack_core::event::{Event, SubflowReset};
use umptcp_stack_core::observe::Observation;
use umptcp_stack_core::types::{Instant, PathId};

/// Kinds of records.
mod tag {
    pub(super) const SENT: u8 = 1;
    pub(super) const RECEIVED: u8 = 2;
    pub(super) const EVENT: u8 = 3;
    pub(super) const OBSERVATION: u8 = 4;
    pub(super) const ENDED: u8 = 5;
}

/// A hash of records, each field in order.
#[derive(Default)]
pub(super) struct Encoder(Sha256);

impl Encoder {
    /// 16 hexadecimal digits.
    pub(super) fn digest(&self) -> String {
        self.0.clone().finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }

    pub(super) fn sent(&mut self, now: Instant, host: u32, packet: &Transmit) {
        self.start(tag::SENT, now, host);
        self.u32(packet.path.0);
        self.u64(packet.len() as u64);
        self.0.update(packet.header.as_slice());
        // How the payload is cut into slices is nobody's business.
        for slice in packet.payload.slices() {
            self.0.update(slice);
        }
        self.gso_size(packet.gso_size);
        match packet.checksum {
            ChecksumRequest::Complete => self.u8(0),
            ChecksumRequest::Partial { start, offset } => {
                self.u8(1);
                self.u16(start);
                self.u16(offset);
            }
        }
        self.time(packet.earliest);
    }

    pub(super) fn received(&mut self, now: Instant, host: u32, path: PathId, packet: &RxPacket) {
        self.start(tag::RECEIVED, now, host);
        self.u32(path.0);
        self.u64(packet.buffer.len() as u64);
        self.0.update(&packet.buffer);
        self.gso_size(packet.gso_size);
        self.u8(match packet.checksum {
            ChecksumState::Unverified => 0,
            ChecksumState::Verified => 1,
        });
    }

    pub(super) fn observation(&mut self, host: u32, observation: &Observation) {
        self.start(tag::OBSERVATION, observation.now, host);
        self.optional(observation.connection, |e, c| e.u64(c.0));
        self.optional(observation.subflow, |e, s| e.u32(s.0));
        self.u8(counter(observation.what));
    }

    pub(super) fn ended(&mut self, well: bool) {
        self.u8(tag::ENDED);
        self.flag(well);
    }

    pub(super) fn event(&mut self, now: Instant, host: u32, event: &Event) {
        self.start(tag::EVENT, now, host);
        match event {
            Event::Incoming { listener, incoming, remote, local, mptcp, complete } => {
                self.u8(1);
                self.u32(listener.0);
                self.u64(incoming.0);
                self.socket_address(*remote);
                self.socket_address(*local);
                self.flag(*mptcp);
                self.flag(*complete);
            }
            Event::IncomingGone { incoming } => {
                self.u8(10);
                self.u64(incoming.0);
            }
            Event::Connected { connection } => {
                self.u8(2);
                self.u64(connection.0);
            }
            Event::Readable { connection } => {
                self.u8(3);
                self.u64(connection.0);
            }
            Event::Writable { connection } => {
                self.u8(4);
                self.u64(connection.0);
            }
            Event::KeepAlive { connection } => {
                self.u8(11);
                self.u64(connection.0);
            }
            Event::FellBack { connection, reason } => {
                self.u8(5);
                self.u64(connection.0);
                self.u8(fallback(*reason));
            }
            Event::SubflowEstablished { connection, subflow, path } => {
                self.u8(6);
                self.u64(connection.0);
                self.u32(subflow.0);
                self.u32(path.0);
            }
            Event::SubflowClosed { connection, subflow, error, reset, .. } => {
                self.u8(7);
                self.u64(connection.0);
                self.u32(subflow.0);
                self.optional(*error, |e, error| e.u8(connection_error(error)));
                self.optional(*reset, Encoder::reset);
            }
            Event::JoinFailed { connection, subflow, path, remote, error, reset } => {
                self.u8(8);
                self.u64(connection.0);
                self.u32(subflow.0);
                self.u32(path.0);
                self.socket_address(*remote);
                self.u8(connection_error(*error));
                self.optional(*reset, Encoder::reset);
            }
            Event::Closed { connection, error } => {
                self.u8(9);
                self.u64(connection.0);
                self.optional(*error, |e, error| e.u8(connection_error(error)));
            }
        }
    }

    fn start(&mut self, tag: u8, now: Instant, host: u32) {
        self.u8(tag);
        self.time(now);
        self.u32(host);
    }

    fn u8(&mut self, v: u8) {
        self.0.update([v]);
    }

    fn u16(&mut self, v: u16) {
        self.0.update(v.to_le_bytes());
    }

    fn u32(&mut self, v: u32) {
        self.0.update(v.to_le_bytes());
    }

    fn u64(&mut self, v: u64) {
        self.0.update(v.to_le_bytes());
    }

    fn flag(&mut self, v: bool) {
        self.u8(u8::from(v));
    }

    fn time(&mut self, at: Instant) {
        self.u64(at.as_nanos());
    }

    fn gso_size(&mut self, size: Option<NonZeroU16>) {
        self.u16(size.map_or(0, NonZeroU16::get));
    }

    fn optional<T>(&mut self, value: Option<T>, encode: impl FnOnce(&mut Encoder, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            encode(self, value);
        }
    }

    fn socket_address(&mut self, address: SocketAddr) {
        match address.ip() {
            IpAddr::V4(ip) => {
                self.u8(4);
                self.0.update(ip.octets());
            }
            IpAddr::V6(ip) => {
                self.u8(6);
                self.0.update(ip.octets());
            }
        }
        self.u16(address.port());
    }

    fn reset(&mut self, reset: SubflowReset) {
        self.flag(reset.by_peer);
        // The code on the wire (RFC 8684 §3.6).
        self.optional(reset.reason, |e, reason| e.u8(reason.into()));
        self.flag(reset.transient);
    }
}

fn connection_error(error: ConnectionError) -> u8 {
    match error {
        ConnectionError::NotFound => 1,
        ConnectionError::Refused => 2,
        ConnectionError::Reset => 3,
        ConnectionError::Unreachable(_) => 4,
        ConnectionError::TimedOut => 5,
        ConnectionError::Aborted => 6,
        ConnectionError::SendClosed => 7,
        ConnectionError::NotConnected => 8,
        ConnectionError::Broken => 9,
        ConnectionError::NoPath => 10,
        ConnectionError::Resources => 11,
    }
}

fn fallback(reason: FallbackReason) -> u8 {
    match reason {
        FallbackReason::Disabled => 1,
        FallbackReason::NoOptionInSyn => 2,
        FallbackReason::Unacceptable => 3,
        FallbackReason::ChecksumRefused => 4,
        FallbackReason::NoOptionInSynAck => 5,
        FallbackReason::SynsLost => 6,
        FallbackReason::BlackHole => 7,
        FallbackReason::KeyMismatch => 8,
        FallbackReason::NoOptionInAck => 9,
        FallbackReason::NoOptionInData => 10,
        FallbackReason::NoDataAck => 11,
        FallbackReason::InfiniteMapping => 12,
        FallbackReason::ChecksumFailure => 13,
        FallbackReason::MpFail => 14,
        FallbackReason::SimultaneousOpen => 15,
        FallbackReason::NoToken => 16,
        FallbackReason::StrippedAndNoUdp => 17,
        FallbackReason::SwallowedAndNoUdp => 18,
    }
}
