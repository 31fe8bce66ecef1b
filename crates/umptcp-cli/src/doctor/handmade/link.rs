//! A path's TUN device, and segments on it.

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use umptcp_stack_core::device::{HeaderBuf, Transmit};
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::ip::{IpHeader, emit_ip_header, ip_header_len};
use umptcp_stack_core::wire::mptcp::MptcpOption;
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, complete_checksum};
use umptcp_tun_driver::device::{BufferPool, Device as _, TransmitOutcome};
use umptcp_tun_driver::paths::{self, Mode, Path, PathSet, PathSpec, SetupOptions};
use umptcp_types::{PathId, SeqNumber};

/// Ports where paths reserve none: those that are nobody's (RFC 6335).
const DYNAMIC_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// A segment of ours never has more payload: every path carries it.
pub(super) const MSS: u16 = 1220;

/// What carries packets to the server and back.
pub(super) trait Link {
    /// Time since some instant.
    fn now(&self) -> Duration;

    /// Sends a packet.
    fn send(&mut self, header: HeaderBuf, payload: Bytes);

    /// The next packet that comes until then.
    fn receive(&mut self, until: Duration) -> Option<Bytes>;
}

/// A path's device.
struct Device {
    path: Path,
    pool: BufferPool,
    start: Instant,
}

impl Link for Device {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn send(&mut self, header: HeaderBuf, payload: Bytes) {
        let packet = Transmit::new(PathId(0), header, payload.into());
        // What is lost here is lost as on the way, and sent again.
        if matches!(self.path.tun.transmit(&packet), Ok(TransmitOutcome::Full)) {
            tracing::debug!("the device is full");
        }
    }

    fn receive(&mut self, until: Duration) -> Option<Bytes> {
        loop {
            if let Some(packet) = self.path.tun.receive(&mut self.pool).ok()? {
                return Some(packet.buffer);
            }
            let left = until.checked_sub(self.now()).filter(|left| !left.is_zero())?;
            let mut wanted = [PollFd::new(self.path.tun.fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            // An interrupted wait is begun again.
            let _ = poll(&mut wanted, patience);
        }
    }
}

/// A path with the server at its other end.
pub(in super::super) struct Site {
    /// The path's name.
    pub(in super::super) name: String,
    link: Box<dyn Link>,
    local: IpAddr,
    pub(super) remote: SocketAddr,
    ports: RangeInclusive<u16>,
    /// How many ports have been used.
    used: u16,
}

/// Sets up paths of their own, and says which addresses of the server each speaks to. Paths inside UDP are left out:
/// nothing on the way reads what is inside.
pub(in super::super) fn open(
    specs: &[PathSpec],
    remotes: &[SocketAddr],
) -> anyhow::Result<(Vec<Site>, PathSet)> {
    let tunnels: Vec<PathSpec> = specs.iter().filter(|s| s.mode != Mode::Udp).cloned().collect();
    anyhow::ensure!(specs.is_empty() || !tunnels.is_empty(), "all paths are inside UDP");
    let mut set = paths::set_up(&tunnels, &SetupOptions::default())?;
    let ports = set.port_range().unwrap_or(DYNAMIC_PORTS);
    let site = |path: Path| {
        let (local, remote) = remotes.iter().find_map(|remote| {
            let fits = |own: &&IpAddr| own.is_ipv4() == remote.is_ipv4();
            let own = path.config.addresses.iter().find(fits)?;
            path.has_route(remote.ip()).unwrap_or(false).then_some((*own, *remote))
        })?;
        let name = path.config.name.clone();
        let device = Device { path, pool: BufferPool::new(BufferPool::DEFAULT_LIMIT), start: Instant::now() };
        Some(Site::new(name, Box::new(device), local, remote, ports.clone()))
    };
    let sites = std::mem::take(&mut set.paths).into_iter().filter_map(site).collect();
    Ok((sites, set))
}

/// A number that nobody guesses.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// A connection as we keep it: no more than the next segment takes.
#[derive(Clone, Debug)]
pub(super) struct Half {
    port: u16,
    /// Of the SYN.
    pub(super) first: SeqNumber,
    /// Of what is sent next.
    pub(super) next: SeqNumber,
    /// Of what is awaited.
    pub(super) awaited: SeqNumber,
}

/// `number` and `more`.
pub(super) fn after(number: SeqNumber, more: usize) -> SeqNumber {
    SeqNumber(number.0.wrapping_add(more as u32))
}

/// The number before.
pub(super) fn before(number: SeqNumber) -> SeqNumber {
    SeqNumber(number.0.wrapping_sub(1))
}

impl Site {
    pub(super) fn new(
        name: String,
        link: Box<dyn Link>,
        local: IpAddr,
        remote: SocketAddr,
        ports: RangeInclusive<u16>,
    ) -> Site {
        // The server may still know the first ones from the last time.
        let used = (random() % 1000) as u16;
        Site { name, link, local, remote, ports, used }
    }

    pub(super) fn now(&self) -> Duration {
        self.link.now()
    }

    /// A connection of which nothing has been sent yet.
    pub(super) fn half(&mut self) -> Half {
        let many = u16::try_from(self.ports.len()).unwrap_or(u16::MAX).max(1);
        let port = self.ports.start() + self.used % many;
        self.used = self.used.wrapping_add(1);
        let first = SeqNumber(random() as u32);
        Half { port, first, next: after(first, 1), awaited: SeqNumber(0) }
    }

    fn send(&mut self, half: &Half, seq: SeqNumber, flags: TcpFlags, options: TcpOptions, payload: &[u8]) {
        let ack = if flags.ack { half.awaited } else { SeqNumber(0) };
        let (src_port, dst_port) = (half.port, self.remote.port());
        let tcp = TcpRepr { src_port, dst_port, seq, ack, flags, window: u16::MAX, urgent: 0, options };
        let (ip, length) = (ip_header_len(&self.local), tcp.header_len());
        let mut header = HeaderBuf::zeroed(ip + length);
        let bytes = header.as_mut_slice();
        let total = length + payload.len();
        emit_ip_header(bytes, self.local, self.remote.ip(), total, 0, random() as u16);
        tcp.emit(&mut bytes[ip..]);
        let sum = checksum::sum(payload, 0);
        complete_checksum(&mut bytes[ip..], self.local, self.remote.ip(), sum, payload.len());
        self.link.send(header, Bytes::copy_from_slice(payload));
    }

    /// Sends the SYN, with an option or without.
    pub(super) fn send_syn(&mut self, half: &Half, option: Option<MptcpOption>) {
        let flags = TcpFlags { syn: true, ..TcpFlags::default() };
        let mptcp = option.into_iter().collect();
        let options = TcpOptions { mss: Some(MSS), sack_permitted: true, mptcp, ..TcpOptions::default() };
        self.send(half, half.first, flags, options, &[]);
    }

    /// Sends an ACK from `seq` on, with payload or without.
    pub(super) fn send_ack(
        &mut self,
        half: &Half,
        seq: SeqNumber,
        option: Option<MptcpOption>,
        payload: &[u8],
    ) {
        let flags = TcpFlags { ack: true, psh: !payload.is_empty(), ..TcpFlags::default() };
        let options = TcpOptions { mptcp: option.into_iter().collect(), ..TcpOptions::default() };
        self.send(half, seq, flags, options, payload);
    }

    /// Ends a connection, however far it is.
    pub(super) fn reset(&mut self, half: &Half) {
        let flags = TcpFlags { rst: true, ack: half.awaited.0 != 0, ..TcpFlags::default() };
        self.send(half, half.next, flags, TcpOptions::default(), &[]);
    }

    /// The next segment of a connection that comes until then, and its payload.
    pub(super) fn receive(&mut self, half: &Half, until: Duration) -> Option<(TcpRepr, Bytes)> {
        loop {
            let packet = self.link.receive(until)?;
            let Ok(header) = IpHeader::parse(&packet) else { continue };
            // ICMP errors are as silence: what is probed is probed again.
            let ours = header.protocol == 6 && header.src == self.remote.ip() && !header.fragment;
            let segment = header.payload(&packet);
            match TcpRepr::parse(segment) {
                Ok((tcp, length))
                    if ours && tcp.src_port == self.remote.port() && tcp.dst_port == half.port =>
                {
                    return Some((tcp, packet.slice_ref(&segment[length..])));
                }
                _ => {}
            }
        }
    }

    /// Whether a segment ends an open connection. A reset of somebody who guesses does not (RFC 5961 section 3.2): one with
    /// another number than the next is asked about if it is near, and the server repeats a reset of its own with the right one.
    pub(super) fn is_reset(&mut self, half: &Half, tcp: &TcpRepr) -> bool {
        let ahead = tcp.seq.distance(half.awaited);
        if tcp.flags.rst && (1..i32::from(u16::MAX)).contains(&ahead) {
            self.send_ack(half, half.next, None, &[]);
        }
        tcp.flags.rst && ahead == 0
    }
}
