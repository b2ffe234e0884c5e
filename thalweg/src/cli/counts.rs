//! What a job has counted so far, in words: rows in and out, and every row that is not where one
//! would look for it.

use thalweg_engine::metrics::Registry;

/// Metrics of rows that go no further, or elsewhere, and what they are.
const ASTRAY: [(&str, &str); 8] = [
    ("decode_errors_total", "records not decoded"),
    ("kafka_bad_records_total", "records not decoded"),
    ("kafka_tombstones_dropped_total", "tombstones left out"),
    ("rows_without_time_total", "rows without a time"),
    ("rows_time_out_of_range_total", "rows with a time out of range"),
    ("rows_ahead_total", "rows too far ahead"),
    ("window_late_rows_total", "rows late"),
    ("rows_unread_total", "rows to side outputs that nothing reads"),
];

/// What a job has counted.
pub(super) struct Counts {
    pub(super) read: i64,
    astray: Vec<(i64, &'static str)>,
    written: i64,
}

impl Counts {
    /// Of the job whose sources and sinks have these uids.
    pub(super) fn of(registry: &Registry, sources: &[String], sinks: &[String]) -> Counts {
        let mut astray: Vec<(i64, &'static str)> = Vec::new();
        for (metric, what) in ASTRAY {
            let count = registry.total(metric);
            match astray.iter_mut().find(|(_, known)| *known == what) {
                Some((total, _)) => *total += count,
                None => astray.push((count, what)),
            }
        }
        astray.retain(|(count, _)| *count > 0);
        Counts {
            read: total_of(registry, "rows_out_total", sources),
            astray,
            written: total_of(registry, "rows_in_total", sinks),
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows read", self.read)?;
        for (count, what) in &self.astray {
            write!(f, ", {count} {what}")?;
        }
        write!(f, ", {} rows written", self.written)
    }
}

/// The sum of a metric over these operators.
fn total_of(registry: &Registry, metric: &str, uids: &[String]) -> i64 {
    let of = |labels: &[(&'static str, String)]| {
        labels.iter().any(|(name, value)| *name == "uid" && uids.contains(value))
    };
    registry.series(metric).iter().filter(|(labels, _)| of(labels)).map(|(_, value)| value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_astray_is_told_by_its_kind_and_nothing_of_what_did_not() {
        let registry = Registry::default();
        let uid = |uid: &str| registry.group(vec![("uid", uid.to_string())]);
        uid("in").counter("rows_out_total", ".").add(10);
        uid("out").counter("rows_in_total", ".").add(4);
        let counts = || Counts::of(&registry, &["in".into()], &["out".into()]).to_string();
        assert_eq!(counts(), "10 rows read, 4 rows written");
        uid("in").counter("decode_errors_total", ".").add(1);
        uid("in").counter("kafka_bad_records_total", ".").add(1);
        uid("hourly").counter("window_late_rows_total", ".").add(3);
        uid("hourly").counter("rows_unread_total", ".").add(3);
        let told = "10 rows read, 2 records not decoded, 3 rows late, \
                    3 rows to side outputs that nothing reads, 4 rows written";
        assert_eq!(counts(), told);
    }
}
