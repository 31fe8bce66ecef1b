//! The program `umptcp` with a congestion control algorithm and a scheduler that it does not bring itself:
//!
//!     cargo run --release -- sim scenario.toml
//!     cargo run --release -- bench client 192.0.2.10 --congestion ewtcp --scheduler widest

mod ewtcp;
mod widest;

use ewtcp::Ewtcp;
use umptcp_congestion::{Algorithm, Controller};
use widest::Widest;

fn main() -> std::process::ExitCode {
    let mut registry = umptcp_cli::Registry::standard();
    registry.congestion.register(Ewtcp::NAME, Controller::<Ewtcp>::boxed);
    registry.schedulers.register(Widest::NAME, || Box::new(Widest));
    umptcp_cli::main_with(registry)
}
