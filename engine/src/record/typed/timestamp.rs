//! A point in time as a field of a record.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Microseconds since 1970-01-01T00:00:00Z. Its column is [`crate::record::time_type`].
///
/// Adding and subtracting microseconds saturates. Displays as ISO 8601 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest point in time.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The latest point in time.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// `seconds` after the epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Timestamp(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Midnight UTC of a day of the proleptic Gregorian calendar; `month` from 1 to 12, `day`
    /// from 1. By Howard Hinnant's `days_from_civil`.
    pub const fn from_date(year: i64, month: i64, day: i64) -> Self {
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        Timestamp::from_seconds(days.saturating_mul(SECONDS_PER_DAY))
    }
}

impl Add<i64> for Timestamp {
    type Output = Timestamp;

    fn add(self, micros: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(micros))
    }
}

impl Sub<i64> for Timestamp {
    type Output = Timestamp;

    fn sub(self, micros: i64) -> Timestamp {
        Timestamp(self.0.saturating_sub(micros))
    }
}

/// The microseconds between two points in time.
impl Sub<Timestamp> for Timestamp {
    type Output = i64;

    fn sub(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<i64> for Timestamp {
    fn from(micros: i64) -> Self {
        Timestamp(micros)
    }
}

impl From<Timestamp> for i64 {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.div_euclid(MICROS_PER_SECOND), self.0.rem_euclid(MICROS_PER_SECOND));
        let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
        let days = days + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = (shifted_month + 2) % 12 + 1;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if micros > 0 {
            write!(f, ".{micros:06}")?;
        }
        f.write_str("Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days_print_as_they_should() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        let moment = Timestamp::from_date(2013, 1, 31) + (5 * 3600 + 15 * 60) * MICROS_PER_SECOND;
        assert_eq!(moment.0, 1_359_609_300_000_000);
        assert_eq!(moment.to_string(), "2013-01-31T05:15:00Z");
        assert_eq!(Timestamp::from_date(2000, 2, 29).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(Timestamp::from_date(2100, 3, 1) - Timestamp::from_date(2100, 2, 28), 86_400_000_000);
        assert_eq!(Timestamp::MAX + 1, Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn a_date_prints_as_it_was_given(year in 0i64..9999, month in 1i64..=12, day in 1i64..=28) {
            let text = Timestamp::from_date(year, month, day).to_string();
            prop_assert_eq!(text, format!("{year:04}-{month:02}-{day:02}T00:00:00Z"));
        }

        #[test]
        fn no_timestamp_overflows(micros in any::<i64>()) {
            prop_assert!(Timestamp(micros).to_string().ends_with('Z'));
        }
    }
}
