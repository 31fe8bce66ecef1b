//! The end-to-end tests. `cargo xtask test` runs them with what they need.

mod baseline;
