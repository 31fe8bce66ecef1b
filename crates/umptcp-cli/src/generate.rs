//! Completion scripts and manual pages, generated from the command line definition.

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use std::io::{self, Write as _};
use std::path::Path;

/// Prints the completion script of `shell`.
pub(crate) fn completions(mut command: Command, shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "umptcp", &mut script);
    print(&script)
}

/// Prints the program's page, or writes the pages of the program and all its commands to `dir`.
pub(crate) fn man(command: Command, dir: Option<&Path>) -> anyhow::Result<()> {
    match dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            print(&page)
        }
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot create the directory {}", dir.display()))?;
            clap_mangen::generate_to(command, dir)
                .with_context(|| format!("cannot write the manual pages to {}", dir.display()))
        }
    }
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}
