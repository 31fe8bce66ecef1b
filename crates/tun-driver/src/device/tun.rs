//! TUN devices with the virtio header, which passes segments of up to 64 kB in one system call.

use super::error::DeviceError;
use super::nic_queue::NicQueue;
use super::offload::Offload;
use super::pool::BufferPool;
use super::traits::{Device, QueueState, TransmitOutcome};
use super::virtio::{self, VirtioHeader};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use tun_rs::{DeviceBuilder, SyncDevice};
use umptcp_stack_core::device::{ChecksumRequest, ChecksumState, PathConfig, RxPacket, Transmit};

/// Options of a TUN device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TunOptions {
    /// Name of the interface, in which `%d` stands for a free number; `umptcp%d` if `None`.
    pub name: Option<String>,
    /// Segmentation and checksum offload.
    pub offload: Offload,
    /// Largest packet of the interface, in bytes.
    pub mtu: u16,
}

impl Default for TunOptions {
    fn default() -> Self {
        TunOptions { name: None, offload: Offload::Auto, mtu: 1500 }
    }
}

impl TunOptions {
    /// Options for a device called `name`; see [`name`](Self::name).
    pub fn named(name: impl Into<String>) -> Self {
        TunOptions { name: Some(name.into()), ..TunOptions::default() }
    }

    /// Sets [`offload`](Self::offload).
    pub fn offload(mut self, offload: Offload) -> Self {
        self.offload = offload;
        self
    }

    /// Sets [`mtu`](Self::mtu).
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }
}

/// Name pattern of devices for which no name is given.
const DEFAULT_NAME: &str = "umptcp%d";

/// How many packets may wait in the device until they are read. The kernel's default, 500, is 12 ms at 500 Mbit/s, and a
/// thread waits longer than that for a busy processor; what comes then is lost. The senders' windows bound the queue.
const QUEUE: u32 = 5000;

/// Slices of one packet that can be passed to the kernel without an allocation. More are rare: small writes
/// are joined earlier.
const SLICES: usize = 18;

/// Maximum number of slices per system call (UIO_MAXIOV).
const MAX_SLICES: usize = 1024;

/// A TUN device: a network interface of this host and the descriptor to exchange packets with it.
///
/// Dropping it removes the interface with its addresses and routes.
pub struct Tun {
    device: SyncDevice,
    name: String,
    index: u32,
    offload: bool,
    /// The queue of the NIC that its packets leave by.
    queue: Option<NicQueue>,
}

impl Tun {
    /// Creates a TUN device. The interface is down and has no address; its MTU is set.
    ///
    /// Falls back to single packets with complete checksums if the kernel refuses offload; see
    /// [`Tun::has_offload`].
    pub fn open(options: &TunOptions) -> Result<Tun, DeviceError> {
        let name = options.name.as_deref().unwrap_or(DEFAULT_NAME);
        check_name(name)?;
        // tun-rs would create the missing device node, which would stay behind.
        if !std::path::Path::new("/dev/net/tun").exists() {
            return Err(DeviceError::NoTun);
        }
        let offload = options.offload == Offload::Auto;
        let (device, offload) = match build(name, options.mtu, offload) {
            Ok(device) => (device, offload),
            Err(e) if offload && !is_final(&e) => {
                tracing::warn!(error = %e, "TUN devices without segmentation offload");
                (build(name, options.mtu, false).map_err(|e| explain(e, options))?, false)
            }
            Err(e) => return Err(explain(e, options)),
        };
        if offload {
            restrict_offload(&device).map_err(io_error("set the offloads of a TUN device"))?;
        }
        device.set_nonblocking(true).map_err(io_error("make a TUN device non-blocking"))?;
        let name = device.name().map_err(io_error("read the name of a TUN device"))?;
        let index = device.if_index().map_err(io_error("read the index of a TUN device"))?;
        lengthen_queue(&device, &name);
        Ok(Tun { device, name, index, offload, queue: None })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the kernel splits and coalesces segments and fills in checksums.
    pub fn has_offload(&self) -> bool {
        self.offload
    }

    /// Says by which NIC (by its index) its packets leave, so that the NIC's queue is not filled.
    pub fn leads_to(&mut self, nic: u32) {
        match NicQueue::open(nic) {
            Ok(queue) => self.queue = Some(queue),
            Err(error) => tracing::debug!(%error, nic, "the NIC's queue is not looked at"),
        }
    }

    /// Sets what this device can do in a path's configuration: segment size and checksum offload.
    pub fn describe(&self, config: &mut PathConfig) {
        config.checksum_offload = self.offload;
        config.max_packet = if self.offload { 65_535 } else { u32::from(config.mtu) };
    }
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tun")
            .field("name", &self.name)
            .field("index", &self.index)
            .field("offload", &self.offload)
            .finish_non_exhaustive()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Device for Tun {
    fn receive(&mut self, pool: &mut BufferPool) -> io::Result<Option<RxPacket>> {
        let mut virtio = [0; virtio::LEN];
        let room = pool.room();
        let received = if self.offload {
            self.device.recv_vectored(&mut [IoSliceMut::new(&mut virtio), IoSliceMut::new(room)])
        } else {
            self.device.recv(room)
        };
        let len = match received {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        if !self.offload {
            let checksum = ChecksumState::Unverified;
            return Ok(Some(RxPacket::new(pool.take(len), checksum)));
        }
        let header = VirtioHeader::decode(&virtio);
        Ok(Some(
            RxPacket::new(pool.take(len.saturating_sub(virtio::LEN)), header.received_checksum())
                .with_gso_size(header.received_gso_size()),
        ))
    }

    fn transmit(&mut self, packet: &Transmit) -> io::Result<TransmitOutcome> {
        let virtio;
        let mut first: &[u8] = &[];
        if self.offload {
            virtio = VirtioHeader::for_transmit(packet).encode();
            first = &virtio;
        } else if packet.gso_size.is_some_and(|size| packet.payload.len() > usize::from(size.get()))
            || packet.checksum != ChecksumRequest::Complete
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a device without offload cannot split packets or fill in checksums",
            ));
        }
        match send(&self.device, first, packet) {
            Ok(_) => Ok(TransmitOutcome::Sent),
            Err(e) => match e.raw_os_error() {
                // EIO: the interface is down; it becomes writable when it comes up.
                Some(libc::EAGAIN | libc::EIO) => Ok(TransmitOutcome::Full),
                // Out of buffers: like a loss in the network, which the sender handles.
                Some(libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => Ok(TransmitOutcome::Sent),
                _ => Err(e),
            },
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn nic_queue(&mut self) -> Option<QueueState> {
        self.queue.as_mut()?.read()
    }

    fn offload(&self) -> bool {
        self.offload
    }
}

/// Writes one packet in one system call.
fn send(device: &SyncDevice, first: &[u8], packet: &Transmit) -> io::Result<usize> {
    let header = packet.header.as_slice();
    let slices = packet.payload.slices();
    if slices.len() + 2 <= SLICES {
        let mut iov = [IoSlice::new(&[]); SLICES];
        iov[0] = IoSlice::new(first);
        iov[1] = IoSlice::new(header);
        for (to, slice) in iov[2..].iter_mut().zip(slices) {
            *to = IoSlice::new(slice);
        }
        let from = usize::from(first.is_empty());
        return device.send_vectored(&iov[from..slices.len() + 2]);
    }
    if slices.len() + 2 <= MAX_SLICES {
        let mut iov = Vec::with_capacity(slices.len() + 2);
        iov.extend([IoSlice::new(first), IoSlice::new(header)]);
        iov.extend(slices.iter().map(|s| IoSlice::new(s)));
        return device.send_vectored(&iov);
    }
    let flat = packet.to_vec();
    device.send_vectored(&[IoSlice::new(first), IoSlice::new(&flat)])
}

fn build(name: &str, mtu: u16, offload: bool) -> io::Result<SyncDevice> {
    DeviceBuilder::new()
        .name(name)
        .mtu(mtu)
        .inherit_enable_state()
        .with(|b| {
            b.offload(offload);
        })
        .build_sync()
}

/// Lets [`QUEUE`] packets wait, where the device belongs to us: without the right to it, the device works as well.
fn lengthen_queue(device: &SyncDevice, name: &str) {
    let longer = device.tx_queue_len().is_ok_and(|length| length < QUEUE);
    if longer && let Err(error) = device.set_tx_queue_len(QUEUE) {
        tracing::debug!(%error, device = name, "the device keeps its short queue");
    }
}

/// tun-rs enables UDP segmentation offload where it can. We carry only TCP, so let the kernel split
/// everything else.
#[allow(unsafe_code)]
fn restrict_offload(device: &SyncDevice) -> io::Result<()> {
    nix::ioctl_write_int!(tunsetoffload, b'T', 208);
    let wanted = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // SAFETY: TUNSETOFFLOAD takes its flags by value; the descriptor is a live TUN descriptor that `device`
    // owns.
    unsafe { tunsetoffload(device.as_raw_fd(), wanted as _) }?;
    Ok(())
}

fn check_name(name: &str) -> Result<(), DeviceError> {
    // Like the kernel's dev_valid_name, with at most one %d.
    let pattern = name.matches('%').count();
    let ok = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace() || c == '\0')
        && (pattern == 0 || pattern == 1 && name.contains("%d"));
    if ok { Ok(()) } else { Err(DeviceError::BadName(name.to_owned())) }
}

/// Errors that would also occur without offload.
fn is_final(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(
            libc::EPERM
                | libc::EACCES
                | libc::EBUSY
                | libc::EEXIST
                | libc::ENOENT
                | libc::ENODEV
                | libc::EMFILE
        )
    )
}

fn explain(e: io::Error, options: &TunOptions) -> DeviceError {
    let name = options.name.clone();
    match (e.raw_os_error(), name) {
        (Some(libc::EPERM | libc::EACCES), name) => DeviceError::Permission { name },
        // EINVAL: the interface exists but is not a TUN device, or has other flags.
        (Some(libc::EBUSY | libc::EEXIST), Some(name)) => DeviceError::NameInUse(name),
        (Some(libc::EINVAL), Some(name)) if interface_exists(&name) => DeviceError::NameInUse(name),
        (Some(libc::ENOENT | libc::ENODEV | libc::ENXIO), _) => DeviceError::NoTun,
        _ => DeviceError::Io { what: "create a TUN device", source: e },
    }
}

fn interface_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> DeviceError {
    move |source| DeviceError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_the_kernel_does() {
        for good in ["umptcp%d", "a", "umptcp0", "fifteen-letters"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "sixteen-letters!", "a/b", "a b", "..", "a%s", "%d%d", "a:b", "a%"] {
            assert!(matches!(check_name(bad), Err(DeviceError::BadName(_))), "{bad}");
        }
    }
}
