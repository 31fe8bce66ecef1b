//! The end-to-end tests. `cargo xtask test` runs them with what they need.

mod bad_input;
mod baseline;
mod fallback;
mod lossy;
mod matrix;
mod packets;
mod paths;
mod robustness;
mod umptcp_host;
mod with_kernel;
