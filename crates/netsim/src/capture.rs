//! Packets of simulated links in a pcapng file.

use crate::cable::Direction;
use crate::trace::{Happening, PacketEvent, Tap};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Packets begin with the IP header (LINKTYPE_RAW).
const LINKTYPE_RAW: u16 = 101;
const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// What went wrong while writing, to be asked for after the run.
#[derive(Clone, Debug, Default)]
pub struct CaptureStatus(Arc<Mutex<Option<io::Error>>>);

impl CaptureStatus {
    /// The first error, if there was one.
    ///
    /// # Errors
    ///
    /// That error.
    pub fn check(&self) -> io::Result<()> {
        match self.0.lock().map(|mut e| e.take()) {
            Ok(Some(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Writes what a capture at the first end of each link would show: packets in forward direction as they are handed to
/// the link, before its queue, and packets in reverse direction as they come out. One interface per link; times are
/// virtual, from zero, in nanoseconds.
pub struct Capture<W: Write + Send> {
    out: W,
    /// The interface of each cable, by number, if it is captured.
    interfaces: Vec<Option<u32>>,
    status: CaptureStatus,
    block: Vec<u8>,
}

impl<W: Write + Send> Capture<W> {
    /// Starts a file. `cables` has the name of each cable in order, or `None` where it is not to be captured; `comment`
    /// stands in the file's header.
    ///
    /// # Errors
    ///
    /// When nothing can be written.
    pub fn new(
        mut out: W,
        cables: &[Option<&str>],
        comment: &str,
    ) -> io::Result<(Capture<W>, CaptureStatus)> {
        let mut block = Vec::new();
        block.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0, section of unknown length.
        block.extend(1u16.to_le_bytes());
        block.extend(0u16.to_le_bytes());
        block.extend(u64::MAX.to_le_bytes());
        option(&mut block, OPT_COMMENT, comment.as_bytes());
        option(&mut block, SHB_USERAPPL, concat!("umptcp ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut block, OPT_END, &[]);
        write_block(&mut out, SECTION_HEADER, &block)?;
        let mut interfaces = Vec::with_capacity(cables.len());
        let mut next = 0;
        for name in cables {
            interfaces.push(name.map(|_| next));
            let Some(name) = name else { continue };
            next += 1;
            block.clear();
            block.extend(LINKTYPE_RAW.to_le_bytes());
            block.extend(0u16.to_le_bytes());
            // No limit on the length of packets.
            block.extend(0u32.to_le_bytes());
            option(&mut block, IF_NAME, name.as_bytes());
            option(&mut block, IF_TSRESOL, &[9]);
            option(&mut block, OPT_END, &[]);
            write_block(&mut out, INTERFACE_DESCRIPTION, &block)?;
        }
        let status = CaptureStatus::default();
        Ok((Capture { out, interfaces, status: status.clone(), block }, status))
    }

    fn note(&self, result: io::Result<()>) {
        if let (Err(error), Ok(mut status)) = (result, self.status.0.lock()) {
            status.get_or_insert(error);
        }
    }

    fn write(&mut self, interface: u32, event: &PacketEvent<'_>) -> io::Result<()> {
        let mut packet = event.packet.clone();
        packet.complete_checksum();
        let block = &mut self.block;
        block.clear();
        block.extend(interface.to_le_bytes());
        let nanos = event.at.as_nanos();
        block.extend(((nanos >> 32) as u32).to_le_bytes());
        block.extend((nanos as u32).to_le_bytes());
        let len = packet.len() as u32;
        block.extend(len.to_le_bytes());
        block.extend(len.to_le_bytes());
        block.extend_from_slice(packet.header());
        for slice in packet.payload().slices() {
            block.extend_from_slice(slice);
        }
        block.resize(block.len().next_multiple_of(4), 0);
        // Seen from the first end, forward is outbound.
        let flags: u32 = if event.direction == Direction::Forward { 2 } else { 1 };
        option(block, EPB_FLAGS, &flags.to_le_bytes());
        option(block, OPT_END, &[]);
        write_block(&mut self.out, ENHANCED_PACKET, &self.block)
    }
}

impl<W: Write + Send> Tap for Capture<W> {
    fn packet(&mut self, event: &PacketEvent<'_>) {
        let Some(interface) = self.interfaces.get(event.cable).copied().flatten() else { return };
        let here = match (event.direction, event.what) {
            (Direction::Forward, Happening::Sent) | (Direction::Reverse, Happening::Delivered) => true,
            (_, Happening::Sent | Happening::Delivered | Happening::Dropped(_)) => false,
        };
        if here {
            let result = self.write(interface, event);
            self.note(result);
        }
    }
}

impl<W: Write + Send> Drop for Capture<W> {
    fn drop(&mut self) {
        let result = self.out.flush();
        self.note(result);
    }
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Longer values do not occur: names and one comment.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    block.extend(code.to_le_bytes());
    block.extend((value.len() as u16).to_le_bytes());
    block.extend_from_slice(value);
    block.resize(block.len().next_multiple_of(4), 0);
}

fn write_block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len)?;
    out.write_all(body)?;
    out.write_all(&len)
}
