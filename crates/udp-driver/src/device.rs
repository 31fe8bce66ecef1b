//! The sockets of a path as a device.

use crate::carried::Carried;
use crate::codec::{BodyHeader, UDP_HEADER};
use crate::credit::Credit;
use crate::errors;
use crate::packet::{self, Outgoing};
use crate::sockets::{Local, Sockets};
use crate::trains;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use umptcp_stack_core::device::{ChecksumState, PathConfig, RxPacket, Transmit};
use umptcp_stack_core::payload::Payload;
use umptcp_tun_driver::device::{BufferPool, Device, TransmitOutcome};

/// Datagrams that are no segments are skipped up to this number before the caller has its turn.
const SKIPPED: usize = 64;

/// Answers to segments that could not be sent, waiting for the stack to read them.
const ANSWERS: usize = 64;

/// Attempts to send a datagram that may have failed for errors of earlier ones.
const EARLIER_ERRORS: usize = 2;

/// Largest segment that the stack is asked for, in bytes: so that with a header in each datagram it is still one
/// train, as a rule.
const MAX_SEGMENT: u32 = 62_000;

/// How long datagrams leave one by one after the system has refused a train. It may have been for that one's
/// size, or for the device that had the route then.
const TRAINS_AGAIN: Duration = Duration::from_secs(1);

/// Pieces of one datagram or train that the system takes (UIO_MAXIOV).
const MAX_SLICES: usize = 1024;

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
    /// That packet, its length, and how much of its payload has been sent.
    begun: Option<(Outgoing, usize, usize)>,
    credit: Credit,
    /// What is left of a train that is not one segment.
    rest: Rest,
    /// Room for what the system says of a datagram beside its bytes.
    control: Vec<u8>,
    /// Datagrams leave one by one, because the system has refused to cut a train: until then, or until the sockets
    /// have [changed](Sockets::changes) from this.
    one_by_one: Option<(Instant, u32)>,
    /// That has been said.
    refuses_trains: bool,
    /// There was no descriptor for a socket; that has been said.
    lacks_descriptors: bool,
    /// What programs send beside TCP, if it is carried.
    carried: Option<OtherTraffic>,
}

/// What programs send beside TCP.
#[derive(Debug)]
struct OtherTraffic {
    carried: Carried,
    /// Something may be there to be read.
    ready: bool,
    /// It is its turn, so that neither keeps the other waiting.
    next: bool,
    /// The last [change](Sockets::changes) that was seen.
    changes: u32,
}

/// Datagrams that have come together, and that the stack gets one after the other.
#[derive(Debug)]
struct Rest {
    bodies: Vec<u8>,
    /// Where those begin that it has not got yet.
    at: usize,
    size: usize,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Rest {
    const NONE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

    fn left(&self) -> &[u8] {
        &self.bodies[self.at..]
    }
}

impl UdpDevice {
    /// With `carry`, it also takes packets of UDP and echo requests, for programs that are captured.
    pub(crate) fn new(sockets: Arc<Sockets>, carry: bool) -> io::Result<UdpDevice> {
        let other = || -> io::Result<OtherTraffic> {
            let carried = Carried::new(sockets.device())?;
            sockets.watched.watch(carried.fd())?;
            Ok(OtherTraffic { carried, ready: false, next: false, changes: sockets.changes() })
        };
        let carried = carry.then(other).transpose()?;
        Ok(UdpDevice {
            sockets,
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            full: None,
            begun: None,
            credit: Credit::default(),
            rest: Rest { bodies: Vec::new(), at: 0, size: 0, local: Rest::NONE, remote: Rest::NONE },
            control: nix::cmsg_space!(i32, [u8; 32]),
            one_by_one: None,
            refuses_trains: false,
            lacks_descriptors: false,
            carried,
        })
    }

    /// Sets what this device can do in a path's configuration.
    pub(crate) fn describe(config: &mut PathConfig) {
        config.checksum_offload = true;
        config.max_packet = MAX_SEGMENT.max(u32::from(config.mtu));
    }

    /// Reads one datagram, or a train. `Ok(None)`: there is none.
    fn receive_from(&mut self, local: &Local, pool: &mut BufferPool) -> io::Result<Option<Received>> {
        let body_at = packet::body_at(&local.address);
        let room = pool.room();
        let (len, remote, size) = {
            let mut slices = [IoSliceMut::new(&mut room[body_at..])];
            let control = Some(&mut self.control[..]);
            let flags = MsgFlags::MSG_DONTWAIT;
            let received = recvmsg::<SockaddrStorage>(local.socket.as_raw_fd(), &mut slices, control, flags);
            let message = match received {
                Ok(message) => message,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            let size = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|control| match control {
                    ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
                    _ => None,
                })
            });
            (message.bytes, message.address.as_ref().and_then(errors::socket_address), size)
        };
        let Some(remote) = remote else { return Ok(Some(Received::Nothing)) };
        let size = size.filter(|size| (1..len).contains(size)).unwrap_or(len);
        self.credit.earn(&remote, UDP_HEADER + len);
        let group = trains::first_group(&room[body_at..body_at + len], size);
        if group.bytes < len {
            let Rest { bodies, at, .. } = &mut self.rest;
            bodies.clear();
            bodies.extend_from_slice(&room[body_at + group.bytes..body_at + len]);
            *at = 0;
            (self.rest.size, self.rest.local, self.rest.remote) = (size, local.address, remote);
        }
        Ok(Some(joined(pool, group, local.address, remote)))
    }

    /// The next of those that have come together.
    fn receive_rest(&mut self, pool: &mut BufferPool) -> Received {
        let Rest { size, local, remote, .. } = self.rest;
        let group = trains::first_group(self.rest.left(), size);
        let body_at = packet::body_at(&local);
        pool.room()[body_at..body_at + group.bytes].copy_from_slice(&self.rest.left()[..group.bytes]);
        self.rest.at += group.bytes;
        joined(pool, group, local, remote)
    }

    /// Passes on what ICMP says of the datagrams of a socket.
    fn read_errors(&mut self, local: &Local) {
        while let Some(error) = errors::next(&local.socket) {
            tracing::debug!(local = %local.address, ?error, "an ICMP error");
            self.answer(error.to_packet(local.address));
        }
    }

    /// Whether the system is to cut trains.
    fn cuts(&self) -> bool {
        self.one_by_one.is_none_or(|(until, of)| of != self.sockets.changes() || Instant::now() >= until)
    }

    /// It has refused to.
    fn without_trains(&mut self, local: &SocketAddr) {
        self.one_by_one = Some((Instant::now() + TRAINS_AGAIN, self.sockets.changes()));
        if std::mem::replace(&mut self.refuses_trains, true) {
            tracing::debug!(%local, "datagrams are sent one by one for a while");
        } else {
            tracing::info!(%local, "datagrams are sent one by one for a while");
        }
    }

    /// Nobody reports room in a socket that has been closed. What waits for it is to be tried again, by another
    /// socket: the device stays readable until then, whatever has been read meanwhile.
    fn tell_of_closed(&self) {
        if self.full.as_ref().is_some_and(|full| !self.sockets.has(full)) {
            self.sockets.wake();
        }
    }

    /// Sends what is not TCP, where that is carried.
    fn carry(&mut self, packet: &Transmit) {
        let Some(other) = &mut self.carried else { return };
        let changes = self.sockets.changes();
        if std::mem::replace(&mut other.changes, changes) != changes {
            other.carried.clear();
        }
        other.carried.send(&packet.to_vec(), self.sockets.mtu());
        if other.carried.has_answers() {
            other.ready = true;
            self.sockets.wake();
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

impl OtherTraffic {
    /// The next packet for programs, each other time.
    fn receive_in_turn(&mut self) -> Option<RxPacket> {
        self.next = !self.next;
        if self.next { self.receive() } else { None }
    }

    /// The next packet for programs.
    fn receive(&mut self) -> Option<RxPacket> {
        let packet = if self.ready { self.carried.receive() } else { None };
        self.ready = packet.is_some();
        packet.map(|packet| RxPacket::new(packet.into(), ChecksumState::Verified))
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
            if let Some(packet) = self.carried.as_mut().and_then(OtherTraffic::receive_in_turn) {
                return Ok(Some(packet));
            }
            if !self.rest.left().is_empty() {
                match self.receive_rest(pool) {
                    Received::Segment(packet) => return Ok(Some(packet)),
                    Received::Nothing => continue,
                }
            }
            if self.ready.is_empty() {
                let other = self.sockets.ready(&mut self.ready)?;
                if let Some(carried) = &mut self.carried {
                    carried.ready |= other;
                    if let Some(packet) = carried.receive() {
                        return Ok(Some(packet));
                    }
                }
                if self.ready.is_empty() {
                    self.tell_of_closed();
                    return Ok(None);
                }
            }
            // Each in turn, so that none keeps the others waiting.
            let Some(local) = self.ready.pop_front() else { continue };
            match self.receive_from(&local, pool) {
                Ok(None) if local.has_failed() => self.read_errors(&local),
                Ok(None) => {}
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
        // What is left in the sockets is reported again; this is not, by itself.
        if !(self.rest.left().is_empty() && self.ready.is_empty()) {
            self.sockets.wake();
        }
        self.tell_of_closed();
        Ok(None)
    }

    fn transmit(&mut self, packet: &Transmit) -> io::Result<TransmitOutcome> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let header = packet.header.as_slice();
        let Some(segment) = packet::read(header) else {
            self.carry(packet);
            return Ok(TransmitOutcome::Sent);
        };
        let (_, body) =
            BodyHeader::of_segment(&header[segment.tcp_at..]).map_err(|e| invalid(e.to_string()))?;
        let body = body.padded_if_first();
        let parts = Parts::new(packet, &body);
        let len = UDP_HEADER + body.as_slice().len() + packet.payload.len();
        if body.may_answer_a_stranger() && !self.credit.spend(&segment.remote, len) {
            tracing::debug!(remote = %segment.remote, "an answer that would be larger than what asked for it");
            return Ok(TransmitOutcome::Sent);
        }
        if parts.count > 1 && segment.tcp_at + UDP_HEADER + parts.size > self.sockets.mtu() as usize {
            self.answer(packet::too_big(&segment, self.sockets.mtu()));
            return Ok(TransmitOutcome::Sent);
        }
        // A packet that waits for room is offered again, if its path stays.
        let begun = self.begun.take().filter(|(what, length, _)| (*what, *length) == (segment, len));
        let mut done = begun.map_or(0, |(.., done)| done);
        let could = parts.count > 1 && self.cuts();
        let mut cuts = could;
        let sent = self.sockets.get(segment.local).and_then(|local| {
            let sent = parts.send(&local, &segment, &mut done, &mut cuts);
            sent.inspect_err(|e| {
                if e.kind() == io::ErrorKind::WouldBlock {
                    (self.full, self.begun) = (Some(local), Some((segment, len, done)));
                }
            })
        });
        match (could, cuts) {
            (true, true) => self.one_by_one = None,
            (true, false) => self.without_trains(&segment.local),
            (false, _) => {}
        }
        match sent {
            Ok(()) => Ok(TransmitOutcome::Sent),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(TransmitOutcome::Full),
            Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.answer(packet::too_big(&segment, self.sockets.mtu()));
                Ok(TransmitOutcome::Sent)
            }
            Err(e) => {
                if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) && !self.lacks_descriptors {
                    self.lacks_descriptors = true;
                    tracing::warn!(error = %e, "no socket for another port; each takes a descriptor (`ulimit -n`)");
                }
                match e.raw_os_error().and_then(errors::refused) {
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
        self.sockets.watched.fd()
    }

    fn offload(&self) -> bool {
        true
    }
}

/// A segment of the group of datagrams that the pool's room has.
fn joined(pool: &mut BufferPool, group: trains::Group, local: SocketAddr, remote: SocketAddr) -> Received {
    let body_at = packet::body_at(&local);
    let room = pool.room();
    let len = body_at + trains::join(&mut room[body_at..body_at + group.bytes], group);
    if !packet::complete(&mut room[..len], remote, local) {
        return Received::Nothing;
    }
    let each = group.each.and_then(NonZeroU16::new);
    // The kernel has verified UDP's checksum.
    Received::Segment(RxPacket::new(pool.take(len), ChecksumState::Verified).with_gso_size(each))
}

/// A segment, and how it is cut into datagrams.
struct Parts<'a> {
    body: &'a BodyHeader,
    payload: &'a Payload,
    /// Payload of each but the last.
    each: usize,
    /// How many there are.
    count: usize,
    /// Length of the body of each but the last.
    size: usize,
}

impl<'a> Parts<'a> {
    fn new(packet: &'a Transmit, body: &'a BodyHeader) -> Parts<'a> {
        let payload = &packet.payload;
        let each = packet.gso_size.map_or(payload.len(), |size| payload.len().min(size.get().into()));
        let count = payload.len().div_ceil(each.max(1)).max(1);
        Parts { body, payload, each, count, size: body.as_slice().len() + each }
    }

    /// Sends what is left after `done` bytes of the payload. `cuts`: whether the system cuts trains.
    fn send(&self, local: &Local, to: &Outgoing, done: &mut usize, cuts: &mut bool) -> io::Result<()> {
        let remote = SockaddrStorage::from(to.remote);
        loop {
            let first = *done / self.each.max(1);
            let count = if *cuts { trains::most(self.size).min(self.count - first) } else { 1 };
            match self.send_train(local, &remote, first, count) {
                Ok(()) => {}
                // The device does not compute checksums, its MTU has just become smaller, or the kernel is too
                // old.
                Err(Errno::EIO | Errno::EINVAL | Errno::EOPNOTSUPP) if count > 1 => {
                    *cuts = false;
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
            *done += count * self.each;
            if first + count >= self.count {
                return Ok(());
            }
        }
    }

    fn send_train(
        &self,
        local: &Local,
        remote: &SockaddrStorage,
        first: usize,
        count: usize,
    ) -> nix::Result<()> {
        let (start, end) = (first * self.each, ((first + count) * self.each).min(self.payload.len()));
        let part = |i: usize| self.body.of_part((i * self.each) as u32, i + 1 == self.count);
        let headers: SmallVec<[BodyHeader; 1]> = (first..first + count).map(part).collect();
        let mut all: SmallVec<[IoSlice<'_>; 8]> = SmallVec::new();
        let (mut at, mut header) = (0, headers.iter());
        if start == end {
            all.extend(header.next().map(|header| IoSlice::new(header.as_slice())));
        }
        for slice in self.payload.slices() {
            let (mut from, stop) = (start.max(at), end.min(at + slice.len()));
            while from < stop {
                // Each part has its header before it, whatever pieces the payload comes in.
                let next = if from % self.each == 0 {
                    all.extend(header.next().map(|header| IoSlice::new(header.as_slice())));
                    from + self.each
                } else {
                    from.next_multiple_of(self.each)
                };
                let next = next.min(stop);
                all.push(IoSlice::new(&slice[from - at..next - at]));
                from = next;
            }
            at += slice.len();
        }
        if all.len() > MAX_SLICES {
            let flat: Vec<u8> = all.iter().flat_map(|slice| slice.iter().copied()).collect();
            return send(local, remote, &[IoSlice::new(&flat)], self.size, count);
        }
        send(local, remote, &all, self.size, count)
    }
}

/// Sends a datagram, or a train of datagrams with bodies of this size.
fn send(
    local: &Local,
    remote: &SockaddrStorage,
    slices: &[IoSlice<'_>],
    size: usize,
    count: usize,
) -> nix::Result<()> {
    let size = u16::try_from(size).map_err(|_| Errno::EMSGSIZE)?;
    let train = [ControlMessage::UdpGsoSegments(&size)];
    let control = if count > 1 { &train[..] } else { &[] };
    let fd = local.socket.as_raw_fd();
    let attempt = || sendmsg(fd, slices, control, MsgFlags::MSG_DONTWAIT, Some(remote)).map(drop);
    for _ in 0..EARLIER_ERRORS {
        match attempt() {
            Err(e) if is_earlier(e) => {}
            other => return other,
        }
    }
    attempt()
}

/// Whether an error may be that of an earlier datagram, which the system reports with the next: then this one
/// has not been sent, and nothing is wrong with it.
fn is_earlier(error: Errno) -> bool {
    use Errno::{
        EACCES, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EINTR, EMSGSIZE, ENETUNREACH, ENONET, ENOPROTOOPT,
        EOPNOTSUPP, EPROTO,
    };
    // The others are what Linux makes of ICMP, whoever has sent that.
    matches!(
        error,
        EINTR
            | ENETUNREACH
            | EHOSTUNREACH
            | ENOPROTOOPT
            | ECONNREFUSED
            | EMSGSIZE
            | EOPNOTSUPP
            | EHOSTDOWN
            | ENONET
            | EACCES
            | EPROTO
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use socket2::{Domain, Protocol, Socket, Type};
    use std::net::{IpAddr, SocketAddr, UdpSocket};
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
        Some((UdpDevice::new(Arc::clone(&sockets), true).unwrap(), sockets, address))
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

    /// Sends an ICMP error about a datagram that quotes nothing of its body.
    fn forge(icmp: &Socket, code: u8, local: SocketAddr, remote: SocketAddr) {
        let mut quoted = [0; 28];
        ip::emit_ip_header_for(&mut quoted, (local.ip(), remote.ip()), 17, 8, 0, 0).unwrap();
        quoted[20..22].copy_from_slice(&local.port().to_be_bytes());
        quoted[22..24].copy_from_slice(&remote.port().to_be_bytes());
        let mut message = [&[3, code, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        let words = message.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum + (sum >> 16)) as u16);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        icmp.send_to(&message, &SocketAddr::new(local.ip(), 0).into()).unwrap();
    }

    #[test]
    fn icmp_that_quotes_nothing_keeps_no_segment_from_being_sent() {
        let (Some((mut one, ..)), Some((mut other, sockets, address))) = (device(false), device(false))
        else {
            return;
        };
        let Ok(icmp) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)) else {
            eprintln!("skipped: no raw socket");
            return;
        };
        let [local, remote] = [0, 1].map(|_| SocketAddr::new(address, unused_port(address)));
        sockets.listen(remote.port()).unwrap();
        one.sockets.get(local).unwrap();
        // Everything that "destination unreachable" can mean (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
        for code in 0..=15 {
            forge(&icmp, code, local, remote);
            one.transmit(&segment(local, remote, 0x10, &[code; 5])).unwrap();
            assert!(one.answers.is_empty(), "code {code}");
            assert!(next(&mut other).expect("it arrives").ends_with(&[code; 5]));
            assert!(one.receive(&mut BufferPool::default()).unwrap().is_none(), "code {code}");
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

    /// Payload and size of the parts of what arrives, until there are `len` bytes.
    fn all(device: &mut UdpDevice, len: usize) -> (Vec<u8>, Vec<Option<u16>>, Vec<u8>) {
        let mut pool = BufferPool::default();
        let (mut payload, mut sizes, mut flags) = (Vec::new(), Vec::new(), Vec::new());
        let end = Instant::now() + Duration::from_secs(5);
        while payload.len() < len && Instant::now() < end {
            let Some(packet) = device.receive(&mut pool).unwrap() else { continue };
            let tcp = packet.buffer.slice(if packet.buffer[0] >> 4 == 4 { 20.. } else { 40.. });
            let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
            assert_eq!(sequence, 0x0102_0304 + payload.len() as u32);
            payload.extend_from_slice(&tcp[20..]);
            sizes.push(packet.gso_size.map(NonZeroU16::get));
            flags.push(tcp[13]);
        }
        (payload, sizes, flags)
    }

    #[test]
    fn a_large_segment_is_a_train_and_whole_again() {
        for (v6, cuts) in [(false, true), (true, true), (false, false)] {
            let (Some((mut one, ..)), Some((mut other, sockets, address))) = (device(v6), device(v6)) else {
                continue;
            };
            if !cuts {
                one.one_by_one = Some((Instant::now() + Duration::from_secs(3600), one.sockets.changes()));
            }
            let [local, remote] = [0, 1].map(|_| SocketAddr::new(address, unused_port(address)));
            sockets.listen(remote.port()).unwrap();
            for (len, pieces) in
                [(5000, 5000), (5000, 7), (61_234, 999), (100_000, 3000), (1001, 1000), (1000, 1000)]
            {
                let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
                let mut packet = segment(local, remote, 0x18, b"");
                packet.payload = Payload::new();
                for piece in bytes.chunks(pieces) {
                    packet.payload.push(Bytes::copy_from_slice(piece));
                }
                let packet = packet.with_gso_size(NonZeroU16::new(1000));
                assert_eq!(one.transmit(&packet).unwrap(), TransmitOutcome::Sent);
                let (payload, sizes, flags) = all(&mut other, len);
                assert!(payload == bytes, "{len} bytes in pieces of {pieces}: {} arrived", payload.len());
                assert!(flags.ends_with(&[0x18]) && flags[..flags.len() - 1].iter().all(|f| *f == 0x10));
                if cuts && len > 1001 {
                    assert_eq!(sizes[0], Some(1000), "{sizes:?}");
                    assert!(sizes.len() < 4, "{sizes:?}");
                }
            }
        }
    }

    fn ready(device: &UdpDevice) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        poll(&mut [PollFd::new(device.fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn a_packet_that_waits_for_a_socket_that_is_closed_is_tried_again() {
        // Closed before somebody waits for room, and after.
        for early in [true, false] {
            let Some((mut one, sockets, address)) = device(false) else { return };
            let local = SocketAddr::new(address, unused_port(address));
            one.full = Some(one.sockets.get(local).unwrap());
            if early {
                sockets.move_to(vec![address], true);
                assert!(one.signals_room(true));
            } else {
                // As a socket without room.
                assert!(one.signals_room(true));
                sockets.watch_room(one.full.as_ref().unwrap(), false);
                assert!(!ready(&one));
                sockets.move_to(vec![address], true);
            }
            assert!(ready(&one), "early: {early}");
            // The loop may read before it looks whether there is room.
            assert!(one.receive(&mut BufferPool::default()).unwrap().is_none());
            assert!(ready(&one), "early: {early}");
            one.signals_room(false);
            assert!(one.receive(&mut BufferPool::default()).unwrap().is_none());
            assert!(!ready(&one), "nothing waits any more");
        }
    }

    #[test]
    fn waiting_for_room_in_a_socket_that_was_just_closed_does_not_last() {
        let Some((one, sockets, address)) = device(false) else { return };
        let local = sockets.get(SocketAddr::new(address, unused_port(address))).unwrap();
        sockets.move_to(vec![address], true);
        sockets.ready(&mut Vec::new()).unwrap();
        assert!(!ready(&one));
        sockets.watch_room(&local, false);
        assert!(!ready(&one));
        sockets.watch_room(&local, true);
        assert!(ready(&one));
    }

    /// SO_NO_CHECK: without checksums the system cuts no trains.
    #[derive(Clone, Copy)]
    struct NoCheck;

    nix::setsockopt_impl!(
        NoCheck,
        libc::SOL_SOCKET,
        libc::SO_NO_CHECK,
        bool,
        nix::sys::socket::sockopt::SetBool
    );

    #[test]
    fn trains_that_were_refused_are_tried_again() {
        let (Some((mut one, ..)), Some((mut other, sockets, address))) = (device(false), device(false))
        else {
            return;
        };
        let [local, remote] = [0, 1].map(|_| SocketAddr::new(address, unused_port(address)));
        sockets.listen(remote.port()).unwrap();
        let socket = one.sockets.get(local).unwrap();
        let refuse = |refused: bool| {
            nix::sys::socket::setsockopt(&socket.socket, NoCheck, &refused).unwrap();
        };
        let mut send = |one: &mut UdpDevice| {
            let packet = segment(local, remote, 0x10, &[7; 5000]).with_gso_size(NonZeroU16::new(1000));
            assert_eq!(one.transmit(&packet).unwrap(), TransmitOutcome::Sent);
            let (payload, sizes, _) = all(&mut other, 5000);
            assert!(payload == [7; 5000]);
            sizes.len() == 1
        };
        assert!(send(&mut one), "a train");
        refuse(true);
        assert!(!send(&mut one));
        let (until, _) = one.one_by_one.as_mut().unwrap();
        *until += Duration::from_secs(3600);
        refuse(false);
        assert!(!send(&mut one), "not for a while");
        one.sockets.set_mtu(60_000);
        assert!(send(&mut one), "another MTU");
        refuse(true);
        assert!(!send(&mut one));
        refuse(false);
        let (until, _) = one.one_by_one.as_mut().unwrap();
        *until = Instant::now();
        assert!(send(&mut one), "after a while");
        assert!(one.one_by_one.is_none());
    }

    /// The kernel takes what a test can send over the loopback device at once, so the wait is played.
    #[test]
    fn a_train_that_waited_for_room_goes_on_where_it_stopped() {
        let (Some((mut one, ..)), Some((mut other, sockets, address))) = (device(false), device(false))
        else {
            return;
        };
        let [local, remote] = [0, 1].map(|_| SocketAddr::new(address, unused_port(address)));
        sockets.listen(remote.port()).unwrap();
        let bytes: Vec<u8> = (0..9000).map(|i| (i % 251) as u8).collect();
        let whole = |payload: &[u8]| {
            let mut packet = segment(local, remote, 0x10, b"");
            packet.payload = Payload::from(Bytes::copy_from_slice(payload));
            packet.with_gso_size(NonZeroU16::new(1000))
        };
        let what = packet::read(whole(&bytes).header.as_slice()).unwrap();
        one.full = Some(one.sockets.get(local).unwrap());
        one.begun = Some((what, 20 + 9000, 4000));
        // The socket has room, so the device has input as soon as somebody waits for that.
        assert!(!ready(&one));
        assert!(one.signals_room(true) && ready(&one));
        assert!(one.signals_room(false) && !ready(&one));
        one.transmit(&whole(&bytes)).unwrap();
        let mut got = Vec::new();
        while got.len() < 5000 {
            got.extend_from_slice(&next(&mut other).expect("the rest")[40..]);
        }
        assert!(got == bytes[4000..], "{} bytes", got.len());
        // Another packet is sent from its start.
        one.begun = Some((what, 20 + 9000, 4000));
        one.transmit(&whole(&bytes[..2000])).unwrap();
        assert_eq!(all(&mut other, 2000).0, bytes[..2000]);
    }

    #[test]
    fn datagrams_that_came_together_and_are_no_segment_come_one_by_one() {
        let Some((mut one, sockets, address)) = device(false) else { return };
        let local = SocketAddr::new(address, unused_port(address));
        sockets.listen(local.port()).unwrap();
        let stranger = UdpSocket::bind((address, 0)).unwrap();
        // Acknowledgements of one size, and between them something else.
        let ack = |n: u8| [&[0x50, 0x10, 0, n, 1, 2, 3, 4, 5, 6, 7, 8][..]].concat();
        let train = [ack(1), ack(2), vec![0; 12], ack(3)].concat();
        let remote = SockaddrStorage::from(local);
        let control = [ControlMessage::UdpGsoSegments(&12)];
        sendmsg(stranger.as_raw_fd(), &[IoSlice::new(&train)], &control, MsgFlags::empty(), Some(&remote))
            .unwrap();
        for n in 1..=3 {
            let packet = next(&mut one).expect("an acknowledgement");
            assert_eq!((packet.len(), packet[20 + 15]), (40, n));
        }
    }

    #[test]
    fn what_is_not_tcp_or_too_large_is_not_sent() {
        let Some((mut one, _, address)) = device(false) else { return };
        let local = SocketAddr::new(address, unused_port(address));
        let mut packet = segment(local, local, 0x10, b"x");
        packet.header.as_mut_slice()[9] = 17;
        assert_eq!(one.transmit(&packet).unwrap(), TransmitOutcome::Sent);
        assert!(one.receive(&mut BufferPool::default()).unwrap().is_none());
    }
}
