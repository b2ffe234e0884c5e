//! The flights job over the shipped file, straight, against a plain loop; and its length.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use thalweg::prelude::*;
use thalweg_examples::data;
use thalweg_examples::expected::{CarrierHour, expected};
use thalweg_examples::job::{flights, flights_job};

#[test]
fn the_job_finds_what_a_plain_loop_finds() {
    let expected = expected(&data::load(&data::shipped_file()).unwrap()).unwrap();
    for parallelism in [1, 2] {
        let env = Environment::new();
        let found = flights_job(env.source(flights()).uid("flights"));
        let [hours, alerts, incomplete, late] = [(); 4].map(|()| Collected::new());
        found.hours.sink(hours.exactly_once_sink()).uid("hours");
        found.alerts.sink(alerts.exactly_once_sink()).uid("alerts");
        found.incomplete.sink(incomplete.exactly_once_sink()).uid("incomplete-out");
        found.late.sink(late.exactly_once_sink()).uid("late");
        let summary = Job::new("flights").parallelism(parallelism).run(&env).unwrap();
        assert_eq!(summary.outcome, Outcome::Completed);
        assert_eq!(late.row_count(), 0);
        assert_eq!(incomplete.row_count(), expected.incomplete);
        assert_eq!(hours.row_count(), expected.hours.len());
        assert_eq!(hours_of(&hours.batches()), expected.hours);
        assert_eq!(alerts.row_count(), expected.alerts.len());
        assert_eq!(alerts_of(&alerts.batches()), expected.alerts);
    }
}

#[test]
fn the_whole_program_has_under_a_hundred_lines_of_code() {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let lines = ["src/job.rs", "src/bin/flights.rs"].map(|file| {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        text.lines().filter(is_code).count()
    });
    assert!(lines.iter().sum::<usize>() < 100, "{lines:?}");
}

fn hours_of(batches: &[RecordBatch]) -> BTreeMap<(String, Micros), CarrierHour> {
    let mut hours = BTreeMap::new();
    for batch in batches {
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        for row in 0..batch.num_rows() {
            let carrier = column("carrier").as_string_view().value(row).to_string();
            let start = column("window_start").as_primitive::<TimestampMicrosecondType>().value(row);
            let found = CarrierHour {
                flights: column("flights").as_primitive::<Int64Type>().value(row),
                mean_delay: column("mean_delay").as_primitive::<Float64Type>().value(row),
                max_delay: column("max_delay").as_primitive::<Int64Type>().value(row),
            };
            hours.insert((carrier, start), found);
        }
    }
    hours
}

fn alerts_of(batches: &[RecordBatch]) -> BTreeMap<(String, Micros), Micros> {
    let mut alerts = BTreeMap::new();
    for batch in batches {
        let time = |name: &str, row| {
            batch.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().value(row)
        };
        for row in 0..batch.num_rows() {
            let tailnum = batch.column_by_name("tailnum").unwrap().as_string_view().value(row).to_string();
            alerts.insert((tailnum, time("scheduled", row)), time("earlier", row));
        }
    }
    alerts
}
