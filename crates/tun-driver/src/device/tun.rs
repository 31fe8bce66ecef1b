//! TUN devices with the virtio header, which lets segments of up to 64 kB cross in one system call.

use super::virtio::{self, VirtioHeader};
use super::{BufferPool, Device, DeviceError, TransmitOutcome};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use tun_rs::{DeviceBuilder, SyncDevice};
use umptcp_stack_core::interface::{ChecksumRequest, ChecksumState, PathConfig, RxPacket, Transmit};

/// Whether a device is to cut and coalesce segments and to complete checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Offload {
    /// If the kernel can.
    #[default]
    Auto,
    /// No: single packets with complete checksums, in both directions.
    Off,
}

/// What kind of device to open.
#[derive(Clone, Debug)]
pub struct TunOptions {
    /// Name of the interface; `%d` in it stands for a free number. `None`: `umptcp%d`.
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

/// The name pattern for devices without a name of their own.
const DEFAULT_NAME: &str = "umptcp%d";

/// Slices of one packet that go to the kernel without an allocation. More are rare: small writes are joined before.
const SLICES: usize = 18;

/// Most slices of one system call (UIO_MAXIOV).
const MAX_SLICES: usize = 1024;

/// A TUN device: an interface of this host, and the descriptor at which its packets come out and go in.
///
/// The interface vanishes when this is dropped, and with it its addresses and routes.
pub struct Tun {
    device: SyncDevice,
    name: String,
    index: u32,
    offload: bool,
}

impl Tun {
    /// Makes a TUN device. The interface is down and has no address; its MTU is set.
    ///
    /// Falls back to single packets with complete checksums where the kernel refuses offload; [`Tun::has_offload`] tells.
    pub fn open(options: &TunOptions) -> Result<Tun, DeviceError> {
        let name = options.name.as_deref().unwrap_or(DEFAULT_NAME);
        check_name(name)?;
        // tun-rs would make the missing device node, which outlives us.
        if !std::path::Path::new("/dev/net/tun").exists() {
            return Err(DeviceError::NoTun);
        }
        let offload = options.offload == Offload::Auto;
        let (device, offload) = match build(name, options.mtu, offload) {
            Ok(device) => (device, offload),
            Err(e) if offload && !is_final(&e) => {
                tracing::warn!(error = %e, "no segmentation offload on TUN devices; going on without");
                (build(name, options.mtu, false).map_err(|e| explain(e, options))?, false)
            }
            Err(e) => return Err(explain(e, options)),
        };
        if offload {
            restrict_offload(&device).map_err(io_error("choose the offloads of a TUN device"))?;
        }
        device.set_nonblocking(true).map_err(io_error("make a TUN device nonblocking"))?;
        let name = device.name().map_err(io_error("read the name of a TUN device"))?;
        let index = device.if_index().map_err(io_error("read the index of a TUN device"))?;
        Ok(Tun { device, name, index, offload })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the kernel cuts and coalesces segments and completes checksums.
    pub fn has_offload(&self) -> bool {
        self.offload
    }

    /// Enters into a path's configuration what this device can do: segment size and checksums.
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
            return Ok(Some(RxPacket { buffer: pool.take(len), gso_size: None, checksum }));
        }
        let header = VirtioHeader::decode(&virtio);
        Ok(Some(RxPacket {
            buffer: pool.take(len.saturating_sub(virtio::LEN)),
            gso_size: header.received_gso_size(),
            checksum: header.received_checksum(),
        }))
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
                "a device without offload was given a packet to cut or to sum",
            ));
        }
        match send(&self.device, first, packet) {
            Ok(_) => Ok(TransmitOutcome::Sent),
            Err(e) => match e.raw_os_error() {
                // EIO: the interface is down; it becomes writable when it comes up.
                Some(libc::EAGAIN | libc::EIO) => Ok(TransmitOutcome::Full),
                // Out of buffers: as good as a loss on the way, which the sender can handle.
                Some(libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => Ok(TransmitOutcome::Sent),
                _ => Err(e),
            },
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
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

/// tun-rs switches UDP segmentation on where it can. We carry TCP only, so the kernel is to cut the rest itself.
#[allow(unsafe_code)]
fn restrict_offload(device: &SyncDevice) -> io::Result<()> {
    nix::ioctl_write_int!(tunsetoffload, b'T', 208);
    let wanted = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // SAFETY: TUNSETOFFLOAD takes its flags by value; the descriptor is a live TUN descriptor that `device` owns.
    unsafe { tunsetoffload(device.as_raw_fd(), wanted as _) }?;
    Ok(())
}

fn check_name(name: &str) -> Result<(), DeviceError> {
    // As the kernel's dev_valid_name, and at most one %d.
    let pattern = name.matches('%').count();
    let ok = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace() || c == '\0')
        && (pattern == 0 || pattern == 1 && name.contains("%d"));
    if ok { Ok(()) } else { Err(DeviceError::BadName(name.to_owned())) }
}

/// Errors that trying without offload would not mend.
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
        // EINVAL: the interface exists and is no TUN device, or one of another kind.
        (Some(libc::EBUSY | libc::EEXIST), Some(name)) => DeviceError::NameInUse(name),
        (Some(libc::EINVAL), Some(name)) if interface_exists(&name) => DeviceError::NameInUse(name),
        (Some(libc::ENOENT | libc::ENODEV | libc::ENXIO), _) => DeviceError::NoTun,
        _ => DeviceError::Io { what: "make a TUN device", source: e },
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
