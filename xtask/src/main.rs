//! Project tasks, run as `cargo xtask TASK`.

mod bench;
mod book;
mod by_example;
mod cli_reference;
mod conformance;
mod dependencies;
mod digest;
mod figures;
mod fuzz;
mod go;
mod instructions;
mod modules;
mod mutants;
mod no_std;
mod portable;
mod schemata;
mod scratch;
mod soak;
mod test;
mod tools;
mod uneven;

use clap::{Parser, Subcommand};

/// Tasks of the umptcp project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every test: unit tests, simulations, and the end-to-end tests in network namespaces.
    Test(test::Options),
    /// Measure the project's figures beside the kernel's MPTCP and print a table.
    Bench(bench::Options),
    /// The server of `bench --only relay-many`, in a process of its own.
    #[command(hide = true)]
    RelayManyServer(bench::relay_many::Serve),
    /// Run the fuzz targets for a bounded time: with cargo-fuzz where it is installed, else over random
    /// mutations.
    Fuzz(fuzz::Options),
    /// Build the book with mdbook and check its links.
    Book,
    /// Check licences, versions and sources of the dependencies.
    Dependencies,
    /// Check the dependencies against the RustSec advisory database, which is fetched from the network.
    Advisories,
    /// Build the `no_std` crates and check that nothing in them needs the standard library.
    NoStd,
    /// Build the program without calls that only Linux has, check that it has none, and test it.
    Portable(portable::Options),
    /// Check that no crate has a circle of modules, and that layers use only those below them.
    Modules(modules::Options),
    /// Generate the book's pages on conformance to RFC 8684, RFC 9293 and others, or check that they and their source are right.
    Conformance(conformance::Options),
    /// Change the protocol's code at random with cargo-mutants, and see whether a test notices.
    Mutants(mutants::Options),
    /// Compare every packet and event of simulations and property tests with what is stored: a refactoring
    /// changes none.
    Digest(digest::Options),
    /// Let paths, addresses and boxes come and go at random for hours of virtual time, and check that every
    /// usable path carries data again soon.
    Soak(soak::Options),
    /// Compare two paths that are not alike with the better one alone, in virtual time: the paths of the paper on
    /// opportunistic retransmission, and random ones.
    Uneven(uneven::Options),
    /// Generate the book's command-line reference, or check that it is up to date.
    CliReference(cli_reference::Options),
    /// Generate the book's pages "RFC 8684 by example" from runs of the examples, or check that they are up to date.
    ByExample(by_example::Options),
    /// Count the instructions per packet of two stacks in memory, with callgrind.
    Instructions(instructions::Options),
    /// Run the shipped scenarios in full and make the book's chapter on congestion control.
    Figures(figures::Options),
    /// Build and run the example crate with an algorithm and a scheduler of its own.
    OwnAlgorithm,
    /// Install the programs that tests and checks need: Debian packages (as root; otherwise those missing are
    /// named), mdbook, cargo-deny and cargo-mutants.
    Tools,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::RelayManyServer(options) => bench::relay_many::serve(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Book => book::run(),
        Task::Dependencies => dependencies::check(),
        Task::Advisories => dependencies::advisories(),
        Task::NoStd => no_std::run(),
        Task::Portable(options) => portable::run(&options),
        Task::Modules(options) => modules::run(&options),
        Task::Conformance(options) => conformance::run(&options),
        Task::Mutants(options) => mutants::run(&options),
        Task::Digest(options) => digest::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Uneven(options) => uneven::run(&options),
        Task::CliReference(options) => cli_reference::run(&options),
        Task::ByExample(options) => by_example::run(&options),
        Task::Instructions(options) => instructions::run(&options),
        Task::Figures(options) => figures::run(&options),
        Task::OwnAlgorithm => figures::own_algorithm(),
        Task::Tools => {
            tools::require(tools::END_TO_END)?;
            go::install()?;
            tools::MDBOOK.install()?;
            tools::CARGO_DENY.install()?;
            tools::CARGO_MUTANTS.install()
        }
    }
}
