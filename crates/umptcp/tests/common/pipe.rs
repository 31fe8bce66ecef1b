// Also included by examples of the documentation, so nothing here may be for the file as a whole.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use umptcp::{AttachedPath, Device, PathConfig, PathKind, Stack, StackBuilder};
use umptcp_stack_core::device::{ChecksumRequest, ChecksumState, RxPacket, Transmit};
use umptcp_tun_driver::device::{BufferPool, TransmitOutcome};

/// One end of a link. Each packet is preceded by two bytes, the size to split it into.
pub(crate) struct PipeDevice {
    socket: UnixDatagram,
    /// While set, packets are dropped.
    pub(crate) cut: Arc<AtomicBool>,
    /// Packets that the other end has had no room for so far.
    pub(crate) full: Arc<AtomicUsize>,
}

impl PipeDevice {
    pub(crate) fn pair() -> (PipeDevice, PipeDevice) {
        let (a, b) = UnixDatagram::pair().unwrap();
        let end = |socket: UnixDatagram| {
            socket.set_nonblocking(true).unwrap();
            PipeDevice { socket, cut: Arc::default(), full: Arc::default() }
        };
        (end(a), end(b))
    }
}

impl Device for PipeDevice {
    fn receive(&mut self, pool: &mut BufferPool) -> io::Result<Option<RxPacket>> {
        loop {
            let n = match self.socket.recv(pool.room()) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // The other stack is gone: packets to it are lost, and none arrive.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(e),
            };
            let buffer = pool.take(n);
            if self.cut.load(Ordering::Relaxed) {
                continue;
            }
            return Ok(Some(
                RxPacket::new(buffer.slice(2..), ChecksumState::Verified)
                    .with_gso_size(std::num::NonZero::new(u16::from_be_bytes([buffer[0], buffer[1]]))),
            ));
        }
    }

    fn transmit(&mut self, packet: &Transmit) -> io::Result<TransmitOutcome> {
        // ICMP has none that a device would know of.
        let icmp = packet.header.as_slice()[9] == 1;
        assert!(
            icmp || matches!(packet.checksum, ChecksumRequest::Partial { .. }),
            "checksums are offloaded"
        );
        if self.cut.load(Ordering::Relaxed) {
            return Ok(TransmitOutcome::Sent);
        }
        let mut datagram = packet.gso_size.map_or(0, u16::from).to_be_bytes().to_vec();
        datagram.extend(packet.to_vec());
        match self.socket.send(&datagram) {
            Ok(_) => Ok(TransmitOutcome::Sent),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.full.fetch_add(1, Ordering::Relaxed);
                Ok(TransmitOutcome::Full)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected) => {
                Ok(TransmitOutcome::Sent)
            }
            Err(e) => Err(e),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn offload(&self) -> bool {
        true
    }
}

/// A path over `device`.
pub(crate) fn path(name: &str, address: &str, device: PipeDevice) -> AttachedPath {
    let mut config = PathConfig::new(name, address.parse().unwrap());
    config.max_packet = 65_533;
    config.checksum_offload = true;
    AttachedPath { device: Box::new(device), config, guard: Box::new(()) }
}

/// A program with its own stack at `address`, and the path on which another stack captures all that it sends.
pub(crate) fn captured_program(address: &str) -> (Stack, AttachedPath) {
    let (x, y) = PipeDevice::pair();
    let program = Stack::builder().path(path("eth0", address, x)).start().unwrap();
    let mut config = PathConfig::with_addresses("capture", Vec::new());
    config.kind = PathKind::Capture;
    config.max_packet = 65_533;
    config.checksum_offload = true;
    (program, AttachedPath { device: Box::new(y), config, guard: Box::new(()) })
}

/// Two stacks with `links` links between them: 10.N.0.1 is the first's address on link N, 10.N.0.2 the
/// second's.
pub(crate) fn two_stacks(links: usize, configure: impl Fn(StackBuilder) -> StackBuilder) -> (Stack, Stack) {
    let (mut a, mut b) = (configure(Stack::builder()), configure(Stack::builder()));
    for n in 0..links {
        let (x, y) = PipeDevice::pair();
        a = a.path(path(&format!("a{n}"), &format!("10.{n}.0.1"), x));
        b = b.path(path(&format!("b{n}"), &format!("10.{n}.0.2"), y));
    }
    (a.start().unwrap(), b.start().unwrap())
}
