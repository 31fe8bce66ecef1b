//! The sockets of a path as a device.

use crate::codec::{BodyHeader, UDP_HEADER};
use crate::credit::Credit;
use crate::errors;
use crate::packet::{self, Outgoing};
use crate::sockets::{Local, Sockets};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use umptcp_stack_core::device::{ChecksumState, PathConfig, RxPacket, Transmit};
use umptcp_stack_core::wire::icmp::Unreachable;
use umptcp_tun_driver::device::{BufferPool, Device, TransmitOutcome};

/// Datagrams that are no segments are skipped up to this number before the caller has its turn.
const SKIPPED: usize = 64;

/// Answers to segments that could not be sent, waiting for the stack to read them.
const ANSWERS: usize = 64;

/// Attempts to send a datagram that may have failed for errors of earlier ones.
const EARLIER_ERRORS: usize = 2;

/// A path's device. Segments of the stack leave and come as UDP datagrams.
#[derive(Debug)]
pub struct UdpDevice {
    sockets: Arc<Sockets>,
    /// Those with something to read. The first is read next.
    ready: VecDeque<Arc<Local>>,
    /// What the stack is told of segments that could not be sent.
    answers: VecDeque<Vec<u8>>,
    /// Has no room for the packet that was to be sent.
    full: Option<Arc<Local>>,
    credit: Credit,
}

impl UdpDevice {
    pub(crate) fn new(sockets: Arc<Sockets>) -> UdpDevice {
        UdpDevice {
            sockets,
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            full: None,
            credit: Credit::default(),
        }
    }

    /// Sets what this device can do in a path's configuration.
    pub(crate) fn describe(config: &mut PathConfig) {
        config.checksum_offload = true;
        config.max_packet = u32::from(config.mtu);
    }

    /// Reads one datagram. `Ok(None)`: there is none.
    fn receive_from(&mut self, local: &Local, pool: &mut BufferPool) -> io::Result<Option<Received>> {
        let body_at = packet::body_at(&local.address);
        let room = pool.room();
        let (len, remote) = match local.socket.recv_from(&mut room[body_at..]) {
            Ok(received) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        self.credit.earn(&remote, UDP_HEADER + len);
        let len = body_at + len;
        if !packet::complete(&mut room[..len], remote, local.address) {
            return Ok(Some(Received::Nothing));
        }
        // The kernel has verified UDP's checksum.
        Ok(Some(Received::Segment(RxPacket::new(pool.take(len), ChecksumState::Verified))))
    }

    /// What the stack is to be told when the system has refused a segment; `None`: nothing, as of a loss in
    /// the network.
    fn refused(error: &io::Error) -> Option<Unreachable> {
        match error.raw_os_error()? {
            libc::ENETUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENXIO => {
                Some(Unreachable::Network)
            }
            libc::EHOSTUNREACH | libc::EHOSTDOWN => Some(Unreachable::Host),
            libc::ECONNREFUSED => Some(Unreachable::Port),
            libc::EPERM | libc::EACCES => Some(Unreachable::Prohibited),
            _ => None,
        }
    }

    /// Passes on what ICMP says of the datagrams of a socket.
    fn read_errors(&mut self, local: &Local) {
        while let Some(error) = errors::next(&local.socket) {
            tracing::debug!(local = %local.address, ?error, "an ICMP error");
            self.answer(error.to_packet(local.address));
        }
    }

    /// The stack gets this soon.
    fn answer(&mut self, packet: Option<Vec<u8>>) {
        if self.answers.len() < ANSWERS
            && let Some(packet) = packet
        {
            self.answers.push_back(packet);
            self.sockets.wake();
        }
    }
}

/// What a socket had.
enum Received {
    Segment(RxPacket),
    /// Something else, which is dropped.
    Nothing,
}

impl Device for UdpDevice {
    fn receive(&mut self, pool: &mut BufferPool) -> io::Result<Option<RxPacket>> {
        for _ in 0..SKIPPED {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(RxPacket::new(answer.into(), ChecksumState::Verified)));
            }
            if self.ready.is_empty() {
                self.sockets.ready(&mut self.ready)?;
                if self.ready.is_empty() {
                    return Ok(None);
                }
            }
            // Each in turn, so that none keeps the others waiting.
            let Some(local) = self.ready.pop_front() else { continue };
            match self.receive_from(&local, pool) {
                // It may have been reported for its errors.
                Ok(None) => self.read_errors(&local),
                Ok(Some(received)) => {
                    self.ready.push_back(local);
                    if let Received::Segment(packet) = received {
                        return Ok(Some(packet));
                    }
                }
                // It has been taken from the socket, and is in its queue if it came from the network.
                Err(error) => {
                    tracing::debug!(local = %local.address, %error, "an error of a socket");
                    self.read_errors(&local);
                    self.ready.push_back(local);
                }
            }
        }
        // More will be reported again.
        Ok(None)
    }

    fn transmit(&mut self, packet: &Transmit) -> io::Result<TransmitOutcome> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        if packet.gso_size.is_some_and(|size| packet.payload.len() > usize::from(size.get())) {
            return Err(invalid("a segment that is to be split".into()));
        }
        let header = packet.header.as_slice();
        // What programs send beside TCP has no place here.
        let Some(segment) = packet::read(header) else { return Ok(TransmitOutcome::Sent) };
        let (_, body) =
            BodyHeader::of_segment(&header[segment.tcp_at..]).map_err(|e| invalid(e.to_string()))?;
        let body = body.padded_if_first();
        let len = UDP_HEADER + body.as_slice().len() + packet.payload.len();
        if body.may_answer_a_stranger() && !self.credit.spend(&segment.remote, len) {
            tracing::debug!(remote = %segment.remote, "an answer that would be larger than what asked for it");
            return Ok(TransmitOutcome::Sent);
        }
        let sent = self.sockets.get(segment.local).and_then(|local| {
            send(&local, &segment, &body, packet).inspect_err(|e| {
                self.full = (e.kind() == io::ErrorKind::WouldBlock).then_some(local);
            })
        });
        match sent {
            Ok(()) => Ok(TransmitOutcome::Sent),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(TransmitOutcome::Full),
            Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.answer(packet::too_big(&segment, self.sockets.mtu()));
                Ok(TransmitOutcome::Sent)
            }
            Err(e) => {
                match UdpDevice::refused(&e) {
                    Some(why) => self.answer(packet::undelivered(&segment, why)),
                    None => tracing::debug!(local = %segment.local, error = %e, "not sent"),
                }
                Ok(TransmitOutcome::Sent)
            }
        }
    }

    fn signals_room(&mut self, wanted: bool) -> bool {
        if let Some(full) = &self.full {
            self.sockets.watch_room(full, wanted);
        }
        if !wanted {
            self.full = None;
        }
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.sockets.fd()
    }

    fn offload(&self) -> bool {
        false
    }
}

/// Whether an error may be that of an earlier datagram, which the system reports with the next: then this one
/// has not been sent, and nothing is wrong with it.
fn is_earlier(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EACCES
                | libc::EPROTO
                | libc::EMSGSIZE
                | libc::EOPNOTSUPP
                | libc::ENOPROTOOPT
        )
    )
}

/// Sends one datagram.
fn send(local: &Local, segment: &Outgoing, body: &BodyHeader, packet: &Transmit) -> io::Result<()> {
    let slices = packet.payload.slices();
    let mut all = [IoSlice::new(&[]); 18];
    let flat;
    let count = if slices.len() < all.len() {
        all[0] = IoSlice::new(body.as_slice());
        for (to, slice) in all[1..].iter_mut().zip(slices) {
            *to = IoSlice::new(slice);
        }
        slices.len() + 1
    } else {
        flat = [body.as_slice(), &packet.to_vec()[packet.header.as_slice().len()..]].concat();
        all[0] = IoSlice::new(&flat);
        1
    };
    let remote = segment.remote.into();
    for _ in 0..EARLIER_ERRORS {
        match local.as_ref().send_to_vectored(&all[..count], &remote) {
            Err(e) if is_earlier(&e) => {}
            other => return other.map(drop),
        }
    }
    local.as_ref().send_to_vectored(&all[..count], &remote).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::net::{IpAddr, SocketAddr, UdpSocket};
    use std::time::{Duration, Instant};
    use umptcp_stack_core::device::HeaderBuf;
    use umptcp_stack_core::payload::Payload;
    use umptcp_stack_core::types::PathId;
    use umptcp_stack_core::wire::ip;

    /// A device over the loopback device, and its sockets. `None` where there is none (a namespace of a
    /// test).
    fn device(v6: bool) -> Option<(UdpDevice, Arc<Sockets>, IpAddr)> {
        let address: IpAddr = if v6 { "::1" } else { "127.0.0.1" }.parse().unwrap();
        UdpSocket::bind((address, 0)).ok()?;
        let sockets = Arc::new(Sockets::new("lo", vec![address], 65_536).unwrap());
        Some((UdpDevice::new(Arc::clone(&sockets)), sockets, address))
    }

    fn unused_port(address: IpAddr) -> u16 {
        UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap().port()
    }

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

    /// The next packet; waits for it.
    fn next(device: &mut UdpDevice) -> Option<Bytes> {
        let mut pool = BufferPool::default();
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if let Some(packet) = device.receive(&mut pool).unwrap() {
                return Some(packet.buffer);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    #[test]
    fn a_segment_arrives_as_it_was_sent() {
        for v6 in [false, true] {
            let (Some((mut one, ..)), Some((mut other, sockets, address))) = (device(v6), device(v6)) else {
                continue;
            };
            let [local, remote] = [0, 1].map(|_| SocketAddr::new(address, unused_port(address)));
            sockets.listen(remote.port()).unwrap();
            let sent = segment(local, remote, 0x18, b"some payload");
            assert_eq!(one.transmit(&sent).unwrap(), TransmitOutcome::Sent);
            let mut expected = sent.to_vec();
            let received = next(&mut other).expect("it arrives");
            // What IP's header says of identification is not carried.
            let ip = ip::ip_header_len(&address);
            expected[..ip].copy_from_slice(&received[..ip]);
            assert_eq!(received, expected);
            // And back, by the socket that listens.
            other.transmit(&segment(remote, local, 0x10, b"answer")).unwrap();
            assert!(next(&mut one).expect("it arrives").ends_with(b"answer"));
        }
    }

    #[test]
    fn where_nobody_listens_the_stack_gets_a_reset() {
        for v6 in [false, true] {
            let Some((mut one, _, address)) = device(v6) else { continue };
            let [local, remote] = [0, 1].map(|_| SocketAddr::new(address, unused_port(address)));
            one.transmit(&segment(local, remote, 0x02, b"")).unwrap();
            let answer = next(&mut one).expect("an answer");
            let tcp = &answer[ip::ip_header_len(&address)..];
            assert_eq!(tcp[13], 0x14, "RST and ACK");
            assert_eq!(tcp[8..12], [1, 2, 3, 5], "of the SYN");
        }
    }

    #[test]
    fn what_is_no_segment_is_skipped() {
        let Some((mut one, sockets, address)) = device(false) else { return };
        let local = SocketAddr::new(address, unused_port(address));
        sockets.listen(local.port()).unwrap();
        let stranger = UdpSocket::bind((address, 0)).unwrap();
        for body in
            [&b""[..], b"short", &[0x40; 40], &[0xff; 12], &[0x50, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            stranger.send_to(body, local).unwrap();
        }
        for _ in 0..200 {
            stranger.send_to(&[0; 100], local).unwrap();
        }
        let good = [0x50, 0x10, 0, 0, 9, 9, 9, 9, 8, 8, 8, 8, 7];
        stranger.send_to(&good, local).unwrap();
        assert!(next(&mut one).expect("the good one").ends_with(&[7]));
        assert!(one.receive(&mut BufferPool::default()).unwrap().is_none());
    }

    #[test]
    fn a_stranger_gets_no_more_than_he_has_sent() {
        let Some((mut one, sockets, address)) = device(false) else { return };
        let local = SocketAddr::new(address, unused_port(address));
        sockets.listen(local.port()).unwrap();
        let stranger = UdpSocket::bind((address, 0)).unwrap();
        stranger.set_nonblocking(true).unwrap();
        let remote = stranger.local_addr().unwrap();
        let syn = [&[0x50, 0x02, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0][..], &[0; 8]].concat();
        stranger.send_to(&syn, local).unwrap();
        next(&mut one).expect("the SYN");
        let (mut sent, mut got) = (syn.len(), 0);
        let mut count = |device: &mut UdpDevice, flags: u8, payload: &[u8]| {
            device.transmit(&segment(local, remote, flags, payload)).unwrap();
            let mut body = [0; 200];
            got += stranger.recv(&mut body).unwrap_or(0);
            got
        };
        assert_eq!(count(&mut one, 0x12, &[0; 9]), 0, "it would be larger");
        for _ in 0..5 {
            assert_eq!(count(&mut one, 0x12, b""), 12, "once");
        }
        assert_eq!(count(&mut one, 0x14, b""), 12, "a reset, too");
        stranger.send_to(&syn, local).unwrap();
        sent += syn.len();
        next(&mut one).expect("the SYN");
        assert!(
            count(&mut one, 0x12, b"") <= sent && count(&mut one, 0x10, &[0; 100]) > sent,
            "data are not limited"
        );
    }

    #[test]
    fn the_stack_is_told_of_a_packet_too_large_for_the_nic() {
        for v6 in [false, true] {
            let Some((mut one, _, address)) = device(v6) else { continue };
            let [local, remote] = [0, 1].map(|_| SocketAddr::new(address, unused_port(address)));
            // The loopback device takes all that a datagram can have.
            let payload = vec![0; 65_535 - 19];
            let mut packet = segment(local, remote, 0x10, &payload[..1000]);
            packet.payload = Payload::from(Bytes::from(payload));
            one.transmit(&packet).unwrap();
            let answer = next(&mut one).expect("an answer");
            let icmp = &answer[ip::ip_header_len(&address)..];
            assert_eq!(icmp[..2], if v6 { [2, 0] } else { [3, 4] });
        }
    }

    #[test]
    fn a_port_that_is_taken_is_another_one_on_the_wire() {
        let (Some((mut one, ..)), Some((mut other, sockets, address))) = (device(false), device(false))
        else {
            return;
        };
        let taken = UdpSocket::bind((address, 0)).unwrap();
        let local = taken.local_addr().unwrap();
        let remote = SocketAddr::new(address, unused_port(address));
        sockets.listen(remote.port()).unwrap();
        assert!(sockets.listen(local.port()).is_err(), "a listener must have its port");
        one.transmit(&segment(local, remote, 0x10, b"there")).unwrap();
        let there = next(&mut other).expect("it arrives");
        let port = u16::from_be_bytes([there[20], there[21]]);
        assert_ne!(port, local.port());
        other.transmit(&segment(remote, SocketAddr::new(address, port), 0x10, b"back")).unwrap();
        let back = next(&mut one).expect("it arrives");
        assert_eq!(u16::from_be_bytes([back[22], back[23]]), local.port(), "as the stack knows it");
    }

    #[test]
    fn what_is_not_tcp_or_too_large_is_not_sent() {
        let Some((mut one, _, address)) = device(false) else { return };
        let local = SocketAddr::new(address, unused_port(address));
        let mut packet = segment(local, local, 0x10, &[0; 3000]);
        packet = packet.with_gso_size(std::num::NonZeroU16::new(1000));
        assert!(one.transmit(&packet).is_err());
        let mut packet = segment(local, local, 0x10, b"x");
        packet.header.as_mut_slice()[9] = 17;
        assert_eq!(one.transmit(&packet).unwrap(), TransmitOutcome::Sent);
        assert!(one.receive(&mut BufferPool::default()).unwrap().is_none());
    }
}
