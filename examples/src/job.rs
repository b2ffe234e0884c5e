//! The flights job, both ways of writing: hourly windows as expressions on columns, the rule for
//! each aircraft as typed records and a process function.

use thalweg::prelude::*;

const LATE_MINUTES: i64 = 60;
const DAY: Micros = 24 * HOUR;

/// How far a row may come behind one with a later scheduled departure: read off the data, see
/// `examples/data/README.md`.
pub const OUT_OF_ORDER: Micros = 1_110 * MINUTE;

/// The columns that the job reads.
#[derive(Clone, Debug, Record)]
pub struct Flight {
    /// Two letters.
    pub carrier: String,
    /// The flight's number.
    pub flight: i64,
    /// Which aircraft, where it is known.
    pub tailnum: Option<String>,
    /// Minutes; none when it never left.
    pub dep_delay: Option<i64>,
    /// The scheduled departure's minute.
    pub minute: i64,
    /// The scheduled departure's hour.
    pub time_hour: Timestamp,
}

/// A flight that left.
#[derive(Clone, Debug, Record)]
pub struct Departure {
    tailnum: String,
    flight: i64,
    dep_delay: i64,
    #[record(time)]
    scheduled: Timestamp,
}

/// An aircraft left late twice in a row.
#[derive(Clone, Debug, Record)]
pub struct Alert {
    tailnum: String,
    #[record(time)]
    scheduled: Timestamp,
    earlier: Timestamp,
}

/// What the job finds.
pub struct Found {
    /// Flights, mean and greatest delay per carrier and hour.
    pub hours: Stream,
    /// Alerts.
    pub alerts: Stream,
    /// Flights that never left or whose aircraft is not known.
    pub incomplete: Stream,
    /// Rows that came behind the watermark; none, when the bound is right.
    pub late: Stream,
}

/// Builds the job over a source of [`Flight`]s.
pub fn flights_job(source: Stream) -> Found {
    let strategy = WatermarkStrategy::bounded_out_of_order(OUT_OF_ORDER);
    let scheduled = "to_timestamp_micros(cast(time_hour as bigint) + minute * 60000000)";
    let flights = source.event_time_from("scheduled", scheduled, strategy);
    let departed = flights.filter("dep_delay is not null and tailnum is not null").uid("departed");
    let incomplete = flights.filter("dep_delay is null or tailnum is null").uid("incomplete");

    let aggregates = [
        count().alias("flights"),
        mean("dep_delay").alias("mean_delay"),
        max("dep_delay").alias("max_delay"),
    ];
    let hours = departed.key_by(&["carrier"]).window(TumblingWindow::hours(1)).aggregate(aggregates);
    let hours = hours.uid("carrier-hours");

    let departures = departed.select(["tailnum", "flight", "dep_delay", "scheduled"]).uid("departures");
    let alerts =
        departures.typed::<Departure>().key_by(["tailnum"]).process(LateTwice::default()).uid("late-twice");
    Found { late: hours.side_output(1), hours, alerts: alerts.stream().clone(), incomplete }
}

/// The last departure of an aircraft.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, StateSize)]
struct Last {
    tailnum: String,
    scheduled: Micros,
    late: bool,
}

/// Puts an aircraft's departures into the order of their schedule, up to the watermark, and says
/// when two in a row were late. Forgets an aircraft after a day of silence.
#[derive(Clone, Default)]
struct LateTwice {
    waiting: MapState<(Micros, i64), (String, i64)>,
    last: ValueState<Last>,
}

impl KeyedProcess for LateTwice {
    type In = Departure;
    type Out = Alert;

    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        self.waiting = cx.map("waiting")?;
        self.last = cx.value("last")?;
        Ok(())
    }

    fn process(&mut self, row: DepartureRow<'_>, cx: &mut ProcessContext<'_, Alert>) -> Result<()> {
        let departure = (row.tailnum.to_string(), row.dep_delay);
        self.waiting.put(cx.state(), (row.scheduled.micros(), row.flight), departure)?;
        cx.register_event_timer(row.scheduled)
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, Alert>) -> Result<()> {
        for ((scheduled, flight), (tailnum, delay)) in self.waiting.iter(cx.state())? {
            if scheduled > timer.time.micros() {
                break;
            }
            self.waiting.remove(cx.state(), &(scheduled, flight))?;
            let late = delay > LATE_MINUTES;
            if let Some(last) = self.last.get(cx.state())?.cloned()
                && (last.late && late && scheduled - last.scheduled <= DAY)
            {
                let tailnum = last.tailnum;
                cx.emit(Alert {
                    tailnum,
                    scheduled: Timestamp(scheduled),
                    earlier: Timestamp(last.scheduled),
                });
            }
            self.last.set(cx.state(), Last { tailnum, scheduled, late })?;
            cx.register_event_timer(Timestamp(scheduled + DAY + 1))?;
        }
        let silent = |last: &&Last| last.scheduled + DAY < timer.time.micros();
        if self.last.get(cx.state())?.filter(silent).is_some() {
            self.last.clear(cx.state())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{AsArray, RecordBatch};
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    use thalweg::connectors::file::FileSource;
    use thalweg::engine::checkpoint::MemoryStorage;
    use thalweg::engine::cluster::{JobConfig, Outcome, start};
    use thalweg::engine::metrics::Registry;
    use thalweg::engine::runtime::ChannelBounds;
    use thalweg::engine::state::MapBackend;

    use super::*;
    use crate::{data, expected};

    #[test]
    fn the_job_finds_what_a_plain_loop_finds() {
        let flights = data::load(&data::shipped_file()).unwrap();
        let expected = expected::expected(&flights).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let lines: Vec<_> = flights.iter().map(|flight| flight.json().unwrap()).collect();
        std::fs::write(directory.path().join("flights.jsonl"), lines.join("\n")).unwrap();
        for parallelism in [1, 2] {
            let env = Environment::new();
            let source = FileSource::lines(directory.path().join("flights.jsonl"), Json::of::<Flight>());
            let found = flights_job(env.source(source).uid("flights"));
            let (hours, alerts) = (Collected::new(), Collected::new());
            let (incomplete, late) = (Collected::new(), Collected::new());
            found.hours.sink(hours.exactly_once_sink()).uid("hours");
            found.alerts.sink(alerts.exactly_once_sink()).uid("alerts");
            found.incomplete.sink(incomplete.exactly_once_sink()).uid("incomplete-out");
            found.late.sink(late.exactly_once_sink()).uid("late");
            let mut config = JobConfig::new("flights");
            config.parallelism = parallelism;
            let backend = MapBackend::new(directory.path().join("state"));
            let job = start(
                env.build().unwrap(),
                config,
                Arc::new(MemoryStorage::default()),
                Arc::new(backend),
                Registry::default(),
                ChannelBounds::default(),
            );
            assert_eq!(job.unwrap().wait().unwrap().outcome, Outcome::Completed);
            assert_eq!(late.row_count(), 0);
            assert_eq!(incomplete.row_count(), expected.incomplete);
            assert_eq!(hours.row_count(), expected.hours.len());
            assert_eq!(hours_of(&hours.batches()), expected.hours);
            assert_eq!(alerts.row_count(), expected.alerts.len());
            assert_eq!(alerts_of(&alerts.batches()), expected.alerts);
        }
    }

    fn hours_of(batches: &[RecordBatch]) -> BTreeMap<(String, Micros), expected::CarrierHour> {
        let mut hours = BTreeMap::new();
        for batch in batches {
            let column = |name: &str| batch.column_by_name(name).unwrap().clone();
            for row in 0..batch.num_rows() {
                let carrier = column("carrier").as_string_view().value(row).to_string();
                let start = column("window_start").as_primitive::<TimestampMicrosecondType>().value(row);
                let found = expected::CarrierHour {
                    flights: column("flights").as_primitive::<Int64Type>().value(row),
                    mean_delay: column("mean_delay")
                        .as_primitive::<arrow::datatypes::Float64Type>()
                        .value(row),
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
                let tailnum =
                    batch.column_by_name("tailnum").unwrap().as_string_view().value(row).to_string();
                alerts.insert((tailnum, time("scheduled", row)), time("earlier", row));
            }
        }
        alerts
    }
}
