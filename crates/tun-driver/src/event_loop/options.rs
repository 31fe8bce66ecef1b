//! Settings of an event loop.

use crate::device::BufferPool;
use crate::pcap::PcapWriter;
use std::io;
use std::time::Duration;

/// Where packets are recorded.
pub type Capture = PcapWriter<Box<dyn io::Write + Send>>;

/// Settings of an event loop.
#[derive(Debug)]
#[non_exhaustive]
pub struct LoopOptions {
    /// Packets read from one device before the others and the stack's timers get their turn.
    pub receive_batch: usize,
    /// Packets sent before received ones are looked at again.
    pub transmit_batch: usize,
    /// How long to poll for work before sleeping. Saves the wake-up latency at the price of CPU time; zero by
    /// default.
    pub busy_poll: Duration,
    /// Maximum memory for received packets, in bytes.
    pub buffer_limit: usize,
    /// Where to record every packet of the paths that lead outside.
    pub capture: Option<Capture>,
    /// Where to record every packet of paths that capture.
    pub inner_capture: Option<Capture>,
}

impl Default for LoopOptions {
    fn default() -> Self {
        LoopOptions {
            receive_batch: 32,
            transmit_batch: 64,
            busy_poll: Duration::ZERO,
            buffer_limit: BufferPool::DEFAULT_LIMIT,
            capture: None,
            inner_capture: None,
        }
    }
}

impl LoopOptions {
    /// Sets [`busy_poll`](Self::busy_poll).
    pub fn busy_poll(mut self, duration: Duration) -> Self {
        self.busy_poll = duration;
        self
    }

    /// Sets [`buffer_limit`](Self::buffer_limit).
    pub fn buffer_limit(mut self, bytes: usize) -> Self {
        self.buffer_limit = bytes;
        self
    }

    /// Sets [`capture`](Self::capture).
    pub fn capture(mut self, capture: Capture) -> Self {
        self.capture = Some(capture);
        self
    }
}
