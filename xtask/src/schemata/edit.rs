//! A piece of a file, and what it is replaced by.

use anyhow::{Result, bail};
use std::ops::Range;

/// A change of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Edit {
    /// The file, from the repository's root.
    pub(crate) file: String,
    /// The bytes that are replaced.
    pub(crate) range: Range<usize>,
    /// What stands there.
    pub(crate) from: String,
    /// By what.
    pub(crate) to: String,
    /// What that is, for people.
    pub(crate) what: String,
}

impl Edit {
    /// The file's text with the change in it.
    ///
    /// # Errors
    /// When the file has changed meanwhile.
    pub(crate) fn apply(&self, text: &str) -> Result<String> {
        if text.get(self.range.clone()) != Some(&self.from) {
            bail!("{} has changed meanwhile: begin anew", self.file);
        }
        Ok(format!("{}{}{}", &text[..self.range.start], self.to, &text[self.range.end..]))
    }
}
