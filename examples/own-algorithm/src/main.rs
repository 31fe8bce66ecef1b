//! The program `umptcp` with a congestion control algorithm and a scheduler that it does not bring itself:
//!
//!     cargo run --release -- sim scenario.toml
//!     cargo run --release -- bench client 192.0.2.10 --congestion ewtcp --scheduler widest

mod ewtcp;
mod widest;

fn main() -> std::process::ExitCode {
    let mut registry = umptcp_cli::Registry::standard();
    registry.congestion.register_algorithm::<ewtcp::Ewtcp>();
    registry.schedulers.register(widest::Widest::NAME, || Box::new(widest::Widest));
    umptcp_cli::main_with(registry)
}
