//! Signals while the program runs.

use crate::session::Received;
use nix::libc::{SIGINT, SIGQUIT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Passes signals on to the process, which decides what they mean. Those that the terminal sends reach it without us:
/// it is in the terminal's foreground with us.
pub(super) fn to(process: u32) -> impl Fn(&Received) + Send + 'static {
    move |received| {
        let by_terminal = matches!(received.signal, SIGINT | SIGQUIT) && !received.by_process;
        if by_terminal {
            return;
        }
        if let (Ok(id), Ok(signal)) = (i32::try_from(process), Signal::try_from(received.signal)) {
            // ESRCH: it has ended.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }
}
