//! What a snapshot says about a columnar state, held against what the job says.

/// How what a handle says of its state compares with the job's.
pub(super) enum MetaComparison {
    Same,
    /// The same but for `describe_timers`.
    OtherTimers,
    Other,
}

pub(super) fn compare_meta(held: &str, own: &str, timers: &str) -> MetaComparison {
    if held == own {
        return MetaComparison::Same;
    }
    let around = own.split_once(timers).filter(|_| !timers.is_empty());
    let other = around.and_then(|(before, after)| held.strip_prefix(before)?.strip_suffix(after));
    // Of the same form, and not some more of what stands around it.
    let form = |text: &str| text.trim_end_matches(|c: char| c.is_ascii_digit()).to_string();
    match other {
        Some(other) if form(other) == form(timers) => MetaComparison::OtherTimers,
        _ => MetaComparison::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_of_the_timers_may_be_another() {
        let own = "key []; windows of 10 us, lateness 10 us: count";
        let compared = |held: &str, timers: &str| match compare_meta(held, own, timers) {
            MetaComparison::Same => "same",
            MetaComparison::OtherTimers => "other timers",
            MetaComparison::Other => "other",
        };
        assert_eq!(compared(own, "lateness 10"), "same");
        assert_eq!(compared("key []; windows of 10 us, lateness 7 us: count", "lateness 10"), "other timers");
        assert_eq!(compared("key []; windows of 10 us, lateness 7 us: count", ""), "other");
        for other in [
            "key []; windows of 20 us, lateness 10 us: count",
            "key []; windows of 10 us, lateness 7 us: count, sum",
            "key []; windows of 10 us, offset 3, lateness 7 us: count",
            "key []; windows of 10 us, lateness 7 us, offset 3 us: count",
        ] {
            assert_eq!(compared(other, "lateness 10"), "other", "{other}");
        }
    }
}
