//! Signals while the program runs.

use crate::session::Received;
use nix::libc::{SIGINT, SIGQUIT};
use nix::sys::signal::Signal;
use umptcp_capture::signal_process;

/// Passes signals on to the process, which decides what they mean. Those that the terminal sends reach it without us:
/// it is in the terminal's foreground with us.
pub(super) fn to(process: u32) -> impl Fn(&Received) + Send + 'static {
    move |received| {
        let by_terminal = matches!(received.signal, SIGINT | SIGQUIT) && !received.by_process;
        if by_terminal {
            return;
        }
        if let Ok(signal) = Signal::try_from(received.signal) {
            signal_process(process, signal);
        }
    }
}
