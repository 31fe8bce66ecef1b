//! Keys, clients' names, and the files that have them.
//!
//! A file has one client a line: its name, a space, and its key, 64 hexadecimal digits. Empty lines, and lines
//! that begin with `#`, mean nothing. The relay's file has all clients, a client's file just its own line.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Longest name of a client, in bytes: with it, a request fits a SYN.
pub const LONGEST_NAME: usize = 32;

/// Length of a key, in bytes.
pub const KEY: usize = 32;

/// Most clients in a file.
pub const MOST_CLIENTS: usize = 10_000;

/// Whether everybody on this host may read a file with keys, by its mode. Its group may: services have one.
#[cfg(unix)]
pub fn is_open_to_all(file: &std::fs::File) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(file.metadata()?.permissions().mode() & 0o007 != 0)
}

/// The name of a client: letters, digits, '-', '_' and '.'.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClientName(String);

impl ClientName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientName {
    type Err = KeyFileError;

    fn from_str(text: &str) -> Result<Self, KeyFileError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(fits) {
            return Err(KeyFileError::Name { name: text.chars().take(2 * LONGEST_NAME).collect() });
        }
        Ok(ClientName(text.to_owned()))
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key that a client and a relay share.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY]);

impl Key {
    /// A new one, by the system's randomness.
    ///
    /// # Errors
    /// When the system has none.
    pub fn generate() -> Result<Key, getrandom::Error> {
        let mut bytes = [0; KEY];
        getrandom::fill(&mut bytes)?;
        Ok(Key(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }

    /// As a file has it. Whoever sees it can use it.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<[u8; KEY]> for Key {
    fn from(bytes: [u8; KEY]) -> Key {
        Key(bytes)
    }
}

impl fmt::Debug for Key {
    /// Says nothing of it: logs are read by others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl FromStr for Key {
    type Err = KeyFileError;

    fn from_str(text: &str) -> Result<Self, KeyFileError> {
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        let digits = digits.filter(|digits| digits.len() == 2 * KEY).ok_or(KeyFileError::Key)?;
        let mut bytes = [0; KEY];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Key(bytes))
    }
}

/// A client and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    /// Who it is.
    pub client: ClientName,
    /// What it shares with the relay.
    pub key: Key,
}

impl Credential {
    /// Its line in a file, without an end of line.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.client, self.key.to_hex())
    }

    /// All that a file has.
    ///
    /// # Errors
    /// With the number of the line: what is none, and what is there twice.
    pub fn read_all(text: &str) -> Result<Vec<Credential>, KeyFileError> {
        let mut all: Vec<Credential> = Vec::new();
        let mut names = std::collections::HashSet::new();
        for (i, line) in text.lines().enumerate() {
            let at = |source: KeyFileError| KeyFileError::Line { line: i + 1, source: Box::new(source) };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, key] = words[..] else { return Err(at(KeyFileError::Words)) };
            let credential = Credential { client: name.parse().map_err(at)?, key: key.parse().map_err(at)? };
            if !names.insert(credential.client.clone()) {
                return Err(at(KeyFileError::Twice(credential.client)));
            }
            if all.len() == MOST_CLIENTS {
                return Err(at(KeyFileError::TooMany));
            }
            all.push(credential);
        }
        Ok(all)
    }

    /// The only one of a client's file.
    ///
    /// # Errors
    /// As [`read_all`](Self::read_all), and when there are none or several.
    pub fn read_one(text: &str) -> Result<Credential, KeyFileError> {
        let all = Credential::read_all(text)?;
        let count = all.len();
        let [one] = <[Credential; 1]>::try_from(all).map_err(|_| KeyFileError::NotOne(count))?;
        Ok(one)
    }
}

/// What is wrong with a file of keys.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// A line is wrong.
    #[error("line {line}: {source}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        source: Box<KeyFileError>,
    },
    /// Not two words.
    #[error("expected the name of a client and its key, as `umptcp relay key NAME` prints them")]
    Words,
    /// No name of a client.
    #[error("{name:?} is no name of a client: at most 32 letters, digits, '-', '_' and '.'")]
    Name {
        /// What is there instead.
        name: String,
    },
    /// No key.
    #[error("this is no key: expected 64 hexadecimal digits, as `umptcp relay key NAME` prints them")]
    Key,
    /// A client is there twice.
    #[error("the client {0} has a key already")]
    Twice(ClientName),
    /// More than [`MOST_CLIENTS`].
    #[error("too many clients: at most 10000")]
    TooMany,
    /// Not one client.
    #[error("expected the one line of this client, and there are {0}")]
    NotOne(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let credential =
            |name: &str| Credential { client: name.parse().unwrap(), key: Key::generate().unwrap() };
        let all = [credential("laptop"), credential("phone.home_2-x")];
        assert_ne!(all[0].key, all[1].key);
        let text = format!("# mine\n\n{}\n  {}  \n", all[0].to_line(), all[1].to_line());
        assert_eq!(Credential::read_all(&text).unwrap(), all);
        assert_eq!(Credential::read_one(&all[0].to_line()).unwrap(), all[0]);
        assert_eq!(Credential::read_one(&text), Err(KeyFileError::NotOne(2)));
        assert_eq!(Credential::read_one("#\n"), Err(KeyFileError::NotOne(0)));
        let shown = format!("{:?}", all[0]);
        assert!(!shown.contains(&all[0].key.to_hex()[..8]), "{shown}");
    }

    #[test]
    fn mistakes_are_named_with_their_lines() {
        let key = "0123456789abcdefABCDEF0000000000000000000000000000000000000000ff";
        let good = format!("a {key}\n");
        for (second, what) in [
            ("b".to_owned(), "line 2: expected the name"),
            (format!("b {key} c"), "line 2: expected the name"),
            (format!("b/c {key}"), "line 2: \"b/c\" is no name"),
            (format!("{} {key}", "b".repeat(33)), "is no name"),
            (format!("b {}", &key[1..]), "line 2: this is no key"),
            (format!("b {}g", &key[1..]), "line 2: this is no key"),
            (format!("b {}é", &key[2..]), "line 2: this is no key"),
            (format!("a {key}"), "line 2: the client a has a key already"),
        ] {
            let error = Credential::read_all(&format!("{good}{second}\n")).unwrap_err().to_string();
            assert!(error.contains(what), "{second}: {error}");
        }
    }
}
