//! Handshakes segment by segment: a stack against a peer played by hand.

mod capable;
#[path = "../common/mod.rs"]
mod common;
mod cookies;
mod fast_open;
mod join;
mod raw;
mod security;
