//! Calendar months.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A month of the calendar, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Month(u32);

impl Month {
    /// A clock that shows an earlier month has not been set: hosts without a battery begin in 1970.
    pub(super) const PLAUSIBLE: Month = Month(2025 * 12);

    pub(super) fn now() -> Month {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Month::of_unix_time(seconds)
    }

    fn of_unix_time(seconds: u64) -> Month {
        // Days from civil dates, counted from 1 March of year 0, in eras of 400 years (Howard Hinnant, "chrono-Compatible
        // Low-Level Date Algorithms").
        let day = seconds / 86_400 + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // From March.
        let month = (5 * day + 2) / 153;
        Month(u32::try_from((era * 400 + year) * 12 + month + 2).unwrap_or(u32::MAX))
    }

    /// Reads `2026-11`.
    pub(super) fn parse(text: &str) -> Option<Month> {
        let (year, month) = text.split_once('-')?;
        let (year, month): (u32, u32) = (year.parse().ok()?, month.parse().ok()?);
        let fits = year <= 9999 && (1..=12).contains(&month);
        fits.then(|| Month(year * 12 + month - 1))
    }

    /// The one after it.
    pub(super) fn next(self) -> Month {
        Month(self.0.saturating_add(1))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_when_they_do() {
        for (seconds, month) in [
            (0, "1970-01"),
            (31 * 86_400 - 1, "1970-01"),
            (31 * 86_400, "1970-02"),
            (951_782_400, "2000-02"),
            (951_868_799, "2000-02"),
            (951_868_800, "2000-03"),
            (1_796_083_199, "2026-11"),
            (1_796_083_200, "2026-12"),
            (1_798_761_599, "2026-12"),
            (1_798_761_600, "2027-01"),
            (4_107_542_399, "2100-02"),
            (4_107_542_400, "2100-03"),
        ] {
            assert_eq!(Month::of_unix_time(seconds).to_string(), month, "{seconds}");
            assert_eq!(Month::parse(month), Some(Month::of_unix_time(seconds)));
        }
        assert_eq!(Month::parse("2026-12").unwrap().next().to_string(), "2027-01");
        for bad in ["", "2026", "2026-0", "2026-13", "-1-2", "99999999999-01", "2026-x"] {
            assert_eq!(Month::parse(bad), None, "{bad}");
        }
    }
}
