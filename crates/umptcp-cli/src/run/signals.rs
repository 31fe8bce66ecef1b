//! Signals while the program runs.

use crate::session::Received;
use nix::libc::{SIGINT, SIGQUIT};
use nix::sys::signal::Signal;
use std::cell::OnceCell;
use std::sync::mpsc::Receiver;
use umptcp_capture::signal_process;

/// Passes signals on to the process that `running` names, which decides what they mean. Those that the
/// terminal sends reach it without us: it is in the terminal's foreground with us. A signal that comes while
/// it is being started waits for its name; with no process in the end, there is nobody to tell.
pub(super) fn to(running: Receiver<u32>) -> impl Fn(&Received) + Send + 'static {
    let process = OnceCell::new();
    move |received| {
        let by_terminal = matches!(received.signal, SIGINT | SIGQUIT) && !received.by_process;
        if by_terminal {
            return;
        }
        let process = process.get_or_init(|| running.recv().ok());
        if let (Some(process), Ok(signal)) = (process, Signal::try_from(received.signal)) {
            signal_process(*process, signal);
        }
    }
}
