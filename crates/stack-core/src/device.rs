//! What passes between a stack and the device that carries its packets.

use crate::buffers::payload::Payload;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;
use core::num::NonZeroU16;
use umptcp_path_manager::Uses;
use umptcp_types::{AddressId, Duration, Instant, PathId};

/// Whether the transport checksum of a received packet has been verified before it reached the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumState {
    /// No: the stack verifies it.
    Unverified,
    /// Yes, by the device; or the packet never left this host and has no full checksum.
    Verified,
}

/// An IP packet as it came in. `buffer` starts at the IP header.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RxPacket {
    /// The packet, up to 64 kB when the device coalesced several. Payload handed to the application shares
    /// this memory.
    pub buffer: Bytes,
    /// Payload bytes of each packet this one was coalesced from; `None` when it is a single packet.
    pub gso_size: Option<NonZeroU16>,
    /// State of the transport checksum.
    pub checksum: ChecksumState,
}

impl RxPacket {
    /// A single packet.
    #[inline]
    pub fn new(buffer: Bytes, checksum: ChecksumState) -> RxPacket {
        RxPacket { buffer, gso_size: None, checksum }
    }

    /// Payload bytes of each packet this one was coalesced from; `None`: it is a single packet.
    #[inline]
    pub fn with_gso_size(self, gso_size: Option<NonZeroU16>) -> RxPacket {
        RxPacket { gso_size, ..self }
    }

    /// Bytes that the network carried: each packet that this one was put together from had its header.
    /// `header_len`: that of the IP header.
    pub(crate) fn wire_len(&self, header_len: usize) -> usize {
        let len = self.buffer.len();
        match (self.gso_size, self.buffer.get(header_len + 12)) {
            // The data offset of TCP (RFC 9293 §3.1), in words of four bytes.
            (Some(_), Some(offset)) => {
                let header = (header_len + usize::from(offset >> 4) * 4).min(len);
                wire_len(header, len - header, self.gso_size)
            }
            _ => len,
        }
    }
}

/// Room for the longest header: IPv6 (40) and TCP with 40 bytes of options (60), or IPv4 (20) and TCP.
pub const MAX_HEADER: usize = 100;

/// IP and TCP header of an outgoing packet, in place.
#[derive(Clone)]
pub struct HeaderBuf {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl HeaderBuf {
    /// A buffer of `len` zero bytes, at most [`MAX_HEADER`].
    pub fn zeroed(len: usize) -> Self {
        HeaderBuf { bytes: [0; MAX_HEADER], len: len.min(MAX_HEADER) }
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The header bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The header bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl core::fmt::Debug for HeaderBuf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}

/// State of the TCP checksum in an outgoing packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumRequest {
    /// The checksum is complete.
    Complete,
    /// The checksum field holds the pseudo-header's sum, not complemented; the device sums from byte `start`
    /// of the packet to its end and stores the result `offset` bytes after `start` (virtio's csum_start and
    /// csum_offset).
    Partial {
        /// Where summing starts: the TCP header's offset in the packet.
        start: u16,
        /// Where the checksum field is, counted from `start`.
        offset: u16,
    },
}

/// An IP packet that is to go out on `path`: `header`, then the slices of `payload`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Transmit {
    /// The device to send it by.
    pub path: PathId,
    /// IP and TCP header. The IP header's length covers header and payload.
    pub header: HeaderBuf,
    /// TCP payload.
    pub payload: Payload,
    /// Payload bytes per packet if the device must split this segment; `None` if it fits one packet.
    pub gso_size: Option<NonZeroU16>,
    /// What is left to do about the checksum.
    pub checksum: ChecksumRequest,
    /// Pacing: not to leave before this instant. The stack itself holds packets back, so this is never far
    /// from the `now` it was polled with; devices with hardware timestamps may honour it exactly.
    pub earliest: Instant,
}

impl Transmit {
    /// A single packet with its checksum, which may leave at once.
    #[inline]
    pub fn new(path: PathId, header: HeaderBuf, payload: Payload) -> Transmit {
        let (gso_size, checksum, earliest) = (None, ChecksumRequest::Complete, Instant::ZERO);
        Transmit { path, header, payload, gso_size, checksum, earliest }
    }

    /// Payload bytes per packet if the device must split it.
    #[inline]
    pub fn with_gso_size(self, gso_size: Option<NonZeroU16>) -> Transmit {
        Transmit { gso_size, ..self }
    }

    /// What is left to do about the checksum.
    #[inline]
    pub fn with_checksum(self, checksum: ChecksumRequest) -> Transmit {
        Transmit { checksum, ..self }
    }

    /// Not to leave before this instant.
    #[inline]
    pub fn with_earliest(self, earliest: Instant) -> Transmit {
        Transmit { earliest, ..self }
    }

    /// Length of the packet as given to the device.
    pub fn len(&self) -> usize {
        self.header.as_slice().len() + self.payload.len()
    }

    /// Bytes that the network carries: each packet that the device cuts it into has the header.
    #[inline]
    pub fn wire_len(&self) -> usize {
        wire_len(self.header.as_slice().len(), self.payload.len(), self.gso_size)
    }

    /// Always false: a packet has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The whole packet in one buffer, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut v = Vec::with_capacity(self.len());
        v.extend_from_slice(self.header.as_slice());
        for s in self.payload.slices() {
            v.extend_from_slice(s);
        }
        v
    }
}

/// Bytes of all packets that a segment is cut into, or put together from: each has `header` bytes before at
/// most `size` of `payload`.
fn wire_len(header: usize, payload: usize, size: Option<NonZeroU16>) -> usize {
    let packets = size.map_or(1, |size| payload.div_ceil(usize::from(size.get())).max(1));
    header * packets + payload
}

/// Families of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

impl Families {
    /// Both families.
    pub const BOTH: Families = Families { ipv4: true, ipv6: true };

    /// None of the two.
    pub fn is_empty(self) -> bool {
        self == Families::default()
    }

    /// The other ones.
    pub fn others(self) -> Families {
        Families { ipv4: !self.ipv4, ipv6: !self.ipv6 }
    }

    /// Those that are in both.
    pub fn and(self, other: Families) -> Families {
        Families { ipv4: self.ipv4 && other.ipv4, ipv6: self.ipv6 && other.ipv6 }
    }

    /// Those that are in one of them at least.
    pub fn or(self, other: Families) -> Families {
        Families { ipv4: self.ipv4 || other.ipv4, ipv6: self.ipv6 || other.ipv6 }
    }

    /// Those of which there is an address among `addresses`.
    pub fn of(addresses: &[IpAddr]) -> Families {
        let any = |v6| addresses.iter().any(|a| a.is_ipv6() == v6);
        Families { ipv4: any(false), ipv6: any(true) }
    }

    /// Whether this family is one of them.
    pub fn has(self, v6: bool) -> bool {
        if v6 { self.ipv6 } else { self.ipv4 }
    }
}

/// What kind of path it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathKind {
    /// Owns its addresses, which the network routes to it.
    #[default]
    Routed,
    /// Owns private addresses that are translated to the NIC's: what the peer sees is `advertise`.
    Nat,
    /// Takes packets for any local address and may send from any (a transparent proxy's side).
    Capture,
}

/// So many bytes before a limit ([`PathConfig::allowance`], [`PathConfig::connection_cap`]) nothing new is sent any more,
/// so that what is under way, and the ends of subflows, have room below it: a mebibyte, of small limits a quarter.
pub const fn allowance_reserve(limit: u64) -> u64 {
    if limit / 4 < 1 << 20 { limit / 4 } else { 1 << 20 }
}

/// Address IDs that are chosen for a path's addresses, one of each family (RFC 8684 §3.2). They count on connections
/// that have given the address no ID yet, and whose first subflow is from another: that one has ID 0. No other
/// address gets them. Zero chooses nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChosenIds {
    /// That of the path's IPv4 address.
    pub ipv4: Option<AddressId>,
    /// That of its IPv6 address.
    pub ipv6: Option<AddressId>,
}

impl ChosenIds {
    /// That of the address of a family.
    pub fn of(&self, ipv6: bool) -> Option<AddressId> {
        if ipv6 { self.ipv6 } else { self.ipv4 }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, ipv6: bool) -> &mut Option<AddressId> {
        if ipv6 { &mut self.ipv6 } else { &mut self.ipv4 }
    }
}

/// A port that peers are told with a path's address (ADD_ADDR with a port, RFC 8684 §3.4.1), as an endpoint of
/// `ip mptcp` with `port`: their joins to it are taken. Whoever owns the device has to bring what is sent there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignalPort {
    /// It goes with the path's IPv6 address, not with the IPv4 one.
    pub ipv6: bool,
    /// The port.
    pub port: u16,
    /// The Address ID, if one is chosen.
    pub id: Option<AddressId>,
}

/// A path: one local device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathConfig {
    /// Name for reports, usually the NIC's.
    pub name: String,
    /// Addresses of the stack on this path.
    pub addresses: Vec<IpAddr>,
    /// Further addresses of the stack at which connections arrive. No subflow is opened from them, and they
    /// are not advertised.
    pub aliases: Vec<IpAddr>,
    /// Addresses to tell the peer (ADD_ADDR) when they differ from `addresses` (NAT). Empty: the same.
    pub advertise: Vec<IpAddr>,
    /// What kind it is.
    pub kind: PathKind,
    /// Largest IP packet that the link carries, in bytes.
    pub mtu: u16,
    /// Largest IP packet that the device accepts for segmentation, in bytes (65,535 with segmentation
    /// offload); not above `mtu` if it cannot segment.
    pub max_packet: u32,
    /// The device completes TCP checksums.
    pub checksum_offload: bool,
    /// Subflows on it ask to be backups (B bit).
    pub backup: bool,
    /// What is sent on it is paid for: its subflows ask to be backups, and carry data only when nothing else
    /// answers, not even a backup.
    pub metered: bool,
    /// Weight for schedulers that use one.
    pub weight: u32,
    /// Cost of a byte, relative to those of other paths, for schedulers that use one; 1 by default.
    pub cost: u32,
    /// What all connections together may carry on it, in bytes of IP packets in both directions, until
    /// [`set_path_allowance`](crate::Stack::set_path_allowance) says otherwise. `None`: no limit. See there for
    /// what happens at the limit.
    pub allowance: Option<u64>,
    /// The same for each connection.
    pub connection_cap: Option<u64>,
    /// What path policies use its addresses for.
    pub uses: Uses,
    /// Address IDs that are chosen for its addresses.
    pub ids: ChosenIds,
    /// Ports that its addresses are advertised with, beside what `uses` says.
    pub signal_ports: Vec<SignalPort>,
    /// Longest silence on subflows that this end has opened: then the peer is asked for a sign of life, so
    /// that translators on the way keep their state. `None`: as long as [keep-alive](crate::config::KeepAlive)
    /// of the connection says.
    pub longest_silence: Option<Duration>,
    /// The [name](Self::name) of the path that this one stands in for: the same NIC in another way, inside UDP. As long as
    /// that one is there and its network lets MPTCP through, nothing is opened from this one.
    pub stands_in_for: Option<String>,
}

impl PathConfig {
    /// A routed path with one address, an MTU of 1500 and no offload.
    pub fn new(name: impl Into<String>, address: IpAddr) -> Self {
        PathConfig::with_addresses(name, alloc::vec![address])
    }

    /// The same with several addresses.
    pub fn with_addresses(name: impl Into<String>, addresses: Vec<IpAddr>) -> Self {
        PathConfig {
            name: name.into(),
            addresses,
            aliases: Vec::new(),
            advertise: Vec::new(),
            kind: PathKind::Routed,
            mtu: 1500,
            max_packet: 1500,
            checksum_offload: false,
            backup: false,
            metered: false,
            weight: 1,
            cost: 1,
            allowance: None,
            connection_cap: None,
            uses: Uses::default(),
            ids: ChosenIds::default(),
            signal_ports: Vec::new(),
            longest_silence: None,
            stands_in_for: None,
        }
    }

    /// Stands in for the path of this name ([`stands_in_for`](Self::stands_in_for)).
    pub fn standing_in_for(mut self, native: impl Into<String>) -> Self {
        self.stands_in_for = Some(native.into());
        self
    }

    /// Sets the largest IP packet that the device accepts for segmentation.
    pub fn with_max_packet(mut self, bytes: u32) -> Self {
        self.max_packet = bytes;
        self
    }
}
