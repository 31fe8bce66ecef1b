//! What the loop drives.

use umptcp_stack_core::Stack;
use umptcp_stack_core::event::Event;
use umptcp_stack_core::interface::{PathConfig, RxPacket, Transmit};
use umptcp_types::{Instant, PathId};

/// The polled side of a [`Stack`]: packets, time and events. A trait so that the loop can be tested and measured with
/// something simpler, and so that a program may put something between the two.
///
/// The methods mean what those of the same name of [`Stack`] do.
pub trait Engine {
    /// A device is there that packets come in and go out by.
    fn path_added(&mut self, now: Instant, config: PathConfig) -> PathId;
    /// It is not there any more.
    fn path_removed(&mut self, now: Instant, path: PathId);
    /// It takes nothing until unblocked.
    fn path_blocked(&mut self, now: Instant, path: PathId, blocked: bool);
    /// A packet came in.
    fn handle_packet(&mut self, now: Instant, path: PathId, packet: RxPacket);
    /// The time of `poll_timeout` has come.
    fn handle_timeout(&mut self, now: Instant);
    /// The next packet to send.
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit>;
    /// What the program should know next.
    fn poll_event(&mut self) -> Option<Event>;
    /// When to call `handle_timeout`.
    fn poll_timeout(&self) -> Option<Instant>;
}

impl Engine for Stack {
    fn path_added(&mut self, now: Instant, config: PathConfig) -> PathId {
        Stack::path_added(self, now, config)
    }

    fn path_removed(&mut self, now: Instant, path: PathId) {
        Stack::path_removed(self, now, path);
    }

    fn path_blocked(&mut self, now: Instant, path: PathId, blocked: bool) {
        Stack::path_blocked(self, now, path, blocked);
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
