//! What was sent and not yet acknowledged, and what is known of its fate.
//!
//! Everything is a range of bytes, never a count of segments: a segment of up to 64 kB is split by the kernel
//! or the NIC, so an ACK, a SACK block or a loss may cut it anywhere. Segments themselves are never cut,
//! because the mapping they were sent with (the tag) must be repeated verbatim; only the *state* of their
//! bytes is, in sets of ranges:
//!
//! | state | where | counted in flight |
//! |---|---|---|
//! | in flight, sent once | nowhere: the default | yes |
//! | retransmitted, in flight | `resent` | yes, once |
//! | SACKed | `sacked` | no |
//! | lost, not retransmitted since | `lost` | no |
//!
//! Without loss all the sets are empty, and sending and acknowledging are operations at the ends of two
//! queues. Each transmission also stands in the queue `sent`, in order of time; entries whose bytes were
//! delivered, lost or sent again are dropped only when they reach its front, so loss detection (RFC 8985)
//! costs amortised O(1) per transmission and O(log n) per range.
//!
//! A SYN occupies offset 0 and a FIN the offset after the last byte. Both count as one byte in every figure
//! here.
//!
//! | module | what is in it |
//! |---|---|
//! | `board` | the struct, and what was sent |
//! | `ack` | acknowledgements |
//! | `loss` | which bytes are lost |
//! | `retransmit` | which bytes to send again |
//! | `episode`, `rack`, `undo` | recovery episodes, RACK's state, evidence that an episode was needless |
//! | `parts` | segments and transmissions |

mod ack;
mod board;
mod episode;
mod loss;
mod parts;
mod rack;
mod retransmit;
#[cfg(test)]
mod tests;
mod undo;

pub(super) use ack::{AckOutcome, Evidence};
pub(super) use board::Scoreboard;
pub(super) use episode::Phase;
pub(super) use loss::Fate;
pub(super) use parts::{Chunk, Outgoing};
