//! Writes packet traces in pcapng (draft-ietf-opsawg-pcapng): a section header, an interface description per
//! interface, and an enhanced packet block per packet, with nanosecond times and the direction.
//!
//! Packets start with the IP header. Fields are little-endian on every machine.
#![forbid(unsafe_code)]

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Packets start with the IP header.
const LINKTYPE_RAW: u16 = 101;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// Bytes around a block's body: type and length before it, and the length again after it.
const FRAME: usize = 12;

/// An interface of a trace; see [`Writer::add_interface`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceId(u32);

/// The direction of a packet, as seen from the capture point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Received.
    Inbound,
    /// Sent.
    Outbound,
}

/// Writes a trace.
pub struct Writer<W: Write> {
    out: W,
    interfaces: u32,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts a trace. `comment`, if not empty, is stored in its header.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub fn new(out: W, comment: &str) -> io::Result<Self> {
        let mut writer = Writer { out, interfaces: 0, block: Vec::new() };
        let block = &mut writer.block;
        block.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0, section of unknown length.
        block.extend(1u16.to_le_bytes());
        block.extend(0u16.to_le_bytes());
        block.extend(u64::MAX.to_le_bytes());
        if !comment.is_empty() {
            option(block, OPT_COMMENT, comment.as_bytes());
        }
        option(block, SHB_USERAPPL, concat!("umptcp ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(block, OPT_END, &[]);
        writer.write_block(SECTION_HEADER)?;
        Ok(writer)
    }

    /// Adds an interface; an empty `description` is omitted. May be called at any time.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub fn add_interface(&mut self, name: &str, description: &str) -> io::Result<InterfaceId> {
        let block = &mut self.block;
        block.extend(LINKTYPE_RAW.to_le_bytes());
        block.extend(0u16.to_le_bytes());
        // No limit on the length of packets.
        block.extend(0u32.to_le_bytes());
        option(block, IF_NAME, name.as_bytes());
        if !description.is_empty() {
            option(block, IF_DESCRIPTION, description.as_bytes());
        }
        // Timestamps are in units of 10^-9 s.
        option(block, IF_TSRESOL, &[9]);
        option(block, OPT_END, &[]);
        self.write_block(INTERFACE_DESCRIPTION)?;
        self.interfaces += 1;
        Ok(InterfaceId(self.interfaces - 1))
    }

    /// Writes a packet, which consists of `slices` and starts with the IP header. `nanos` is its time since
    /// 1970 or since the start of the recording.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub fn packet<'a>(
        &mut self,
        interface: InterfaceId,
        nanos: u64,
        direction: Direction,
        slices: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        const HEAD: usize = 20;
        let block = &mut self.block;
        block.extend(interface.0.to_le_bytes());
        block.extend(((nanos >> 32) as u32).to_le_bytes());
        block.extend((nanos as u32).to_le_bytes());
        // Captured and original length, filled in below.
        block.extend([0; 8]);
        for slice in slices {
            block.extend_from_slice(slice);
        }
        let len = ((block.len() - HEAD) as u32).to_le_bytes();
        block[HEAD - 8..HEAD - 4].copy_from_slice(&len);
        block[HEAD - 4..HEAD].copy_from_slice(&len);
        pad(block);
        let flags: u32 = match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        option(block, EPB_FLAGS, &flags.to_le_bytes());
        option(block, OPT_END, &[]);
        self.write_block(ENHANCED_PACKET)
    }

    /// Flushes the underlying writer.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes the collected bytes as a block of type `kind`.
    fn write_block(&mut self, kind: u32) -> io::Result<()> {
        let len = ((self.block.len() + FRAME) as u32).to_le_bytes();
        let written = self
            .out
            .write_all(&kind.to_le_bytes())
            .and_then(|()| self.out.write_all(&len))
            .and_then(|()| self.out.write_all(&self.block))
            .and_then(|()| self.out.write_all(&len));
        self.block.clear();
        written
    }
}

impl<W: Write> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Longer values do not occur in practice: values are names and one comment.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    block.extend(code.to_le_bytes());
    block.extend((value.len() as u16).to_le_bytes());
    block.extend_from_slice(value);
    pad(block);
}

fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_framed_and_padded() {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out, "a comment").unwrap();
        let a = w.add_interface("wlan0", "path p0").unwrap();
        let b = w.add_interface("wwan0", "").unwrap();
        w.packet(a, 5_000_000_007, Direction::Inbound, [&b"abc"[..], b"de"]).unwrap();
        w.packet(b, 0, Direction::Outbound, [&[7; 1500][..]]).unwrap();
        w.flush().unwrap();

        let word = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().unwrap());
        let mut at = 0;
        let mut blocks = Vec::new();
        while at < out.len() {
            let len = word(at + 4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(at + len - 4) as usize, len, "both lengths of a block agree");
            blocks.push((word(at), at));
            at += len;
        }
        assert_eq!(at, out.len());
        assert_eq!(
            blocks.iter().map(|b| b.0).collect::<Vec<_>>(),
            [SECTION_HEADER, INTERFACE_DESCRIPTION, INTERFACE_DESCRIPTION, ENHANCED_PACKET, ENHANCED_PACKET]
        );
        let first = blocks[3].1;
        assert_eq!(word(first + 8), 0, "interface");
        assert_eq!(u64::from(word(first + 12)) << 32 | u64::from(word(first + 16)), 5_000_000_007);
        assert_eq!((word(first + 20), word(first + 24)), (5, 5));
        assert_eq!(&out[first + 28..first + 36], b"abcde\0\0\0");
        // The direction, and the end of the options.
        assert_eq!([36, 40, 44].map(|at| word(first + at)), [u32::from(EPB_FLAGS) | 4 << 16, 1, 0]);
        let second = blocks[4].1;
        assert_eq!((word(second + 8), word(second + 20)), (1, 1500));
        assert_eq!(word(second + 28 + 1500 + 4), 2);
    }
}
