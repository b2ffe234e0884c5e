//! Durations and sizes with their units.

use thalweg_engine::time::DURATION_UNITS;

const SIZES: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// A duration in microseconds: `10s`, `1h 30m`, `1.5s`, `250ms`, `0`.
///
/// # Errors
/// What was expected.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let expected =
        || "expected a duration such as `250ms`, `10s`, `1h 30m` (units us, ms, s, m, h, d)".to_string();
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest).ok_or_else(expected)?;
        let (_, micros) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
        let amount = scaled(number, *micros as u64).and_then(|amount| i64::try_from(amount).ok());
        total = amount
            .and_then(|amount| total.checked_add(amount))
            .ok_or_else(|| "the duration is too long".to_string())?;
        rest = after.trim_start();
    }
    if text.trim().is_empty() { Err(expected()) } else { Ok(total) }
}

/// A size in bytes: `512MiB`, `1.5GiB`, `64kB`, `1000B`.
///
/// # Errors
/// What was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected =
        || "expected a size such as `512MiB` or `2GiB` (units B, kB, MB, GB, KiB, MiB, GiB)".to_string();
    let (number, unit, after) = number_and_unit(text.trim()).ok_or_else(expected)?;
    let unit = unit.to_ascii_lowercase();
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
    if !after.is_empty() {
        return Err(expected());
    }
    scaled(number, *bytes).ok_or_else(|| "the size is too large".to_string())
}

/// Splits `12.5ms rest` into number, unit and rest. A unit is needed: a bare number has none.
fn number_and_unit(text: &str) -> Option<(&str, &str, &str)> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
    let (number, rest) = text.split_at(number_end);
    let rest = rest.trim_start();
    let unit_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(unit_end);
    (!unit.is_empty()).then_some((number, unit, after))
}

/// `number * unit`, exactly for whole numbers.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(unit),
        Some((whole, fraction)) => {
            let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
            let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=9).contains(digits))?;
            let fraction = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / 10_u128.pow(digits);
            whole.checked_mul(unit)?.checked_add(u64::try_from(fraction).ok()?)
        }
    }
}

/// A size for people: exact in the largest binary unit that divides it, else one decimal.
pub fn show_bytes(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size {
            return if bytes.is_multiple_of(size) {
                format!("{} {unit}", bytes / size)
            } else {
                format!("{:.1} {unit}", bytes as f64 / size as f64)
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use thalweg_engine::time::show_duration;

    use super::*;

    #[test]
    fn durations_have_units_and_add_up() {
        assert_eq!(parse_duration("10s"), Ok(10_000_000));
        assert_eq!(parse_duration("1h 30m"), Ok(5_400_000_000));
        assert_eq!(parse_duration("1h30m"), Ok(5_400_000_000));
        assert_eq!(parse_duration("1.5s"), Ok(1_500_000));
        assert_eq!(parse_duration("250 ms"), Ok(250_000));
        assert_eq!(parse_duration("0"), Ok(0));
        for wrong in ["", "10", "s", "10 parsecs", "-1s", "1.s", "1..5s", "1s,"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        assert!(parse_duration("99999999999999d").unwrap_err().contains("too long"));
    }

    #[test]
    fn sizes_have_units_whatever_their_case() {
        assert_eq!(parse_bytes("1GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("1.5 gib"), Ok(3 << 29));
        assert_eq!(parse_bytes("64kB"), Ok(64_000));
        for wrong in ["", "1", "GiB", "1GiB 2", "1 zb"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_parses_back() {
        for micros in [1, 999, 1_500_000, 5_400_000_000, 86_400_000_001] {
            assert_eq!(parse_duration(&show_duration(micros)), Ok(micros));
        }
        assert_eq!(show_bytes(1 << 30), "1 GiB");
        assert_eq!(show_bytes(1_600_000), "1.5 MiB");
    }
}
