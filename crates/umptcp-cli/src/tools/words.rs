//! Arguments in the manner of `ip`: words, some of which take the next one.

use crate::failure::usage;
use std::fmt::Display;
use std::str::FromStr;

/// The words of a command.
pub(super) struct Words<'a> {
    words: std::slice::Iter<'a, String>,
}

impl<'a> Words<'a> {
    pub(super) fn new(words: &'a [String]) -> Words<'a> {
        Words { words: words.iter() }
    }

    /// The next word.
    pub(super) fn next(&mut self) -> Option<&'a str> {
        self.words.next().map(String::as_str)
    }

    /// The number that follows `word`, from 1 to `most`.
    pub(super) fn number<T: Into<u32> + TryFrom<u32>>(&mut self, word: &str, most: T) -> anyhow::Result<T> {
        let text = self.next().ok_or_else(|| usage(format!("{word:?} needs a value")))?;
        let most = most.into();
        let number = text.parse::<u32>().ok().filter(|n| (1..=most).contains(n));
        let number = number.and_then(|n| T::try_from(n).ok());
        number.ok_or_else(|| usage(format!("{word} {text}: it must be a number from 1 to {most}")))
    }

    /// What follows `word`.
    pub(super) fn value<T: FromStr>(&mut self, word: &str) -> anyhow::Result<T>
    where
        T::Err: Display,
    {
        let text = self.next().ok_or_else(|| usage(format!("{word:?} needs a value")))?;
        text.parse().map_err(|error| usage(format!("{word} {text}: {error}")))
    }
}

/// A word that does not belong here.
pub(super) fn unknown(word: &str, known: &str) -> anyhow::Error {
    usage(format!("unknown word {word:?}; known: {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_values_and_without() {
        let all = ["id", "7", "backup", "port"].map(str::to_owned);
        let mut words = Words::new(&all);
        assert_eq!(words.next(), Some("id"));
        assert_eq!(words.value::<u32>("id").unwrap(), 7);
        assert_eq!(words.next(), Some("backup"));
        assert_eq!(words.next(), Some("port"));
        assert!(words.value::<u16>("port").unwrap_err().to_string().contains("needs a value"));
        let bad = ["x".to_owned()];
        assert!(Words::new(&bad).value::<u32>("id").unwrap_err().to_string().contains("id x"));
    }
}
