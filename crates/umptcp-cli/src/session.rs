//! Clean-up on signals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
#[cfg(unix)]
use std::time::{Duration, Instant};

/// Whether a signal has been received.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Never returns once a signal has been received: any failure since then was caused by the clean-up, which
/// ends the process.
pub(crate) fn wait_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// How long a clean-up may take before another signal ends the process without it.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_secs(10);

type CleanUp = Box<dyn FnOnce() + Send>;

/// A signal that has been received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Its number.
    pub(crate) signal: i32,
    /// A process has sent it; otherwise the kernel, for example because of a key at the terminal.
    pub(crate) by_process: bool,
}

/// What takes signals while they do not end the process.
type PassOn = Box<dyn Fn(&Received) + Send>;

/// What must be undone before a signal ends the process.
#[derive(Clone, Default)]
pub(crate) struct Session {
    clean_ups: Arc<Mutex<Vec<CleanUp>>>,
    pass_on: Arc<Mutex<Option<PassOn>>>,
}

impl Session {
    /// A session that cleans up before a signal ends the process. Those signals count that end a process by
    /// default, unless whoever started the program has it ignore them (`nohup`). Further signals do not
    /// shorten the clean-up, which takes a moment: `timeout` sends two at once. Only when it takes long,
    /// another signal ends the process.
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

    /// From now on signals do not end the process: `to` takes them.
    pub(crate) fn pass_on(&self, to: impl Fn(&Received) + Send + 'static) {
        *lock(&self.pass_on) = Some(Box::new(to));
    }

    /// From now on signals end the process again.
    pub(crate) fn take_back(&self) {
        *lock(&self.pass_on) = None;
    }

    #[cfg(unix)]
    fn watch_signals(&self) -> anyhow::Result<()> {
        use anyhow::Context as _;

        use signal_hook::iterator::exfiltrator::WithOrigin;
        use umptcp::signals;

        // On other systems than Linux none counts as ignored.
        let ending = signals::not_ignored().unwrap_or_else(|_| signals::ALL.to_vec());
        let signals = signal_hook::iterator::SignalsInfo::<WithOrigin>::new(ending);
        let mut signals = signals.context("cannot watch for signals")?;
        let session = self.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut begun: Option<Instant> = None;
                for origin in signals.forever() {
                    let signal = origin.signal;
                    if let Some(to) = &*lock(&session.pass_on) {
                        to(&Received { signal, by_process: origin.process.is_some() });
                        continue;
                    }
                    let Some(begun) = begun else {
                        begun = Some(Instant::now());
                        ENDING.store(true, Ordering::SeqCst);
                        session.end_in_background(signal);
                        continue;
                    };
                    if begun.elapsed() > PATIENCE {
                        signal_hook::low_level::exit(128 + signal);
                    }
                    if begun.elapsed() > Duration::from_secs(1) {
                        crate::console::say("umptcp: cleaning up; this takes a moment");
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(())
    }

    /// Cleans up and ends the process, while this thread takes further signals.
    #[cfg(unix)]
    fn end_in_background(&self, signal: i32) {
        let session = self.clone();
        let end = move || {
            session.clean_up();
            std::process::exit(128 + signal);
        };
        if std::thread::Builder::new().name("clean-up".to_owned()).spawn(end).is_err() {
            self.clean_up();
            std::process::exit(128 + signal);
        }
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
