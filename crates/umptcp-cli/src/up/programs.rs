//! Programs that ask to be captured: `umptcp run` of users of this host.

use super::capture::Shared;
use crate::console::describe;
use crate::control::Programs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use umptcp_capture::current_network;
use umptcp_control::call::{CaptureCaller, Captured};
use umptcp_control::instance::Answer;
use umptcp_control::state::RunSummary;
use umptcp_control::{Code, Failure, Peer};

/// Who takes programs in, as long as the configuration says so.
#[derive(Default)]
pub(super) struct Desk(Mutex<State>);

#[derive(Default)]
struct State {
    open: bool,
    /// What captures them; those that there are stay when no more are taken.
    capture: Option<Arc<Shared>>,
}

impl Desk {
    /// From now on programs are taken in, or not any more.
    pub(super) fn become_as(&self, open: bool, capture: Option<Arc<Shared>>) {
        *self.state() = State { open, capture };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Programs for Desk {
    fn capture(&self, call: &CaptureCaller, peer: &Peer) -> Answer<Captured> {
        let capture = {
            let state = self.state();
            if !state.open {
                let text = "this daemon takes no programs: its configuration has no [run]";
                return Err(Failure::new(Code::NotSupported, text));
            }
            state.capture.clone()
        };
        let failed = |text: String| Failure::new(Code::Failed, text);
        let capture = capture.ok_or_else(|| failed("this daemon cannot capture; its log says why".into()))?;
        if call.network.is_some() && call.network != current_network() {
            let text = "the program is in another network namespace than this daemon";
            return Err(Failure::new(Code::NotSupported, text));
        }
        let process = peer.process.ok_or_else(|| {
            let text = "the program is in another PID namespace than this daemon";
            Failure::new(Code::NotSupported, text)
        })?;
        let is_it = || !peer.has_ended() && is_of(process, peer.user);
        let run = capture.adopt(process, is_it).map_err(|error| failed(describe(&error)))?;
        tracing::info!(run, process, user = peer.user, "a program is captured");
        Ok(Captured { run, paths: capture.paths() })
    }

    fn summarize(&self, run: u64) -> Answer<RunSummary> {
        let capture = self.state().capture.clone();
        let missing = || Failure::new(Code::NotFound, format!("no run has the number {run}"));
        capture.and_then(|capture| capture.summary(run)).ok_or_else(missing)
    }
}

/// Whether a process is a user's: its number might be another's by now.
fn is_of(process: u32, user: Option<u32>) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { return false };
    let mut users =
        status.lines().filter_map(|line| line.strip_prefix("Uid:")).flat_map(str::split_whitespace);
    users.any(|id| id.parse().ok() == user)
}
