//! Many connections: demultiplexing, tokens, listeners, timers, the poll interface.
//!
//! # Order of calls
//!
//! The stack never blocks, reads no clock and owns no descriptor. After any call that hands it something
//! ([`Stack::handle_packet`], [`Stack::handle_timeout`], an application's call), its caller
//!
//! 1. calls [`Stack::poll_transmit`] until it returns `None`, and sends what it returns;
//! 2. calls [`Stack::poll_event`] until it returns `None`;
//! 3. calls [`Stack::handle_timeout`] when the time of [`Stack::poll_timeout`] has come.
//!
//! Batches are welcome: several packets may be handed in before the first poll.
//! Every call takes the time, including those that do not need it today.

mod change;
mod connections;
mod demux;
mod fast_open;
mod inspect;
mod listen;
mod listeners;
mod looks;
mod meters;
mod orphans;
mod paths;
mod poll;
mod ready;
mod segment;
mod stand_ins;
mod state;
mod steer;
mod syn_cookies;
mod timers;

pub use crate::info::{
    ApplicationQueues, ConnectionInfo, ConnectionState, DataSequence, FastOpenServer, LOST_KEPT, MemoryInfo,
    MptcpStatus, NativeTrouble, Received, ReceivedMapping, SubflowInfo,
};
pub use state::Stack;
