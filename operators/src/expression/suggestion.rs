//! "Did you mean": the known name that is nearest to one that nobody knows.

/// The candidate nearest to `name`, when it is near enough to be a slip of the hand: at most a
/// third of its letters differ (adjacent swaps count once, case counts nothing). The first of
/// equally near ones wins.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let distance_max = (wanted.chars().count() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let distance = strsim::osa_distance(&wanted, &candidate.to_lowercase());
        if distance <= distance_max && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let known = ["dep_delay", "arr_delay", "carrier"];
        assert_eq!(did_you_mean("dep_dealy", known), Some("dep_delay"));
        assert_eq!(did_you_mean("Carrier", known), Some("carrier"));
        assert_eq!(did_you_mean("tailnum", known), None);
        assert_eq!(did_you_mean("x", ["y"]), Some("y"));
        assert_eq!(did_you_mean("ab", ["yz"]), None);
    }
}
