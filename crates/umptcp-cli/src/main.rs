//! The program `umptcp`.

fn main() -> std::process::ExitCode {
    umptcp_cli::main_with(umptcp_cli::Registry::standard())
}
