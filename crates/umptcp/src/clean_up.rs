//! Undoing what paths have changed on the host, where dropping the stack does not.

use crate::nics::io_error;
use crate::shared::lock;
use crate::signals;
use crate::worker::Commands;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use umptcp_tun_driver::paths;

/// How long connections get to deliver what was written when a signal ends the process.
const LINGER: Duration = Duration::from_millis(500);
/// How long stacks get to stop, the resets of their connections included.
const STOPPING: Duration = Duration::from_secs(2);
/// How long the clean-up may take before another signal ends the process without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Undoes what crashed processes have left in this network namespace: routing rules and tables, nftables,
/// settings. Processes that run are not affected. Returns a line of text for each that has crashed. Starting
/// a stack with NICs does this first; the command `umptcp clean-up` does it, too.
///
/// # Errors
/// When the process may not do it, or the records of what was changed cannot be read.
pub fn clean_up_leftovers() -> io::Result<Vec<String>> {
    paths::clean_up_leftovers().map_err(io_error)
}

/// From now on, signals that end the process do so only after its stacks have been stopped, so that their
/// peers learn of it, and everything that was set up for their paths has been undone. Without this, such a
/// signal leaves the host changed until the next start of a stack or [`clean_up_leftovers`].
///
/// These are SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM and SIGXCPU, except those that the
/// process ignores when this is called. More signals do not shorten the clean-up, unless it takes longer than
/// 10 s. A program that handles signals itself drops its stacks instead.
///
/// Operations on streams and listeners fail meanwhile, so that threads may end; if `main` returns or
/// `std::process::exit` is called then, the stacks must have been dropped before.
///
/// Call it before the first stack is started. Further calls have no effect.
///
/// # Errors
/// When signals cannot be watched, or no thread can be started.
///
/// ```no_run
/// # #[cfg(target_os = "linux")]
/// # fn run() -> std::io::Result<()> {
/// umptcp::clean_up_on_signals()?;
/// let stack = umptcp::Stack::builder().all_nics().start()?;
/// # Ok(())
/// # }
/// ```
pub fn clean_up_on_signals() -> io::Result<()> {
    static WATCHING: AtomicBool = AtomicBool::new(false);
    if WATCHING.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let begin = || -> io::Result<()> {
        let mut signals = Signals::new(signals::not_ignored()?)?;
        std::thread::Builder::new().name("umptcp-signals".into()).spawn(move || {
            let mut begun: Option<Instant> = None;
            for signal in signals.forever() {
                match begun {
                    None => {
                        begun = Some(Instant::now());
                        // On another thread, so that this one takes further signals.
                        let end = move || end_by(signal);
                        if std::thread::Builder::new().name("umptcp-end".into()).spawn(end).is_err() {
                            end_by(signal);
                        }
                    }
                    Some(begun) if begun.elapsed() > PATIENCE => end_now(signal),
                    Some(_) => {}
                }
            }
        })?;
        Ok(())
    };
    let begun = begin();
    WATCHING.store(begun.is_ok(), Ordering::SeqCst);
    begun
}

fn end_by(signal: i32) {
    stop_all();
    for error in paths::clean_up() {
        tracing::error!(%error, "cannot undo a change");
    }
    end_now(signal);
}

/// Ends the process as if it had not handled the signal, so that its parent sees which one it was.
fn end_now(signal: i32) {
    if emulate_default_handler(signal).is_err() {
        std::process::exit(128 + signal);
    }
}

/// The stacks of this process that run.
static RUNNING: Mutex<Vec<(u64, Commands)>> = Mutex::new(Vec::new());

/// Keeps a stack among those that a signal stops.
#[derive(Debug)]
pub(crate) struct Registered(u64);

impl Registered {
    pub(crate) fn new(commands: Commands) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        lock(&RUNNING).push((id, commands));
        Registered(id)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&RUNNING).retain(|(id, _)| *id != self.0);
    }
}

/// Stops all stacks, and waits for that.
fn stop_all() {
    let running: Vec<Commands> = lock(&RUNNING).iter().map(|(_, commands)| commands.clone()).collect();
    for commands in &running {
        // It may have stopped already.
        let _ = commands.call(|worker, cx| worker.stop(cx, LINGER));
    }
    let end = Instant::now() + STOPPING;
    while Instant::now() < end && running.iter().any(|commands| commands.call(|_, _| ()).is_ok()) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
