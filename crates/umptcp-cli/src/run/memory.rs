//! Memory that many connections have used goes back to the system.

use crossbeam_channel::{RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use umptcp::Forwarder;

/// How often to look.
const LOOK: Duration = Duration::from_secs(5);

/// How many connections must have ended for it to be worth the time.
const MANY: u64 = 256;

/// Returns unused memory after many connections have ended, until it is dropped. glibc keeps what lies between pieces
/// that are in use, for ever.
pub(super) struct Trimmer {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Trimmer {
    /// Starts to look at what these have forwarded.
    pub(super) fn start(forwarders: [Arc<Forwarder>; 2]) -> std::io::Result<Trimmer> {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let run = move || {
            let mut before = 0;
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let ended = forwarders.iter().map(|f| f.ended()).sum();
                if ended >= before + MANY {
                    before = ended;
                    trim();
                }
            }
        };
        let thread = std::thread::Builder::new().name("umptcp-trim".into()).spawn(run)?;
        Ok(Trimmer { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Trimmer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst.
            let _ = thread.join();
        }
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn trim() {
    // SAFETY: malloc_trim may be called at any time by any thread; it takes no pointer.
    unsafe { nix::libc::malloc_trim(0) };
}

/// Other allocators look after themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
