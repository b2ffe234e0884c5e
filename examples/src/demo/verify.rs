//! The reader that checks: reads every output of both clusters, drops copies by their ids, and
//! holds what is left against what a plain loop found.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use thalweg::prelude::*;

use super::clusters::Clusters;
use super::{ALERTS, CARRIER_HOURS, CLUSTERS, INCOMPLETE, LATE};
use crate::expected::{CarrierHour, Expected};

/// What came of comparing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Distinct input rows that the results account for.
    pub records_in: usize,
    /// Results, copies dropped.
    pub results_out: usize,
    /// Results that should be there and are not.
    pub lost: usize,
    /// Results that are there more than once.
    pub duplicated: usize,
    /// Results that are there and should not be, or with another value.
    pub wrong: usize,
    /// Copies that the reader dropped by id.
    pub copies: usize,
}

#[derive(Deserialize)]
struct HourRow {
    carrier: String,
    window_start: String,
    flights: i64,
    mean_delay: f64,
    max_delay: i64,
}

#[derive(Deserialize)]
struct AlertRow {
    tailnum: String,
    scheduled: String,
    earlier: String,
}

/// Reads and compares.
///
/// # Errors
/// When an output cannot be read, or a record of it is not as it should be.
pub fn verify(clusters: &Clusters, expected: &Expected) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut hours = BTreeMap::new();
    for row in rows::<HourRow>(clusters, CARRIER_HOURS, &mut verdict)? {
        let found =
            CarrierHour { flights: row.flights, mean_delay: row.mean_delay, max_delay: row.max_delay };
        verdict.records_in += usize::try_from(row.flights).unwrap_or(0);
        hours.entry((row.carrier, micros(&row.window_start)?)).or_insert_with(Vec::new).push(found);
    }
    let same = |a: &CarrierHour, b: &CarrierHour| {
        (a.flights, a.max_delay) == (b.flights, b.max_delay) && (a.mean_delay - b.mean_delay).abs() < 1e-9
    };
    compare(&hours, &expected.hours, same, &mut verdict);
    let mut alerts = BTreeMap::new();
    for row in rows::<AlertRow>(clusters, ALERTS, &mut verdict)? {
        let key = (row.tailnum, micros(&row.scheduled)?);
        alerts.entry(key).or_insert_with(Vec::new).push(micros(&row.earlier)?);
    }
    compare(&alerts, &expected.alerts, |a, b| a == b, &mut verdict);
    let incomplete = rows::<serde_json::Value>(clusters, INCOMPLETE, &mut verdict)?.len();
    verdict.records_in += incomplete;
    verdict.results_out -= incomplete;
    verdict.lost += expected.incomplete.saturating_sub(incomplete);
    verdict.duplicated += incomplete.saturating_sub(expected.incomplete);
    let late = rows::<serde_json::Value>(clusters, LATE, &mut verdict)?.len();
    verdict.records_in += late;
    verdict.results_out -= late;
    verdict.wrong += late;
    Ok(verdict)
}

fn compare<K: Ord, V>(
    found: &BTreeMap<K, Vec<V>>,
    expected: &BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
    verdict: &mut Verdict,
) {
    verdict.lost += expected.keys().filter(|key| !found.contains_key(key)).count();
    for (key, values) in found {
        verdict.duplicated += values.len() - 1;
        let right =
            expected.get(key).is_some_and(|expected| values.iter().all(|value| same(value, expected)));
        verdict.wrong += usize::from(!right);
    }
}

/// The rows of an output over both clusters, each id once.
fn rows<T: for<'de> Deserialize<'de>>(
    clusters: &Clusters,
    topic: &str,
    verdict: &mut Verdict,
) -> Result<Vec<T>> {
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    for cluster in CLUSTERS {
        for record in clusters.consume(cluster, topic)? {
            let id =
                record.id.ok_or_else(|| Error::internal(format!("a record of {topic} carries no id")))?;
            if !seen.insert(id) {
                verdict.copies += 1;
                continue;
            }
            let row = serde_json::from_slice(&record.payload).map_err(|error| {
                let text = String::from_utf8_lossy(&record.payload).into_owned();
                Error::internal(format!("a record of {topic} is not as expected: {text}")).caused_by(error)
            })?;
            rows.push(row);
        }
    }
    verdict.results_out += rows.len();
    Ok(rows)
}

/// Reads a time as the JSON encoder writes it.
fn micros(text: &str) -> Result<Micros> {
    let parsed = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text)?;
    Ok(parsed / 1_000)
}
