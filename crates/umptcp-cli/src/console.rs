//! Output for people. A closed pipe or terminal (`| head`) must not make the program panic, as `println!`
//! would.

use anyhow::Context as _;
use std::io;

/// Prints a line on standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write(io::stdout().lock(), text).context("cannot write to standard output")
}

/// Prints a line on standard error. Ignores errors: nobody could read about them.
pub(crate) fn say(text: &str) {
    let _ = write(io::stderr().lock(), text);
}

/// Whether the user's environment allows colours (<https://no-color.org>).
pub(crate) fn colours_allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An error with its causes in one line. Causes that the error already quotes are not repeated.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let texts: Vec<String> = error.chain().map(ToString::to_string).collect();
    let quoted = |at: usize| {
        texts.iter().enumerate().any(|(other, text)| {
            // Of equal texts, keep the first.
            other != at && text.contains(&texts[at]) && (text.len() > texts[at].len() || other < at)
        })
    };
    let told: Vec<&str> = (0..texts.len()).filter(|at| !quoted(*at)).map(|at| texts[at].as_str()).collect();
    told.join(": ")
}

fn write(mut to: impl io::Write, text: &str) -> io::Result<()> {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    to.write_all(line.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn causes_are_told_once() {
        let plain = anyhow!("no route").context("connecting");
        assert_eq!(describe(&plain), "connecting: no route");
        let quoting =
            anyhow!("no route").context("cannot connect to a: no route").context("cannot connect to a");
        assert_eq!(describe(&quoting), "cannot connect to a: no route");
        let twice = anyhow!("stopped").context("stopped").context("closing");
        assert_eq!(describe(&twice), "closing: stopped");
    }
}
