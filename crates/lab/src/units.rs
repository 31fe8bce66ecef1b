//! Quantities with units: as scenarios write them, `"10 Mbit/s"`, `"40 ms"`, `"64 KiB"`, `"1.5 %"`, and in
//! the short forms of command lines, `64k`, `16Mi`, `10`, `500ms`.

use serde::de::{self, Deserializer, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;
use umptcp_stack_core::config::BufferSize;
use umptcp_types::units::SIZES;

/// Units, and what each is worth.
type Units<T> = [(&'static str, T)];

const TIMES: &Units<f64> =
    &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0)];

/// Buffers are no smaller and no larger.
const LEAST_BUFFER: u64 = 4096;
const MOST_BUFFER: u64 = 1 << 30;

/// A number as text and the unit behind it, without the space between.
fn split(text: &str) -> (String, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '_' | '+' | '-')).unwrap_or(text.len());
    (text[..end].replace('_', ""), text[end..].trim())
}

fn real(text: &str, number: &str) -> Result<f64, String> {
    let value: f64 = number.parse().map_err(|_| format!("{:?} does not start with a number", text.trim()))?;
    if value < 0.0 { Err(format!("{:?} is negative", text.trim())) } else { Ok(value) }
}

fn find<T: Copy>(text: &str, unit: &str, units: &Units<T>, example: &str) -> Result<T, String> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(|| {
        let known: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        let unit = if unit.is_empty() { "no unit".into() } else { format!("the unit {unit:?}") };
        format!("{text:?} has {unit}; write for instance {example:?} (units: {})", known.join(", "))
    })
}

fn scaled(text: &str, units: &Units<f64>, example: &str) -> Result<f64, String> {
    let (number, unit) = split(text);
    Ok(real(text, &number)? * find(text, unit, units, example)?)
}

/// `number` times `factor`: exactly if it is whole. `None`: it is no number, or too large, or a fraction of a
/// byte.
fn count(number: &str, factor: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    // Above 2^53 a fraction means nothing any more.
    (factor > 1 && (0.0..9e15).contains(&value)).then_some(value.round() as u64)
}

/// Bits per second.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    const UNITS: &Units<f64> = &[("bit/s", 1.0), ("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9)];
    match scaled(text, UNITS, "10 Mbit/s")? {
        r if (1.0..=1e15).contains(&r) => Ok(r.round() as u64),
        _ => Err(format!("{text:?} is not a rate between 1 bit/s and 1000000 Gbit/s")),
    }
}

/// A time with its unit.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let seconds = scaled(text, TIMES, "40 ms")?;
    if seconds > 1e8 {
        return Err(format!("{text:?} is longer than three years"));
    }
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// A time as on a command line: seconds when there is no unit, `m` is a minute. `None`: it is not such.
pub fn short_time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let unit = match unit {
        "" => "s",
        "m" => "min",
        unit => unit,
    };
    let seconds = real(text, &number).ok()? * find(text, unit, TIMES, "").ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Bytes with their unit.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    real(text, &number)?;
    let factor = find(text, unit, &SIZES, "64 KiB")?;
    count(&number, factor).ok_or_else(|| format!("{text:?} is not a whole number of bytes, or too many"))
}

/// A buffer that tunes itself, perhaps with a limit of its own, or a number of bytes.
pub(crate) fn buffer(text: &str) -> Result<BufferSize, String> {
    let within = |text: &str| {
        let most = bytes(text)?.clamp(LEAST_BUFFER, MOST_BUFFER);
        usize::try_from(most).map_err(|_| format!("{text:?} is more than this machine can address"))
    };
    match text.trim().strip_prefix("auto") {
        Some("") => Ok(BufferSize::AUTO),
        Some(limit) => Ok(BufferSize::Auto { limit: within(limit.trim())? }),
        None => Ok(BufferSize::Fixed(within(text)?)),
    }
}

/// Bytes as on a command line, `4096`, `64k`, `16Mi`, `1.5GB`: `B` may be left out, and case does not matter.
/// `None`: it is not such.
pub fn short_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let unit = unit.strip_suffix(['B', 'b']).unwrap_or(unit);
    let known = SIZES.iter().find(|(name, _)| name.trim_end_matches('B').eq_ignore_ascii_case(unit));
    count(&number, known?.1)
}

/// A probability: a number from 0 to 1, or a percentage.
pub(crate) fn probability(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text);
    let value = real(text, &number)?;
    let p = match unit {
        "%" => value / 100.0,
        "" => value,
        _ => return Err(format!("{text:?} is not a probability; write for instance \"1 %\" or 0.01")),
    };
    if p > 1.0 {
        return Err(format!("{text:?} is more than 1 (100 %)"));
    }
    Ok(p)
}

/// A value that a scenario writes as text, or as a plain number where that has one meaning only.
pub(crate) trait Quantity: Sized {
    fn parse(text: &str) -> Result<Self, String>;
    /// What is expected, for error messages.
    const EXPECTED: &'static str;
    /// Whether a number without quotes will do.
    const NUMBER: bool = false;
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty) = $parse:expr, $expected:literal, number: $number:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Debug)]
        pub(crate) struct $name(pub(crate) $inner);

        impl Quantity for $name {
            const EXPECTED: &'static str = $expected;
            const NUMBER: bool = $number;
            fn parse(text: &str) -> Result<Self, String> {
                ($parse)(text).map($name)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(QuantityVisitor(PhantomData))
            }
        }
    };
}

quantity!(
    /// A rate in bits per second.
    Rate(u64) = rate, "a rate such as \"10 Mbit/s\"", number: false
);
quantity!(
    /// A time.
    Time(Duration) = time, "a time such as \"40 ms\"", number: false
);
quantity!(
    /// Bytes.
    Bytes(u64) = bytes, "a size such as \"64 KiB\"", number: false
);
quantity!(
    /// The size of a buffer.
    Buffer(BufferSize) = buffer, "\"auto\", \"auto 32 MiB\" or a size such as \"64 KiB\"", number: false
);
quantity!(
    /// A probability.
    Probability(f64) = probability, "a probability such as \"1 %\" or 0.01", number: true
);
quantity!(
    /// A whole number, which may stand in quotes so that it can be a parameter.
    Count(u32) = |t: &str| t.trim().parse::<u32>().map_err(|_| format!("{t:?} is not a whole number")),
    "a whole number", number: true
);
quantity!(
    /// A real number, which may stand in quotes so that it can be a parameter.
    Real(f64) = |t: &str| t.trim().parse::<f64>().map_err(|_| format!("{t:?} is not a number")),
    "a number", number: true
);

struct QuantityVisitor<Q>(PhantomData<Q>);

impl<Q: Quantity> QuantityVisitor<Q> {
    fn number<E: de::Error>(self, shown: &str) -> Result<Q, E> {
        if Q::NUMBER {
            Q::parse(shown).map_err(E::custom)
        } else {
            Err(E::custom(format!("{shown} has no unit; expected {}", Q::EXPECTED)))
        }
    }
}

impl<Q: Quantity> Visitor<'_> for QuantityVisitor<Q> {
    type Value = Q;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Q::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Q, E> {
        Q::parse(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Q, E> {
        self.number(&value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Q, E> {
        self.number(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Q, E> {
        self.number(&value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_needed_and_understood() {
        assert_eq!(rate("10 Mbit/s"), Ok(10_000_000));
        assert_eq!(rate("1.5Gbit/s"), Ok(1_500_000_000));
        assert_eq!(time("40 ms"), Ok(Duration::from_millis(40)));
        assert_eq!(time("1.5 s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(bytes("64 KiB"), Ok(65_536));
        assert_eq!(buffer("64 KiB"), Ok(BufferSize::Fixed(65_536)));
        assert_eq!(buffer("1 B"), Ok(BufferSize::Fixed(4096)));
        assert_eq!(buffer("auto"), Ok(BufferSize::AUTO));
        assert_eq!(buffer(" auto 32 MiB"), Ok(BufferSize::Auto { limit: 32 << 20 }));
        assert_eq!(probability("1.5 %"), Ok(0.015));
        assert_eq!(probability("0.25"), Ok(0.25));
        for (error, hint) in [
            (rate("10"), "Mbit/s"),
            (rate("10 MB/s"), "Mbit/s"),
            (rate("fast"), "does not start with a number"),
            (rate("-1 Mbit/s"), "negative"),
            (rate("0 bit/s"), "between"),
            (bytes("3 packets"), "KiB"),
        ] {
            assert!(error.as_ref().unwrap_err().contains(hint), "{error:?}");
        }
        for (error, hint) in [("auto 32", "no unit"), ("automatic", "does not start"), ("", "does not start")]
        {
            assert!(buffer(error).unwrap_err().contains(hint), "{error:?}: {:?}", buffer(error));
        }
        assert!(time("1").unwrap_err().contains("no unit"));
        assert!(probability("101 %").unwrap_err().contains("more than 1"));
    }
}
