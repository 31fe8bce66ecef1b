//! Packets of simulated links in a pcapng file.

use crate::direction::Direction;
use crate::trace::{PacketEvent, PacketEventKind, Tap};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use umptcp_pcapng::{InterfaceId, Writer};

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

/// Writes what a capture at the first end of each link would show: packets in forward direction as they are
/// handed to the link, before its queue, and packets in reverse direction as they come out. One interface per
/// link; times are virtual, from zero, in nanoseconds.
pub struct Capture<W: Write + Send> {
    out: Writer<W>,
    /// The interface of each cable, by number, if it is captured.
    interfaces: Vec<Option<InterfaceId>>,
    status: CaptureStatus,
}

impl<W: Write + Send> Capture<W> {
    /// Starts a file. `cables` has the name of each cable in order, or `None` where it is not to be captured;
    /// `comment` stands in the file's header.
    ///
    /// # Errors
    ///
    /// When nothing can be written.
    pub fn new(out: W, cables: &[Option<&str>], comment: &str) -> io::Result<(Capture<W>, CaptureStatus)> {
        let mut out = Writer::new(out, comment)?;
        let mut interface = |name: &Option<&str>| name.map(|name| out.add_interface(name, "")).transpose();
        let interfaces = cables.iter().map(&mut interface).collect::<io::Result<_>>()?;
        let status = CaptureStatus::default();
        Ok((Capture { out, interfaces, status: status.clone() }, status))
    }

    fn note(&self, result: io::Result<()>) {
        if let (Err(error), Ok(mut status)) = (result, self.status.0.lock()) {
            status.get_or_insert(error);
        }
    }

    fn write(&mut self, interface: InterfaceId, event: &PacketEvent<'_>) -> io::Result<()> {
        let mut packet = event.packet.clone();
        packet.complete_checksum();
        // Seen from the first end, forward is outbound.
        let direction = match event.direction {
            Direction::Forward => umptcp_pcapng::Direction::Outbound,
            Direction::Reverse => umptcp_pcapng::Direction::Inbound,
        };
        let slices = packet.payload().slices().iter().map(|slice| &slice[..]);
        let slices = std::iter::once(packet.header()).chain(slices);
        self.out.packet(interface, event.at.as_nanos(), direction, slices)
    }
}

impl<W: Write + Send> Tap for Capture<W> {
    fn packet(&mut self, event: &PacketEvent<'_>) {
        let Some(interface) = self.interfaces.get(event.cable).copied().flatten() else { return };
        let here = match (event.direction, event.what) {
            (Direction::Forward, PacketEventKind::Sent)
            | (Direction::Reverse, PacketEventKind::Delivered) => true,
            (_, PacketEventKind::Sent | PacketEventKind::Delivered | PacketEventKind::Dropped(_)) => false,
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
