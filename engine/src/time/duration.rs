//! Durations for people.

use super::{DAY, HOUR, MILLI, MINUTE, Micros, SECOND};

/// Microseconds per unit, the smallest first.
pub const DURATION_UNITS: [(&str, Micros); 6] =
    [("us", 1), ("ms", MILLI), ("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY)];

/// A duration for people: the fewest units that say it exactly. No two have the same text.
pub fn show_duration(micros: Micros) -> String {
    if micros == 0 {
        return "0s".to_string();
    }
    let mut rest = micros.unsigned_abs();
    let mut parts = Vec::new();
    for (unit, size) in DURATION_UNITS.iter().rev() {
        let size = size.unsigned_abs();
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    format!("{}{}", if micros < 0 { "-" } else { "" }, parts.join(" "))
}
