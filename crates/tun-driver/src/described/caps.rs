//! How much a path may carry.

use std::fmt;
use umptcp_types::units::SIZES;

/// How much a path may carry: bytes of IP packets in both directions together, headers and what is sent again
/// included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Caps {
    /// In a calendar month, counted for the NIC, by all who keep count on this host.
    pub month: Option<u64>,
    /// For each connection.
    pub connection: Option<u64>,
}

impl Caps {
    /// Takes one of `SIZE/month` and `SIZE/connection`.
    pub(super) fn read(&mut self, text: &str) -> Result<(), String> {
        let expected = || {
            format!(
                "cap={text}: write a size and what it is for, such as cap=10GB/month or cap=50MB/connection"
            )
        };
        let (size, scope) = text.split_once('/').ok_or_else(expected)?;
        let bytes = parse_size(size.trim()).ok_or_else(expected)?;
        let cap = match scope.trim() {
            "month" => &mut self.month,
            "connection" => &mut self.connection,
            _ => return Err(expected()),
        };
        match cap.replace(bytes) {
            Some(_) => Err(format!("cap=.../{} is given twice", scope.trim())),
            None => Ok(()),
        }
    }

    /// As options: `cap=10GB/month`.
    pub(super) fn words(&self) -> impl Iterator<Item = String> {
        let Caps { month, connection } = *self;
        let one = |(cap, scope): (Option<u64>, &str)| Some(format!("cap={}/{scope}", Size(cap?)));
        [(month, "month"), (connection, "connection")].into_iter().filter_map(one)
    }
}

/// A whole number of bytes, at least 1, with a unit; the number may have a fraction.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    // Up to a billionth, which is exact for every unit of 1000.
    let fraction =
        Some(fraction).filter(|f| (1..=9).contains(&f.len()) && f.bytes().all(|b| b.is_ascii_digit()))?;
    let billionths: u64 = format!("{fraction:0<9}").parse().ok()?;
    let part = u128::from(billionths) * u128::from(factor) / 1_000_000_000;
    let bytes = whole.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?)?;
    (bytes > 0).then_some(bytes)
}

/// A size with the largest unit that leaves it whole.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = SIZES.iter().filter(|(_, factor)| self.0.is_multiple_of(*factor));
        let (name, factor) = fits.max_by_key(|(_, factor)| *factor).copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(texts: &[&str]) -> Result<Caps, String> {
        let mut caps = Caps::default();
        texts.iter().try_for_each(|text| caps.read(text)).map(|()| caps)
    }

    #[test]
    fn sizes_are_exact() {
        for (text, bytes) in [
            ("1B", Some(1)),
            ("10GB", Some(10_000_000_000)),
            ("10 gb", Some(10_000_000_000)),
            ("1.5GB", Some(1_500_000_000)),
            ("0.000000001GB", Some(1)),
            ("2MiB", Some(2 << 20)),
            ("0.5KiB", Some(512)),
            ("0B", None),
            ("10", None),
            ("GB", None),
            ("-1GB", None),
            ("1.GB", None),
            ("1.2.3GB", None),
            ("1e9B", None),
            ("99999999999TB", None),
            ("", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for texts in [&["10GB/month"][..], &["1500MB/month", "64KiB/connection"], &["1B/connection"], &[]] {
            let read = caps(texts).unwrap();
            let expected: Vec<String> = texts.iter().map(|t| format!("cap={t}")).collect();
            assert_eq!(read.words().collect::<Vec<_>>(), expected);
        }
        assert_eq!(caps(&["1MB/month"]), Ok(Caps { month: Some(1_000_000), connection: None }));
    }

    #[test]
    fn refuses_with_a_reason() {
        for (texts, reason) in [
            (&["10GB"][..], "cap=10GB/month"),
            (&["10GB/day"], "write a size and what it is for"),
            (&["much/month"], "write a size and what it is for"),
            (&["1GB/month", "2GB/month"], "cap=.../month is given twice"),
        ] {
            let error = caps(texts).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
