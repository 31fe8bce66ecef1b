//! One subflow: loss recovery and its timers.

pub mod pacing;
pub mod prr;
pub mod rtt;
pub mod scoreboard;
