//! What is wrong with a scenario, and where.

use std::fmt;
use std::ops::Range;
use umptcp_netsim::SimError;

/// Why a scenario cannot be run, or what went wrong when it was.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LabError {
    /// The text is wrong.
    Scenario {
        /// Name of the file.
        file: String,
        /// Number of the line, from 1; `None` when it concerns the whole file.
        line: Option<usize>,
        /// What is wrong: names the field.
        message: String,
    },
    /// The simulation found a fault.
    Simulation {
        /// The parameters, as `name=value` with commas between.
        point: String,
        /// The seed.
        seed: u64,
        /// The fault.
        error: SimError,
    },
    /// A run in real time could not be done, or found a fault.
    Emulation {
        /// The parameters, as `name=value` with commas between.
        point: String,
        /// The seed.
        seed: u64,
        /// What it was.
        message: String,
    },
    /// A file cannot be read or written.
    File {
        /// Its name.
        file: String,
        /// Why.
        message: String,
    },
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabError::Scenario { file, line: Some(line), message } => write!(f, "{file}:{line}: {message}"),
            LabError::Scenario { file, line: None, message } => write!(f, "{file}: {message}"),
            LabError::Simulation { point, seed, error } if point.is_empty() => {
                write!(f, "seed {seed}: {error}")
            }
            LabError::Simulation { point, seed, error } => write!(f, "{point}, seed {seed}: {error}"),
            LabError::Emulation { point, seed, message } => write!(f, "{point}, seed {seed}: {message}"),
            LabError::File { file, message } => write!(f, "{file}: {message}"),
        }
    }
}

impl std::error::Error for LabError {}

/// The text of a TOML file, to say where something stands in it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Name of the file, for errors.
    pub file: &'a str,
    /// All of it.
    pub text: &'a str,
}

impl Source<'_> {
    /// An error about what stands at `span`.
    pub fn at(&self, span: Range<usize>, message: impl Into<String>) -> LabError {
        let line = self.text.get(..span.start).map(|before| before.matches('\n').count() + 1);
        LabError::Scenario { file: self.file.to_string(), line, message: message.into() }
    }

    /// An error about the whole file.
    pub fn whole(&self, message: impl Into<String>) -> LabError {
        LabError::Scenario { file: self.file.to_string(), line: None, message: message.into() }
    }

    /// What the parser says: its message, and the line that it quotes.
    pub fn parser(&self, error: &toml::de::Error) -> LabError {
        let line = error.span().and_then(|s| self.text.get(..s.start)).map(|t| t.matches('\n').count() + 1);
        let quoted = line.and_then(|n| self.text.lines().nth(n - 1)).map(str::trim).unwrap_or_default();
        let mut message = error.message().trim().to_string();
        if let Some(meant) = meant(&message) {
            message = format!("{message}; did you mean `{meant}`?");
        }
        if !quoted.is_empty() {
            message = format!("{message}\n  in: {quoted}");
        }
        LabError::Scenario { file: self.file.to_string(), line, message }
    }
}

/// The known name nearest to the unknown one, when the parser's message is about such: both stand between
/// backticks, the unknown one first.
fn meant(message: &str) -> Option<&str> {
    let mut names = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    let near = names.map(|name| (strsim::normalized_damerau_levenshtein(unknown, name), name));
    near.filter(|(nearness, _)| *nearness > 0.5).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let message =
            |unknown: &str| format!("unknown field `{unknown}`, expected one of `delay`, `rate`, `queue`");
        assert_eq!(meant(&message("dealy")), Some("delay"));
        assert_eq!(meant(&message("rates")), Some("rate"));
        assert_eq!(meant(&message("colour")), None);
        assert_eq!(meant("invalid type: `delay`, expected `dela`"), None);
    }
}
