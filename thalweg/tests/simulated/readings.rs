//! Readings of sensors: rows in files, in memory and generated, what a job makes of them, and what
//! a plain loop does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use thalweg::connectors::format::{CsvEncoder, EncodedRows, Encoder, JsonEncoder};
use thalweg::engine::checkpoint::MemoryStorage;
use thalweg::engine::cluster::{CrashAt, JobConfig, SeededOrder, Simulated, SimulationSetup, simulate};
use thalweg::engine::record::RecordBuilder;
use thalweg::engine::runtime::{ChannelBounds, ManualClock};
use thalweg::engine::source::Source;
use thalweg::engine::state::MapBackend;
use thalweg::prelude::*;

/// A row comes at most so much behind one with a later time.
pub const OUT_OF_ORDER: Micros = 40;
/// From one row to the next.
pub const STEP: Micros = 10;
const WINDOW: Micros = 1_000;
const SENSORS: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Record)]
pub struct Reading {
    pub sensor: i64,
    pub value: i64,
    #[record(time)]
    pub at: Timestamp,
}

/// Rows with times from `first` on.
pub fn drawn(order: &mut SeededOrder, first: Micros, rows: usize) -> Vec<Reading> {
    let row = |row: usize| Reading {
        sensor: order.below(SENSORS) as i64,
        value: order.below(1_000) as i64,
        at: Timestamp(
            first + row as Micros * STEP + OUT_OF_ORDER - order.below(OUT_OF_ORDER as usize) as Micros,
        ),
    };
    (0..rows).map(row).collect()
}

/// A generator of such rows.
pub fn generator(first: Micros, rows: u64, seed: u64) -> Generator {
    let columns = [
        ("sensor", Generate::Integer { min: 0, max: SENSORS as i64 - 1 }),
        ("value", Generate::Integer { min: 0, max: 999 }),
        ("at", Generate::Time { start: first + OUT_OF_ORDER, step: STEP, jitter: OUT_OF_ORDER }),
    ];
    Generator::new(columns).count(rows).seed(seed)
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    JsonLines,
    Csv,
    CompressedCsv,
}

impl Kind {
    /// Writes rows to a file of that kind.
    pub fn write(self, directory: &Path, name: usize, rows: &[Reading]) {
        let mut builder = RecordBuilder::<Reading>::default();
        rows.iter().for_each(|row| builder.push(row));
        let (batch, mut encoded) = (builder.finish().unwrap(), EncodedRows::new());
        let mut bytes = match self {
            Kind::JsonLines => Vec::new(),
            _ => [CsvEncoder::new().header(&batch.schema()), b"\n".to_vec()].concat(),
        };
        match self {
            Kind::JsonLines => JsonEncoder::new().encode(&batch, &mut encoded).unwrap(),
            _ => CsvEncoder::new().encode(&batch, &mut encoded).unwrap(),
        }
        bytes.extend(encoded.iter().flat_map(|row| [row, b"\n"].concat()));
        let path = directory.join(format!("{name:02}{}", self.extension()));
        let bytes =
            if self == Kind::CompressedCsv { zstd::encode_all(bytes.as_slice(), 1).unwrap() } else { bytes };
        std::fs::write(path, bytes).unwrap();
    }

    fn extension(self) -> &'static str {
        match self {
            Kind::JsonLines => ".jsonl",
            Kind::Csv => ".csv",
            Kind::CompressedCsv => ".csv.zst",
        }
    }

    /// The source of all files of a directory.
    pub fn source(self, directory: &Path) -> FileSource {
        match self {
            Kind::JsonLines => FileSource::lines(directory, Json::of::<Reading>()),
            _ => FileSource::csv(directory, Csv::of::<Reading>().header(true)),
        }
    }
}

/// The rows of a source whose rows are not known otherwise, read without disturbance.
pub fn rows_of(source: Arc<dyn Source>) -> Vec<Reading> {
    let (env, found) = (Environment::new(), Collected::new());
    env.source_dyn(source).sink(found.exactly_once_sink()).uid("rows");
    let setup = SimulationSetup {
        seed: 1,
        faults: Box::new(CrashAt(None)),
        steps_max: 300_000,
        clock: ManualClock::new(0),
        storage: Arc::new(MemoryStorage::default()),
        backend: Arc::new(MapBackend::default()),
        bounds: ChannelBounds { rows_max: 1_000, bytes_max: 1 << 20 },
    };
    let ended = simulate(env.build().unwrap(), JobConfig::new("undisturbed"), setup).unwrap();
    assert_eq!(ended, Simulated::Ended(Outcome::Completed));
    found.records().unwrap()
}

/// What a job delivered, over all its runs.
#[derive(Default)]
pub struct Outputs {
    rows: Collected,
    windows: Collected,
    late: Collected,
}

/// Rows as they are, and what they come to by sensor and window.
pub fn job(readings: &Stream, outputs: &Outputs) {
    let windows = readings.key_by(&["sensor"]).window(TumblingWindow::of(WINDOW));
    let windows = windows.aggregate([count().alias("readings"), sum("value").alias("total")]).uid("windows");
    readings.sink(outputs.rows.exactly_once_sink()).uid("to-rows");
    windows.sink(outputs.windows.exactly_once_sink()).uid("to-windows");
    windows.side_output(1).sink(outputs.late.exactly_once_sink()).uid("to-late");
}

impl Outputs {
    /// Holds what was delivered against a plain loop over the rows that were there.
    pub fn compare(&self, readings: &[Reading]) -> std::result::Result<(), String> {
        if self.late.row_count() > 0 {
            return Err(format!("{} rows are late", self.late.row_count()));
        }
        let (mut rows, mut wanted) = (self.rows.records::<Reading>().unwrap(), readings.to_vec());
        rows.sort();
        wanted.sort();
        if rows != wanted {
            return Err(format!("{} rows that are not the {} of the source", rows.len(), wanted.len()));
        }
        let mut expected: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
        for reading in readings {
            let start = reading.at.0.div_euclid(WINDOW) * WINDOW;
            let window = expected.entry((reading.sensor, start)).or_default();
            *window = (window.0 + 1, window.1 + reading.value);
        }
        let found = self.found_windows()?;
        if found == expected {
            return Ok(());
        }
        Err(format!("{} windows that are not the {} of the rows", found.len(), expected.len()))
    }

    fn found_windows(&self) -> std::result::Result<BTreeMap<(i64, i64), (i64, i64)>, String> {
        let mut found = BTreeMap::new();
        for batch in self.windows.batches() {
            let number = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
            let starts = batch.column_by_name("window_start").unwrap();
            let starts = starts.as_primitive::<TimestampMicrosecondType>();
            let (sensors, counts, totals) = (number("sensor"), number("readings"), number("total"));
            for row in 0..batch.num_rows() {
                let key = (sensors.value(row), starts.value(row));
                if found.insert(key, (counts.value(row), totals.value(row))).is_some() {
                    return Err(format!("the window of sensor {} at {} fired twice", key.0, key.1));
                }
            }
        }
        Ok(found)
    }
}
