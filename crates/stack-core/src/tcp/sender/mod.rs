//! The sending half of a subflow: what is outstanding, what the windows allow, loss recovery, the size of
//! packets.
//!
//! | module | what is in it |
//! |---|---|
//! | `half` | the struct, and what it tells others |
//! | `window` | the peer's window |
//! | `rounds` | round trips, and whether the congestion window limits what is sent |
//! | `recovery` | what a recovery episode keeps: rate reduction, probes, F-RTO |
//! | `ack` | what an acknowledgement brings about |
//! | `loss` | losses, timeouts, and the timers against them |
//! | `transmit` | what is sent, and sent again |
//! | `way_back` | how much longer acknowledgements take than they did at best |
//! | `packet_size` | the size of packets, and probes for larger ones |

pub(super) mod ack;
pub(super) mod half;
mod loss;
pub(super) mod packet_size;
mod recovery;
mod rounds;
pub(super) mod transmit;
mod way_back;
mod window;
