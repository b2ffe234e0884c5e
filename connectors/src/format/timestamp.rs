//! Timestamps and dates in text: RFC 3339 (ISO 8601's useful part), and epoch numbers.

use arrow::datatypes::TimeUnit;

/// A point in time of any text form, before it is cut to a column's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instant {
    /// Seconds since 1970-01-01T00:00:00Z.
    seconds: i64,
    /// `0..1_000_000_000`.
    nanos: u32,
}

impl Instant {
    /// The value in a column of this unit, rounded down; `None` when it does not fit.
    pub(super) fn in_unit(self, unit: TimeUnit) -> Option<i64> {
        let per_second = units_per_second(unit);
        let part = i64::from(self.nanos) / (units_per_second(TimeUnit::Nanosecond) / per_second);
        self.seconds.checked_mul(per_second)?.checked_add(part)
    }
}

pub(super) const fn units_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// A whole epoch number of unit `from` in unit `to`, rounded down; `None` when it does not fit.
pub(super) fn convert_epoch(value: i64, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    let (from, to) = (units_per_second(from), units_per_second(to));
    if to >= from { value.checked_mul(to / from) } else { Some(value.div_euclid(from / to)) }
}

/// An epoch number with a fraction, of unit `from`, in unit `to`, rounded to the nearest.
pub(super) fn convert_fractional_epoch(value: f64, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    let scaled = (value * (units_per_second(to) as f64 / units_per_second(from) as f64)).round();
    // 2^63 as f64: the first value above what i64 holds.
    (scaled.abs() < 9_223_372_036_854_775_808.0).then_some(scaled as i64)
}

/// Reads `2013-01-01T05:15:00.25Z`, also with a space for the `T`, an offset (`+01:00`, `+0100`,
/// `+01`), without seconds, without a fraction, without an offset (then UTC), or a bare date.
pub(super) fn parse_instant(text: &str) -> Option<Instant> {
    let bytes = text.as_bytes();
    let days = i64::from(parse_date_prefix(bytes)?);
    let mut seconds = days * 86_400;
    let mut nanos = 0;
    let mut rest = &bytes[10..];
    if rest.is_empty() {
        return Some(Instant { seconds, nanos });
    }
    if !matches!(rest[0], b'T' | b't' | b' ') {
        return None;
    }
    seconds += two_digits(rest, 1, 23)? * 3_600 + two_digits_after_colon(rest, 3, 59)? * 60;
    rest = &rest[6..];
    if rest.first() == Some(&b':') {
        seconds += two_digits_after_colon(rest, 0, 59)?;
        rest = &rest[3..];
        if matches!(rest.first(), Some(b'.' | b',')) {
            (nanos, rest) = parse_fraction(&rest[1..])?;
        }
    }
    Some(Instant { seconds: seconds - parse_offset(rest)?, nanos })
}

/// Reads `2013-01-01` as days since 1970-01-01.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    if text.len() == 10 { parse_date_prefix(text.as_bytes()) } else { None }
}

fn parse_date_prefix(bytes: &[u8]) -> Option<i32> {
    if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return None;
    }
    let year = two_digits(bytes, 0, 99)? * 100 + two_digits(bytes, 2, 99)?;
    let (month, day) = (two_digits(bytes, 5, 12)?, two_digits(bytes, 8, 31)?);
    if month == 0 || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    i32::try_from(days_from_civil(year, month, day)).ok()
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, by counting years from March, so
/// that the leap day is the last one (Howard Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn two_digits(bytes: &[u8], at: usize, max: i64) -> Option<i64> {
    let digit = |at: usize| bytes.get(at).filter(|b| b.is_ascii_digit()).map(|b| i64::from(b - b'0'));
    Some(digit(at)? * 10 + digit(at + 1)?).filter(|value| *value <= max)
}

fn two_digits_after_colon(bytes: &[u8], at: usize, max: i64) -> Option<i64> {
    if bytes.get(at) == Some(&b':') { two_digits(bytes, at + 1, max) } else { None }
}

/// Digits after the point: nanoseconds (more digits are cut), and what follows.
fn parse_fraction(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let shown = digits.min(9);
    let value = bytes[..shown].iter().fold(0, |value, b| value * 10 + u32::from(b - b'0'));
    Some((value * 10_u32.pow(9 - shown as u32), &bytes[digits..]))
}

/// Seconds east of UTC.
fn parse_offset(bytes: &[u8]) -> Option<i64> {
    let sign = match bytes {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let hours = two_digits(bytes, 1, 23)?;
    let minutes = match bytes.len() {
        3 => 0,
        5 => two_digits(bytes, 3, 59)?,
        6 => two_digits_after_colon(bytes, 3, 59)?,
        _ => return None,
    };
    Some(sign * (hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> Option<i64> {
        parse_instant(text)?.in_unit(TimeUnit::Microsecond)
    }

    #[test]
    fn what_rfc_3339_allows_is_read_and_what_it_does_not_is_refused() {
        let noon = 1_357_041_600_000_000; // 2013-01-01T12:00:00Z
        for text in [
            "2013-01-01T12:00:00Z",
            "2013-01-01 12:00",
            "2013-01-01T13:00:00+01:00",
            "2013-01-01T07:00:00.0-0500",
            "2013-01-01T14:00:00+02",
        ] {
            assert_eq!(micros(text), Some(noon), "{text}");
        }
        assert_eq!(micros("2013-01-01T12:00:00.0000019Z"), Some(noon + 1));
        assert_eq!(micros("1969-12-31T23:59:59.999999Z"), Some(-1));
        assert_eq!(micros("2000-02-29"), Some(951_782_400_000_000));
        for text in [
            "",
            "2013",
            "2013-02-29",
            "2013-13-01",
            "2013-01-01T24:00:00Z",
            "2013-01-01T12",
            "2013-01-01T12:00:00.Z",
            "2013-01-01T12:00:00 UTC",
            "2013-01-01X12:00",
            "2013-01-01T12:00:00Zx",
            "0x13-01-01",
        ] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

    #[test]
    fn dates_agree_with_arrow_over_four_centuries() {
        use arrow::compute::kernels::cast_utils::Parser;
        use arrow::datatypes::Date32Type;
        for year in (1_i32..=2400).step_by(7) {
            for (month, day) in [(1, 1), (2, 28), (3, 1), (12, 31)] {
                let text = format!("{year:04}-{month:02}-{day:02}");
                assert_eq!(parse_date(&text), Date32Type::parse(&text), "{text}");
            }
        }
    }

    #[test]
    fn epoch_numbers_change_units() {
        use TimeUnit::*;
        assert_eq!(convert_epoch(1_500, Millisecond, Microsecond), Some(1_500_000));
        assert_eq!(convert_epoch(-1, Millisecond, Second), Some(-1));
        assert_eq!(convert_epoch(i64::MAX, Second, Microsecond), None);
        assert_eq!(convert_fractional_epoch(1.25, Second, Microsecond), Some(1_250_000));
        assert_eq!(convert_fractional_epoch(1e300, Second, Microsecond), None);
    }
}
