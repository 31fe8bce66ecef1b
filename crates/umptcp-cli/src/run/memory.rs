//! Memory that many connections have used goes back to the system.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use umptcp::Forwarder;
use umptcp_capture::{CaptureError, Periodic};

/// How often to look.
const LOOK: Duration = Duration::from_secs(5);

/// How many connections must have ended for it to be worth the time.
const MANY: u64 = 256;

/// Returns unused memory after many connections of these have ended, until it is dropped. glibc keeps what
/// lies between pieces that are in use, for ever.
pub(super) fn trim_after(forwarders: [Arc<Forwarder>; 2]) -> Result<Periodic, CaptureError> {
    let mut before = 0;
    Periodic::start("umptcp-trim", LOOK, move || {
        let ended = forwarders.iter().map(|f| f.ended()).sum();
        if ended >= before + MANY {
            before = ended;
            trim();
        }
        ControlFlow::Continue(())
    })
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
