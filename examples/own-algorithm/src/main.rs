//! The program `umptcp` with a congestion control algorithm, a scheduler and a path policy that it does not bring itself:
//!
//!     cargo run --release -- sim scenario.toml
//!     cargo run --release -- bench client 192.0.2.10 --congestion ewtcp --scheduler widest --path-policy frugal

mod ewtcp;
mod frugal;
mod widest;

use ewtcp::Ewtcp;
use frugal::Frugal;
use umptcp_congestion::{Algorithm, Controller};
use widest::Widest;

fn main() -> std::process::ExitCode {
    let mut registry = umptcp_cli::Registry::standard();
    registry.congestion.register(Ewtcp::NAME, Controller::<Ewtcp>::boxed);
    registry.schedulers.register(Widest::NAME, || Box::new(Widest));
    registry.path_policies.register(Frugal::NAME, || Box::new(Frugal));
    umptcp_cli::main_with(registry)
}
