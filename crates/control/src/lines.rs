//! Lines of bounded length.

use std::io::{self, BufRead};

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its end.
    Text(Vec<u8>),
    /// More than that many bytes without an end of line.
    TooLong,
    /// The other end has closed; what it had begun is dropped.
    End,
}

/// Reads a line of at most `most` bytes. Never holds more than that.
pub(crate) fn read(from: &mut impl BufRead, most: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    loop {
        let available = match from.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(Line::End);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if line.len() + part.len() > most {
            return Ok(Line::TooLong);
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            return Ok(Line::Text(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn lines_and_what_is_none() {
        let mut from = BufReader::with_capacity(4, &b"one\n\nlonger than that\nhalf"[..]);
        assert_eq!(read(&mut from, 16).unwrap(), Line::Text(b"one".to_vec()));
        assert_eq!(read(&mut from, 16).unwrap(), Line::Text(Vec::new()));
        assert_eq!(read(&mut from, 16).unwrap(), Line::Text(b"longer than that".to_vec()));
        assert_eq!(read(&mut from, 16).unwrap(), Line::End);
        let mut long = BufReader::with_capacity(4, &[b'x'; 17][..]);
        assert_eq!(read(&mut long, 16).unwrap(), Line::TooLong);
    }
}
