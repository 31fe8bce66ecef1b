//! The sockets of a path as a device, by calls that every system has: a datagram each.

use crate::codec::{BodyHeader, UDP_HEADER};
use crate::credit::Credit;
use crate::packet::{self, Outgoing};
use crate::sockets::{Local, Sockets};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use umptcp_stack_core::device::{ChecksumState, PathConfig, RxPacket, Transmit};
use umptcp_stack_core::wire::icmp::Unreachable;
use umptcp_tun_driver::device::{BufferPool, Device, Sources, TransmitOutcome};

/// Datagrams that are no segments are skipped up to this number before the caller has its turn.
const SKIPPED: usize = 64;

/// Answers to segments that could not be sent, waiting for the stack to read them.
const ANSWERS: usize = 64;

/// Attempts to send a datagram that may have failed for errors of earlier ones, which some systems report with the next.
const EARLIER_ERRORS: usize = 2;

/// Largest segment that the stack is asked for, in bytes: it is cut here, which costs less than the stack's whole path for
/// each datagram.
const MAX_SEGMENT: u32 = 62_000;

/// A path's device. Segments of the stack leave and come as UDP datagrams.
#[derive(Debug)]
pub struct UdpDevice {
    sockets: Arc<Sockets>,
    /// Those with something to read. The first is read next.
    ready: VecDeque<Arc<Local>>,
    /// What the stack is told of segments that could not be sent.
    answers: VecDeque<Vec<u8>>,
    /// A packet that there was no room for, its length, and how much of its payload has been sent.
    begun: Option<(Outgoing, usize, usize)>,
    credit: Credit,
    /// A datagram on its way out.
    body: Vec<u8>,
}

impl UdpDevice {
    /// With `carry` it would also take what is not TCP, which needs sockets that only Linux has.
    pub(crate) fn new(sockets: Arc<Sockets>, carry: bool) -> io::Result<UdpDevice> {
        if carry {
            let text = "UDP and echo requests of programs are carried on Linux only";
            return Err(io::Error::new(ErrorKind::Unsupported, text));
        }
        Ok(UdpDevice {
            sockets,
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            begun: None,
            credit: Credit::default(),
            body: Vec::new(),
        })
    }

    /// Sets what this device can do in a path's configuration.
    pub(crate) fn describe(config: &mut PathConfig) {
        config.checksum_offload = true;
        config.max_packet = MAX_SEGMENT.max(u32::from(config.mtu));
    }

    /// Reads one datagram. `Ok(None)`: there is none. `Ok(Some(None))`: it is dropped.
    fn receive_from(&mut self, local: &Local, pool: &mut BufferPool) -> io::Result<Option<Option<RxPacket>>> {
        let body_at = packet::body_at(&local.address);
        let room = pool.room();
        let (len, remote) = match local.socket.held().recv_from(&mut room[body_at..]) {
            Ok(received) => received,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        self.credit.earn(&remote, UDP_HEADER + len);
        if !packet::complete(&mut room[..body_at + len], remote, local.address) {
            return Ok(Some(None));
        }
        // The system has verified UDP's checksum.
        Ok(Some(Some(RxPacket::new(pool.take(body_at + len), ChecksumState::Verified))))
    }

    /// The stack gets this soon.
    fn answer(&mut self, packet: Option<Vec<u8>>) {
        if self.answers.len() < ANSWERS
            && let Some(packet) = packet
        {
            self.answers.push_back(packet);
        }
    }

    /// Sends a segment in parts, from the payload's byte `done` on.
    fn send(
        &mut self,
        packet: &Transmit,
        segment: &Outgoing,
        body: &BodyHeader,
        done: &mut usize,
    ) -> io::Result<()> {
        let local = self.sockets.get(segment.local)?;
        let len = packet.payload.len();
        let each = packet.gso_size.map_or(len, |size| len.min(size.get().into())).max(1);
        loop {
            let end = (*done + each).min(len);
            self.body.clear();
            self.body.extend_from_slice(body.of_part(*done as u32, end == len).as_slice());
            let mut at = 0;
            for slice in packet.payload.slices() {
                let (from, to) = ((*done).max(at), end.min(at + slice.len()));
                if from < to {
                    self.body.extend_from_slice(&slice[from - at..to - at]);
                }
                at += slice.len();
            }
            let sent = send_to(&local, segment, &self.body);
            let is_full = sent.as_ref().is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            local.waits.store(is_full, Ordering::Relaxed);
            sent?;
            *done = end;
            if end == len {
                return Ok(());
            }
        }
    }
}

fn send_to(local: &Local, to: &Outgoing, body: &[u8]) -> io::Result<()> {
    let attempt = || local.socket.held().send_to(body, to.remote).map(drop);
    for _ in 0..EARLIER_ERRORS {
        match attempt() {
            Err(e) if may_be_earlier(e.kind()) => {}
            other => return other,
        }
    }
    attempt()
}

/// Whether an error may be that of an earlier datagram.
fn may_be_earlier(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(kind, Interrupted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

/// What the stack is to be told when the system has refused a datagram; `None`: nothing, as of a loss in the network.
fn refused(kind: ErrorKind) -> Option<Unreachable> {
    match kind {
        // A host that has lost the address says that it is invalid (Linux), or not available.
        ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable
        | ErrorKind::InvalidInput => Some(Unreachable::Network),
        ErrorKind::HostUnreachable => Some(Unreachable::Host),
        ErrorKind::PermissionDenied => Some(Unreachable::Prohibited),
        _ => None,
    }
}

impl Device for UdpDevice {
    fn receive(&mut self, pool: &mut BufferPool) -> io::Result<Option<RxPacket>> {
        for _ in 0..SKIPPED {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(RxPacket::new(answer.into(), ChecksumState::Verified)));
            }
            if self.ready.is_empty() {
                self.sockets.ready(&mut self.ready)?;
            }
            // Each in turn, so that none keeps the others waiting.
            let Some(local) = self.ready.pop_front() else { return Ok(None) };
            match self.receive_from(&local, pool) {
                Ok(None) => {}
                Ok(Some(received)) => {
                    self.ready.push_back(local);
                    if let Some(packet) = received {
                        return Ok(Some(packet));
                    }
                }
                // Most systems tell of what ICMP says so, and of which datagram it is nobody knows. It has been taken from the
                // socket.
                Err(error) => {
                    tracing::debug!(local = %local.address, %error, "an error of a socket");
                    self.ready.push_back(local);
                }
            }
        }
        Ok(None)
    }

    fn transmit(&mut self, packet: &Transmit) -> io::Result<TransmitOutcome> {
        let invalid = |text: String| io::Error::new(ErrorKind::InvalidInput, text);
        let header = packet.header.as_slice();
        let Some(segment) = packet::read(header) else { return Err(invalid("it is not TCP".into())) };
        let (_, body) =
            BodyHeader::of_segment(&header[segment.tcp_at..]).map_err(|e| invalid(e.to_string()))?;
        let body = body.padded_if_first();
        let len = UDP_HEADER + body.as_slice().len() + packet.payload.len();
        if body.may_answer_a_stranger() && !self.credit.spend(&segment.remote, len) {
            tracing::debug!(remote = %segment.remote, "an answer that would be larger than what asked for it");
            return Ok(TransmitOutcome::Sent);
        }
        // A packet that waits for room is offered again, if its path stays.
        let begun = self.begun.take().filter(|(what, length, _)| (*what, *length) == (segment, len));
        let mut done = begun.map_or(0, |(.., done)| done);
        match self.send(packet, &segment, &body, &mut done) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.begun = Some((segment, len, done));
                return Ok(TransmitOutcome::Full);
            }
            Err(e) => match refused(e.kind()) {
                Some(why) => self.answer(packet::undelivered(&segment, why)),
                None => tracing::debug!(local = %segment.local, error = %e, "not sent"),
            },
        }
        Ok(TransmitOutcome::Sent)
    }

    fn watch(&mut self, sources: Option<Sources>) -> io::Result<()> {
        self.sockets.watch(sources)
    }

    fn is_readable(&mut self, token: usize) {
        self.sockets.watched.is_readable(token);
    }

    fn has_more(&self) -> bool {
        !(self.answers.is_empty() && self.ready.is_empty())
    }

    fn offload(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::net::{IpAddr, SocketAddr, UdpSocket};
    use std::num::NonZeroU16;
    use std::time::Duration;
    use umptcp_stack_core::device::HeaderBuf;
    use umptcp_stack_core::payload::Payload;
    use umptcp_stack_core::types::PathId;
    use umptcp_stack_core::wire::ip;

    fn segment(local: SocketAddr, remote: SocketAddr, flags: u8, payload: &[u8]) -> Transmit {
        let at = ip::ip_header_len(&local.ip());
        let mut header = HeaderBuf::zeroed(at + 20);
        let bytes = header.as_mut_slice();
        ip::emit_ip_header(bytes, local.ip(), remote.ip(), 20 + payload.len(), 0, 0).unwrap();
        bytes[at..at + 2].copy_from_slice(&local.port().to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&remote.port().to_be_bytes());
        bytes[at + 4..at + 14].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 0x50, flags]);
        Transmit::new(PathId(0), header, Payload::from(Bytes::copy_from_slice(payload)))
    }

    #[test]
    fn a_segment_leaves_in_parts_and_an_answer_to_a_stranger_not_at_all() {
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        // A namespace of a test may have its loopback device down.
        let Ok(peer) = UdpSocket::bind((address, 0)) else { return };
        peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let remote = peer.local_addr().unwrap();
        let local =
            SocketAddr::new(address, UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap().port());
        let sockets = Arc::new(Sockets::new("127.0.0.1", vec![address], 16_384).unwrap());
        let mut device = UdpDevice::new(sockets, false).unwrap();
        // SYN and ACK: nobody has asked for it, so the first datagram that comes is another.
        device.transmit(&segment(local, remote, 0x12, b"")).unwrap();
        let mut large = segment(local, remote, 0x18, b"some payload");
        large.gso_size = NonZeroU16::new(5);
        assert_eq!(device.transmit(&large).unwrap(), TransmitOutcome::Sent);
        for (payload, flags, sequence) in [("some ", 0x10, 4), ("paylo", 0x10, 9), ("ad", 0x18, 14)] {
            let mut body = [0; 100];
            let (len, from) = peer.recv_from(&mut body).unwrap();
            assert_eq!((from, &body[12..len]), (local, payload.as_bytes()));
            assert_eq!((body[1], &body[4..8]), (flags, &[1, 2, 3, sequence][..]));
        }
        assert!(!device.has_more());
    }

    #[test]
    fn what_is_not_tcp_is_refused() {
        let sockets = Arc::new(Sockets::new("127.0.0.1", Vec::new(), 1500).unwrap());
        assert_eq!(UdpDevice::new(Arc::clone(&sockets), true).unwrap_err().kind(), ErrorKind::Unsupported);
        let mut device = UdpDevice::new(sockets, false).unwrap();
        let ends = ["192.0.2.1:9", "192.0.2.2:80"].map(|a| a.parse().unwrap());
        let mut packet = segment(ends[0], ends[1], 0x10, b"");
        // The protocol of UDP.
        packet.header.as_mut_slice()[9] = 17;
        assert_eq!(device.transmit(&packet).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
