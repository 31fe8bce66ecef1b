//! One subflow: a TCP connection (RFC 9293).
//!
//! It knows sequence numbers, windows, timers and loss. It does not know what the bytes mean: the connection
//! gives it payload with a tag of its own (for MPTCP the mapping), and writes the MPTCP options. Congestion
//! windows come from the connection's controller, which every call that needs one borrows.
//!
//! | module | what is in it |
//! |---|---|
//! | `control_block` | the struct [`Tcp`], and what it tells the connection |
//! | `input` | processing of a received segment, in the order of RFC 9293 §3.10.7 |
//! | `output` | what to send next: handshake, retransmission, acknowledgement, probes |
//! | `firing` | what happens when a timer fires |
//! | `icmp` | what ICMP errors do |
//! | `state` | the states, and the table of transitions |
//! | `timers` | the table of timers |
//! | `handshake`, `timestamps` | what the SYNs agreed on |
//! | `sender` | the sending half: windows, loss recovery, the size of packets |
//! | `receiver`, `receive_rtt`, `acker` | the receiving half, the round-trip time it sees, and the ACKs it owes |
//! | `segment`, `outcome`, `config` | what goes in and comes out |
//! | `scoreboard`, `rtt`, `prr`, `tlp`, `frto`, `pacing`, `pmtu`, `ecn` | single algorithms |
//!
//! What it does of each requirement: `docs/src/conformance-tcp.md` (RFC 9293), `conformance-rfc5961.md`,
//! `conformance-rfc7323.md` and `conformance-rfc8985.md` beside it.

mod acker;
mod config;
mod control_block;
mod ecn;
mod firing;
mod frto;
mod handshake;
mod icmp;
mod input;
mod outcome;
mod output;
mod pacing;
mod pmtu;
mod prr;
mod receive_rtt;
mod receiver;
mod rtt;
mod scoreboard;
mod segment;
mod sender;
mod state;
mod timers;
mod timestamps;
mod tlp;

pub(crate) use config::{FourTuple, TcpConfig, window_scale_for};
pub(crate) use config::{TIME_WAIT, default_mss};
pub(crate) use control_block::Tcp;
pub(crate) use icmp::IcmpOutcome;
pub(crate) use outcome::{Disposition, News, NewsSet, Outcome};
pub(crate) use segment::{Arrival, Kind, NewData, Segment};
pub(crate) use sender::packet_size::SizeProbe;
pub(crate) use state::{CloseReason, State};
