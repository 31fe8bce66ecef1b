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

mod args;
mod bench;
mod clean_up;
mod console;
#[cfg(target_os = "linux")]
mod control;
mod data;
mod demo;
#[cfg(target_os = "linux")]
mod doctor;
mod emulate;
mod failure;
mod generate;
mod logging;
mod memory;
#[cfg(target_os = "linux")]
mod namespace;
mod netcat;
#[cfg(target_os = "linux")]
mod proxy;
mod registry;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod serving;
mod session;
#[cfg(target_os = "linux")]
mod setup;
mod sim;
#[cfg(unix)]
mod tools;
mod transport;
mod units;
#[cfg(target_os = "linux")]
mod up;
#[cfg(target_os = "linux")]
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

/// Returns the exit code.
fn run(cli: Cli, registry: &Registry) -> anyhow::Result<u8> {
    let verbose = cli.verbose > 0;
    let result = match cli.command {
        #[cfg(target_os = "linux")]
        Command::Run(args) => return run::run(&args, registry, verbose),
        #[cfg(not(target_os = "linux"))]
        Command::Run(_) => Err(Class::Host.failure("run needs Linux").into()),
        #[cfg(target_os = "linux")]
        Command::Proxy(args) => proxy::run(&args, registry),
        #[cfg(not(target_os = "linux"))]
        Command::Proxy(_) => Err(Class::Host.failure("proxy needs Linux").into()),
        #[cfg(target_os = "linux")]
        Command::Up(args) => up::run(&args, registry, cli.verbose),
        #[cfg(target_os = "linux")]
        Command::Down(args) => up::down(&args),
        #[cfg(target_os = "linux")]
        Command::Check(args) => up::check(&args, registry),
        #[cfg(target_os = "linux")]
        Command::Setup(args) => setup::run(&args),
        #[cfg(target_os = "linux")]
        Command::Relay(args) => relay::run(&args, registry, cli.verbose),
        #[cfg(not(target_os = "linux"))]
        Command::Up(_) | Command::Down(_) | Command::Check(_) | Command::Setup(_) | Command::Relay(_) => {
            Err(Class::Host.failure("the daemon needs Linux").into())
        }
        Command::Listen(args) => netcat::listen(&args, registry, verbose),
        Command::Connect(args) => netcat::connect(&args, registry, verbose),
        Command::Bench(args) => match args.side {
            BenchSide::Server(args) => bench::server::run(&args, registry),
            BenchSide::Client(args) => bench::client::run(&args, registry),
        },
        Command::Sim(args) => sim::run(&args, registry),
        Command::Emulate(args) => emulate::run(&args, registry),
        #[cfg(target_os = "linux")]
        Command::Doctor(args) => doctor::run(&args, registry),
        #[cfg(not(target_os = "linux"))]
        Command::Doctor(_) => Err(Class::Host.failure("umptcp sets up paths only on Linux").into()),
        #[cfg(unix)]
        Command::Ss(args) => tools::ss(&args),
        #[cfg(unix)]
        Command::Nstat(args) => tools::nstat(&args),
        #[cfg(unix)]
        Command::Monitor(args) => tools::monitor(&args),
        #[cfg(unix)]
        Command::Top(args) => tools::top(&args),
        #[cfg(unix)]
        Command::Endpoint(args) => tools::endpoint(&args),
        #[cfg(unix)]
        Command::Limits(args) => tools::limits(&args),
        #[cfg(unix)]
        Command::Path(args) => tools::path(&args),
        #[cfg(unix)]
        Command::Subflow(args) => tools::subflow(&args),
        #[cfg(unix)]
        Command::Set(args) => tools::set(&args),
        #[cfg(not(unix))]
        Command::Ss(_)
        | Command::Nstat(_)
        | Command::Monitor(_)
        | Command::Top(_)
        | Command::Endpoint(_)
        | Command::Limits(_)
        | Command::Path(_)
        | Command::Subflow(_)
        | Command::Set(_) => Err(Class::Host.failure("there are no control sockets on this system").into()),
        Command::CleanUp(_) => clean_up::run(),
        Command::Completions(args) => generate::completions(command(registry), args.shell),
        Command::Man(args) => generate::man(command(registry), args.dir.as_deref()),
        Command::Demo(args) => demo::run(&args, registry),
    };
    result.map(|()| 0)
}
