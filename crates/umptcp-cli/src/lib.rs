//! The program `umptcp`, as a library: a crate with its own congestion controllers or schedulers can build
//! the whole program with them.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     let mut registry = umptcp_cli::Registry::standard();
//!     // registry.schedulers.register("mine", || Box::new(Mine::default()));
//!     umptcp_cli::main_with(registry)
//! }
//! ```
#![cfg_attr(
    any(not(target_os = "linux"), umptcp_portable),
    allow(dead_code, unused_imports, reason = "the daemon, `run` and the tools use more")
)]

mod args;
mod bench;
mod clean_up;
mod console;
mod control;
mod data;
mod demo;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod doctor;
mod emulate;
mod failure;
mod generate;
mod logging;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod memory;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod namespace;
mod netcat;
mod proxy;
mod registry;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod relay;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod run;
mod serving;
mod session;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod setup;
mod sim;
#[cfg(all(unix, not(umptcp_portable)))]
mod tools;
mod transport;
mod units;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod up;
mod warnings;

pub use registry::Registry;

use args::{BenchSide, Cli, Command};
use clap::{CommandFactory as _, FromArgMatches as _};
use failure::{Class, Described};
use logging::{Format, Level, Log};
use std::process::ExitCode;

/// Runs the program with the process's arguments and returns its exit code, which `umptcp --help` explains.
///
/// Call it before the process starts other threads: `demo` creates a user namespace, which the kernel allows
/// only in single-threaded processes.
pub fn main_with(registry: Registry) -> ExitCode {
    let mut command = command(&registry);
    let mut cli =
        match command.try_get_matches_from_mut(std::env::args_os()).and_then(|m| Cli::from_arg_matches(&m)) {
            Ok(cli) => cli,
            Err(error) => {
                // Help and version are "errors" with exit code 0, all others have 2. Do not panic if standard
                // error is closed.
                let _ = error.print();
                return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            }
        };
    if let Err(why) = cli.settle() {
        let _ = command.error(clap::error::ErrorKind::ArgumentConflict, why).print();
        return ExitCode::from(2);
    }
    // The daemon's configuration says what it logs.
    if !cli.command.configures_log() {
        let log = Log { level: Level::of_verbosity(cli.verbose), format: Some(Format::Text) };
        if let Err(error) = logging::start(log) {
            console::say(&format!("umptcp: {}", console::describe(&error)));
            return ExitCode::from(Class::of(&error).code());
        }
    }
    let json = cli.command.prints_json();
    let result = run(cli, &registry);
    session::wait_if_ending();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let class = Class::of(&error);
            // A result that shows corrupted data has been printed.
            if json && class != Class::Data {
                // The exit code says it, too.
                let _ = console::print(&serde_json::json!({ "error": Described::new(&error) }).to_string());
            }
            console::say(&format!("umptcp: {}", console::describe(&error)));
            ExitCode::from(class.code())
        }
    }
}

/// The definition of the command line, with the names that `registry` knows: for documentation and completion
/// scripts.
pub fn command(registry: &Registry) -> clap::Command {
    registry.describe(Cli::command())
}

/// Why a command is refused.
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
const NOT_PORTABLE: &str = "not in the portable build: it needs Linux, and a build for it (proxy, connect, listen and bench are here, with \
     --path ADDRESS,mode=udp)";

/// Returns the exit code.
fn run(cli: Cli, registry: &Registry) -> anyhow::Result<u8> {
    let verbose = cli.verbose > 0;
    let result = match cli.command {
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        Command::Run(args) => return run::run(&args, registry, verbose),
        #[cfg(any(not(target_os = "linux"), umptcp_portable))]
        Command::Run(_) => Err(Class::Host.failure(NOT_PORTABLE).into()),
        Command::Proxy(args) => proxy::run(&args, registry),
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        Command::Up(args) => up::run(&args, registry, cli.verbose),
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        Command::Down(args) => up::down(&args),
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        Command::Check(args) => up::check(&args, registry),
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        Command::Setup(args) => setup::run(&args),
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        Command::Relay(args) => relay::run(&args, registry, cli.verbose),
        #[cfg(any(not(target_os = "linux"), umptcp_portable))]
        Command::Up(_) | Command::Down(_) | Command::Check(_) | Command::Setup(_) | Command::Relay(_) => {
            Err(Class::Host.failure(NOT_PORTABLE).into())
        }
        Command::Listen(args) => netcat::listen(&args, registry, verbose),
        Command::Connect(args) => netcat::connect(&args, registry, verbose),
        Command::Bench(args) => match args.side {
            BenchSide::Server(args) => bench::server::run(&args, registry),
            BenchSide::Client(args) => bench::client::run(&args, registry),
        },
        Command::Sim(args) => sim::run(&args, registry),
        Command::Emulate(args) => emulate::run(&args, registry),
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        Command::Doctor(args) => doctor::run(&args, registry),
        #[cfg(any(not(target_os = "linux"), umptcp_portable))]
        Command::Doctor(_) => Err(Class::Host.failure(NOT_PORTABLE).into()),
        #[cfg(all(unix, not(umptcp_portable)))]
        Command::Ss(args) => tools::ss(&args),
        #[cfg(all(unix, not(umptcp_portable)))]
        Command::Nstat(args) => tools::nstat(&args),
        #[cfg(all(unix, not(umptcp_portable)))]
        Command::Monitor(args) => tools::monitor(&args),
        #[cfg(all(unix, not(umptcp_portable)))]
        Command::Top(args) => tools::top(&args),
        #[cfg(all(unix, not(umptcp_portable)))]
        Command::Endpoint(args) => tools::endpoint(&args),
        #[cfg(all(unix, not(umptcp_portable)))]
        Command::Limits(args) => tools::limits(&args),
        #[cfg(all(unix, not(umptcp_portable)))]
        Command::Path(args) => tools::path(&args),
        #[cfg(all(unix, not(umptcp_portable)))]
        Command::Subflow(args) => tools::subflow(&args),
        #[cfg(all(unix, not(umptcp_portable)))]
        Command::Set(args) => tools::set(&args),
        #[cfg(any(not(unix), umptcp_portable))]
        Command::Ss(_)
        | Command::Nstat(_)
        | Command::Monitor(_)
        | Command::Top(_)
        | Command::Endpoint(_)
        | Command::Limits(_)
        | Command::Path(_)
        | Command::Subflow(_)
        | Command::Set(_) => Err(Class::Host.failure(NOT_PORTABLE).into()),
        Command::CleanUp(_) => clean_up::run(),
        Command::Completions(args) => generate::completions(command(registry), args.shell),
        Command::Man(args) => generate::man(command(registry), args.dir.as_deref()),
        Command::Demo(args) => demo::run(&args, registry),
    };
    result.map(|()| 0)
}
