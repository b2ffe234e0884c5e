//! The flights job, both ways of writing: hourly windows as expressions on columns, the rule for
//! each aircraft as typed records and a process function. `bin/flights.rs` runs it.

use thalweg::prelude::*;

/// How far a row may come behind one with a later scheduled departure: see `data/README.md`.
pub const OUT_OF_ORDER: Micros = 1_139 * MINUTE;

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

/// A flight that left, on its way to the rule.
#[derive(Clone, Debug, Record)]
pub struct Departure {
    /// Which aircraft.
    pub tailnum: String,
    /// The flight's number.
    pub flight: i64,
    /// Minutes.
    pub dep_delay: i64,
    /// When it was to leave.
    #[record(time)]
    pub scheduled: Timestamp,
}

/// An aircraft left more than an hour late twice in a row within a day.
#[derive(Clone, Debug, Record)]
pub struct Alert {
    /// Which aircraft.
    pub tailnum: String,
    /// When it was to leave the second time.
    #[record(time)]
    pub scheduled: Timestamp,
    /// When it was to leave before.
    pub earlier: Timestamp,
}

/// The shipped flights.
pub fn flights() -> FileSource {
    FileSource::csv(crate::data::shipped_file(), Csv::of::<Flight>().header(true).null("NA"))
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
    let scheduled = "to_timestamp_micros(cast(time_hour as bigint) + minute * 60000000)";
    let bound = WatermarkStrategy::bounded_out_of_order(OUT_OF_ORDER);
    let flights = source.event_time_from("scheduled", scheduled, bound);
    let departed = flights.filter("dep_delay is not null and tailnum is not null").uid("departed");
    let incomplete = flights.filter("dep_delay is null or tailnum is null").uid("incomplete");

    let delays = [mean("dep_delay").alias("mean_delay"), max("dep_delay").alias("max_delay")];
    let aggregates = [count().alias("flights")].into_iter().chain(delays);
    let hours = departed.key_by(&["carrier"]).window(TumblingWindow::hours(1)).aggregate(aggregates);
    let hours = hours.uid("carrier-hours");

    let by_aircraft = departed.typed::<Departure>().key_by(["tailnum"]);
    let alerts = by_aircraft.process(LateTwice::default()).uid("late-twice").into();
    Found { late: hours.side_output(1), hours, alerts, incomplete }
}

/// Puts an aircraft's departures into the order of their schedule, up to the watermark, and
/// compares each with the last; forgets an aircraft after a day of silence.
#[derive(Clone, Default)]
pub struct LateTwice {
    waiting: MapState<(Timestamp, i64), i64>,
    last: ValueState<(Timestamp, bool)>,
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
        self.waiting.put(cx.state(), (row.scheduled, row.flight), row.dep_delay)?;
        cx.register_event_timer(row.scheduled)
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, Alert>) -> Result<()> {
        for ((scheduled, flight), delay) in self.waiting.iter(cx.state())? {
            if scheduled > timer.time {
                break;
            }
            self.waiting.remove(cx.state(), &(scheduled, flight))?;
            if let Some((earlier, true)) = self.last.get(cx.state())?.copied()
                && delay > 60
                && scheduled <= earlier + DAY
            {
                cx.emit(Alert { tailnum: cx.key(0)?, scheduled, earlier });
            }
            self.last.set(cx.state(), (scheduled, delay > 60))?;
            cx.register_event_timer(scheduled + (DAY + 1))?;
        }
        if self.last.get(cx.state())?.is_some_and(|(last, _)| *last + DAY < timer.time) {
            self.last.clear(cx.state())?;
        }
        Ok(())
    }
}
