//! RFC 8684 §3.3 to §3.7 segment by segment: one real stack, and a peer made by hand that says exactly what a
//! test wants.

mod addresses;
mod close;
mod data;
mod fallback;
mod limits;
mod memory;
mod monitor;
mod nic;
mod options;
mod peer;
mod policies;
mod steer;
