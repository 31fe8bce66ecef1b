//! The packet traces of a loop.

use super::options::Capture;
use crate::pcap::{InterfaceId, PcapWriter};
use std::io;
use std::time::SystemTime;
use umptcp_stack_core::device::{PathConfig, PathKind, RxPacket, Transmit};

/// Where packets are recorded: those of paths that lead outside, and those of paths that capture.
pub(super) struct Traces {
    outer: Option<Capture>,
    inner: Option<Capture>,
    unflushed: bool,
}

/// A path in its trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traced {
    interface: InterfaceId,
    inner: bool,
}

impl Traces {
    pub(super) fn new(outer: Option<Capture>, inner: Option<Capture>) -> Traces {
        Traces { outer, inner, unflushed: false }
    }

    /// A path begins; `None`: it is not recorded.
    pub(super) fn add(&mut self, config: &PathConfig) -> Option<Traced> {
        let inner = config.kind == PathKind::Capture;
        let addresses: Vec<String> = config.addresses.iter().map(ToString::to_string).collect();
        let interface = self.write(inner, |c| c.add_interface(&config.name, &addresses.join(" ")))?;
        Some(Traced { interface, inner })
    }

    /// A packet came in.
    pub(super) fn inbound(
        &mut self,
        path: Option<Traced>,
        time: impl FnOnce() -> SystemTime,
        packet: &RxPacket,
    ) {
        if let Some(Traced { interface, inner }) = path {
            self.unflushed = true;
            self.write(inner, |c| c.inbound(interface, time(), packet));
        }
    }

    /// A packet went out.
    pub(super) fn outbound(
        &mut self,
        path: Option<Traced>,
        time: impl FnOnce() -> SystemTime,
        packet: &Transmit,
    ) {
        if let Some(Traced { interface, inner }) = path {
            self.unflushed = true;
            self.write(inner, |c| c.outbound(interface, time(), packet));
        }
    }

    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.unflushed) {
            self.write(false, PcapWriter::flush);
            self.write(true, PcapWriter::flush);
        }
    }

    /// Failing to write a trace must not stop the traffic.
    fn write<T>(&mut self, inner: bool, write: impl FnOnce(&mut Capture) -> io::Result<T>) -> Option<T> {
        let trace = if inner { &mut self.inner } else { &mut self.outer };
        match write(trace.as_mut()?) {
            Ok(done) => Some(done),
            Err(error) => {
                tracing::error!(%error, "cannot write the packet trace any further");
                *trace = None;
                None
            }
        }
    }
}
