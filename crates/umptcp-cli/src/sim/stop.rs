//! SIGINT and SIGTERM while scenarios run: what is complete is written, and then the process ends as it would
//! have.

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether a signal has come.
pub(crate) struct Stop {
    /// Becomes true with the first signal. The second ends the process at once.
    pub(crate) stop: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// From now on signals are noted.
    pub(crate) fn watch() -> anyhow::Result<Stop> {
        let (stop, signal) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for number in [SIGINT, SIGTERM] {
            let watched = flag::register_conditional_default(number, stop.clone())
                .and_then(|_| flag::register_usize(number, signal.clone(), number as usize))
                .and_then(|_| flag::register(number, stop.clone()));
            watched.context("cannot watch for signals")?;
        }
        Ok(Stop { stop, signal })
    }

    pub(crate) fn is_set(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Ends the process by the signal that has come, if one has.
    pub(crate) fn end_if_set(&self) {
        match self.signal.load(Ordering::SeqCst) {
            0 => {}
            number => {
                let _ = signal_hook::low_level::emulate_default_handler(number as i32);
            }
        }
    }
}
