//! Handshakes segment by segment: a stack against a peer played by hand.

mod capable;
mod cookies;
mod early_answer;
mod fast_open;
mod incoming;
mod join;
mod security;
