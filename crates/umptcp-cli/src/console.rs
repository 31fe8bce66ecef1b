//! Writing for people. A reader who has gone (`| head`, a closed terminal) must not make the program panic, as `println!`
//! would.

use anyhow::Context as _;
use std::io;

/// A line on standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write(io::stdout().lock(), text).context("cannot write to standard output")
}

/// A line on standard error. When nobody can read it, nobody needs it.
pub(crate) fn say(text: &str) {
    let _ = write(io::stderr().lock(), text);
}

fn write(mut to: impl io::Write, text: &str) -> io::Result<()> {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    to.write_all(line.as_bytes())?;
    to.flush()
}
