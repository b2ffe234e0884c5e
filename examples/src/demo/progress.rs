//! The child's live progress, as lines that people read and the parent understands.

use thalweg::engine::metrics::Registry;

use super::CLUSTERS;

/// What the parent steers by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows read since this process started.
    pub rows_in: i64,
    /// The newest checkpoint.
    pub checkpoint: i64,
}

/// Makes a line of a job's metrics, given those of `seconds` ago.
pub fn line(metrics: &Registry, before: &mut (i64, i64), seconds: f64) -> String {
    let of = |name: &str, uid: &str| -> i64 {
        let series = metrics.series(name);
        let own =
            series.iter().filter(|(labels, _)| labels.iter().any(|(k, v)| *k == "uid" && v.starts_with(uid)));
        own.map(|(_, value)| *value).sum()
    };
    let (rows_in, rows_out) = (of("rows_out_total", "flights"), of("rows_in_total", "to-"));
    let rate = |now: i64, then: i64| ((now - then) as f64 / seconds).round() as i64;
    let (in_rate, out_rate) = (rate(rows_in, before.0), rate(rows_out, before.1));
    *before = (rows_in, rows_out);
    let lags: Vec<_> =
        CLUSTERS.iter().map(|cluster| format!("{cluster} {}", lag(metrics, cluster))).collect();
    let checkpoint = metrics.total("last_checkpoint");
    let state = metrics.total("state_store_bytes") + metrics.total("state_cache_bytes");
    format!(
        "rows in {rows_in} ({in_rate}/s), out {rows_out} ({out_rate}/s) | lag {} | watermark {} | checkpoint {checkpoint} | state {} KiB",
        lags.join(", "),
        watermark(metrics),
        state / 1024,
    )
}

fn lag(metrics: &Registry, cluster: &str) -> i64 {
    let series = metrics.series("kafka_lag_records");
    let own = series.iter().filter(|(labels, _)| labels.iter().any(|(k, v)| *k == "cluster" && v == cluster));
    own.map(|(_, value)| *value).sum()
}

fn watermark(metrics: &Registry) -> String {
    let series = metrics.series("watermark_us");
    let sources =
        series.iter().filter(|(labels, _)| labels.iter().any(|(k, v)| *k == "uid" && v == "flights"));
    match sources.map(|(_, value)| *value).min() {
        None | Some(0) => "none".to_string(),
        Some(i64::MAX) => "end".to_string(),
        Some(micros) => day_and_hour(micros),
    }
}

/// The data is of January 2013: its days are days since its first.
fn day_and_hour(micros: i64) -> String {
    let hours = micros.div_euclid(3_600_000_000) - 1_356_998_400 / 3_600;
    format!("day {} {:02}h", hours.div_euclid(24) + 1, hours.rem_euclid(24))
}

/// Reads a line back.
pub fn parse(line: &str) -> Option<Progress> {
    let number = |after: &str| {
        let rest = &line[line.find(after)? + after.len()..];
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Some(Progress { rows_in: number("rows in ")?, checkpoint: number("checkpoint ")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back() {
        let mut before = (0, 0);
        let metrics = Registry::default();
        let group = metrics.group(vec![("uid", "flights".into())]);
        group.counter("rows_out_total", "Rows.").add(1_234);
        group.gauge("last_checkpoint", "Newest.").set(7);
        group.gauge("watermark_us", "Time.").set((1_356_998_400 + 25 * 3_600) * 1_000_000);
        let line = line(&metrics, &mut before, 0.5);
        assert_eq!(parse(&line), Some(Progress { rows_in: 1_234, checkpoint: 7 }), "{line}");
        assert!(line.contains("watermark day 2 01h") && line.contains("(2468/s)"), "{line}");
    }
}
