//! The interface between an event loop and the stack that it drives.

use crate::device::{PathConfig, RxPacket, Transmit};
use crate::event::Event;
use crate::stack::Stack;
use umptcp_types::{Instant, PathId};

/// The part of a [`Stack`] that an event loop drives: packets, time and events. It is a trait so that a loop
/// can also drive something else, such as an emulated network, or something put in front of a stack.
///
/// The methods have the same meaning as those of [`Stack`].
pub trait NetworkStack {
    /// Adds a path.
    fn path_added(&mut self, now: Instant, config: PathConfig) -> PathId;
    /// Removes a path.
    fn path_removed(&mut self, now: Instant, path: PathId);
    /// Reports that the path's device is full, or has room again.
    fn path_blocked(&mut self, now: Instant, path: PathId, blocked: bool);
    /// Reports that enough waits in the queue of the path's NIC, for some milliseconds, or no longer.
    fn path_busy(&mut self, now: Instant, path: PathId, busy: bool);
    /// Reports what the path's NIC sends in a second, in bytes, as measured; `None`: it is not known, or not limited.
    fn path_rate(&mut self, now: Instant, path: PathId, rate: Option<u64>);
    /// Processes a received packet.
    fn handle_packet(&mut self, now: Instant, path: PathId, packet: RxPacket);
    /// Must be called at the time returned by `poll_timeout`.
    fn handle_timeout(&mut self, now: Instant);
    /// The next packet to send.
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit>;
    /// The next event for the program.
    fn poll_event(&mut self) -> Option<Event>;
    /// When to call `handle_timeout`.
    fn poll_timeout(&self) -> Option<Instant>;
}

impl NetworkStack for Stack {
    fn path_added(&mut self, now: Instant, config: PathConfig) -> PathId {
        Stack::path_added(self, now, config)
    }

    fn path_removed(&mut self, now: Instant, path: PathId) {
        Stack::path_removed(self, now, path);
    }

    fn path_blocked(&mut self, now: Instant, path: PathId, blocked: bool) {
        Stack::path_blocked(self, now, path, blocked);
    }

    fn path_busy(&mut self, now: Instant, path: PathId, busy: bool) {
        Stack::path_busy(self, now, path, busy);
    }

    fn path_rate(&mut self, now: Instant, path: PathId, rate: Option<u64>) {
        Stack::path_rate(self, now, path, rate);
    }

    fn handle_packet(&mut self, now: Instant, path: PathId, packet: RxPacket) {
        Stack::handle_packet(self, now, path, packet);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Stack::handle_timeout(self, now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        Stack::poll_transmit(self, now)
    }

    fn poll_event(&mut self) -> Option<Event> {
        Stack::poll_event(self)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Stack::poll_timeout(self)
    }
}
