//! Programs that ask to be captured.

use umptcp_control::Peer;
use umptcp_control::call::{CaptureCaller, Captured};
use umptcp_control::instance::Answer;
use umptcp_control::state::RunSummary;

/// Captures processes that ask for it.
pub(crate) trait Programs: Send + Sync {
    /// Captures whoever asks, and what it starts.
    fn capture(&self, call: &CaptureCaller, peer: &Peer) -> Answer<Captured>;

    /// What became of the connections of a run.
    fn summarize(&self, run: u64) -> Answer<RunSummary>;
}
