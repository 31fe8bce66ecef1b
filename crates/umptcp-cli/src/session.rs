//! Clean-up on signals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Whether a signal has been received.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Never returns once a signal has been received: any failure since then was caused by the clean-up, which
/// ends the process.
pub(crate) fn wait_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

type CleanUp = Box<dyn FnOnce() + Send>;

/// What must be undone before a signal ends the process.
#[derive(Clone, Default)]
pub(crate) struct Session {
    clean_ups: Arc<Mutex<Vec<CleanUp>>>,
}

impl Session {
    /// A session that ends the process on SIGINT, SIGTERM and SIGHUP after cleaning up; a second signal ends
    /// it immediately.
    pub(crate) fn start() -> anyhow::Result<Session> {
        let session = Session::default();
        #[cfg(unix)]
        session.watch_signals()?;
        Ok(session)
    }

    /// Runs `undo` if a signal ends the process.
    pub(crate) fn on_signal(&self, undo: impl FnOnce() + Send + 'static) {
        lock(&self.clean_ups).push(Box::new(undo));
    }

    #[cfg(unix)]
    fn watch_signals(&self) -> anyhow::Result<()> {
        use anyhow::Context as _;
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The order matters: the conditional shutdown must be registered before the flag is set.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&again)))
                .context("cannot watch for signals")?;
        }
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
            .context("cannot watch for signals")?;
        let session = self.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    ENDING.store(true, Ordering::SeqCst);
                    session.clean_up();
                    std::process::exit(128 + signal);
                }
            })
            .context("cannot start a thread")?;
        Ok(())
    }

    #[cfg_attr(not(unix), allow(dead_code))]
    fn clean_up(&self) {
        // In reverse order.
        while let Some(undo) = { lock(&self.clean_ups).pop() } {
            undo();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undoes_in_reverse_order_and_once() {
        let session = Session::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for n in 0..3 {
            let seen = Arc::clone(&seen);
            session.on_signal(move || lock(&seen).push(n));
        }
        session.clean_up();
        session.clean_up();
        assert_eq!(*lock(&seen), [2, 1, 0]);
    }
}
