//! A thread that does the same from time to time.

use crate::error::CaptureError;
use crossbeam_channel::{RecvTimeoutError, Sender};
use std::ops::ControlFlow;
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that does something from time to time, until it is dropped.
#[derive(Debug)]
pub struct Periodic {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Periodic {
    /// Calls `work` after each `interval`, until it breaks.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        name: &str,
        interval: Duration,
        mut work: impl FnMut() -> ControlFlow<()> + Send + 'static,
    ) -> Result<Periodic, CaptureError> {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let run = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) && work().is_continue() {}
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(CaptureError::set_up("start a thread"))?;
        Ok(Periodic { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Periodic {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst.
            let _ = thread.join();
        }
    }
}
