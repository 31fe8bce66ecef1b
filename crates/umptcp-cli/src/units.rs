//! Formatting of numbers for people.

/// `bits` per second with three or four significant digits, such as `481.2 Mbit/s`.
pub(crate) fn rate(bits: f64) -> String {
    format!("{} {}", scaled(bits), ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"][step(bits)])
}

/// `bytes` in powers of 1000, such as `1.20 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    match step(value) {
        0 => format!("{bytes} bytes"),
        step => format!("{} {}", scaled(value), ["B", "kB", "MB", "GB", "TB"][step]),
    }
}

/// Nanoseconds, such as `83.4 µs`.
pub(crate) fn nanoseconds(nanos: u64) -> String {
    let value = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{} µs", digits(value / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", digits(value / 1e6)),
        _ => format!("{} s", digits(value / 1e9)),
    }
}

fn step(value: f64) -> usize {
    (1..5).rev().find(|step| value >= 0.9995 * 1000f64.powi(*step as i32)).unwrap_or(0)
}

fn scaled(value: f64) -> String {
    digits(value / 1000f64.powi(step(value) as i32))
}

fn digits(value: f64) -> String {
    if value >= 9.995 { format!("{value:.1}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        assert_eq!(rate(0.0), "0.00 bit/s");
        assert_eq!(rate(481_234_567.0), "481.2 Mbit/s");
        assert_eq!(rate(999_990.0), "1.00 Mbit/s");
        assert_eq!(rate(12_300_000_000.0), "12.3 Gbit/s");
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1_200_000_000), "1.20 GB");
        assert_eq!(nanoseconds(830), "830 ns");
        assert_eq!(nanoseconds(83_400), "83.4 µs");
        assert_eq!(nanoseconds(20_012_345), "20.0 ms");
        assert_eq!(nanoseconds(3_000_000_000), "3.00 s");
    }
}
