//! The flights job's rule for one aircraft, as a process function: rows are put into event-time
//! order first (state and timers, up to the watermark); an alert when an aircraft departs more
//! than 60 minutes late twice in a row within 24 hours; the aircraft is forgotten by a timer after
//! a day of silence. Checked against a plain loop, over arrival orders within the bound.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use thalweg_engine::Result;
use thalweg_engine::harness::OperatorHarness;
use thalweg_engine::record::{Record, Timestamp};
use thalweg_engine::state::{MapState, StateSize, ValueState};
use thalweg_engine::time::{HOUR, MINUTE};
use thalweg_operators::process::{KeyedProcess, ProcessContext, ProcessOpen, Timer, process_harness};
use thalweg_operators::typed::{SideOutput, SideOutputs};

const LATE_MINUTES: i64 = 60;
const DAY: i64 = 24 * HOUR;
/// How far a row may come behind one with a later event time.
const BOUND: i64 = 3 * HOUR;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Record)]
#[record(crate = "thalweg_engine")]
struct Departure {
    tail: String,
    #[record(time)]
    scheduled: Timestamp,
    flight: i64,
    delay_minutes: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Record)]
#[record(crate = "thalweg_engine")]
struct Alert {
    tail: String,
    #[record(time)]
    at: Timestamp,
    earlier: Timestamp,
    flight: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Record)]
#[record(crate = "thalweg_engine")]
struct Forgotten {
    tail: String,
    #[record(time)]
    at: Timestamp,
}

const TOO_LATE: SideOutput<Departure> = SideOutput::new("too-late");
const FORGOTTEN: SideOutput<Forgotten> = SideOutput::new("forgotten");

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, StateSize)]
#[state(crate = "thalweg_engine")]
struct Last {
    scheduled: i64,
    was_late: bool,
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, StateSize)]
#[state(crate = "thalweg_engine")]
struct Waiting {
    tail: String,
    delay_minutes: i64,
}

#[derive(Clone, Default)]
struct LateTwice {
    /// By event time, then flight, so that ties have an order too.
    waiting: MapState<(i64, i64), Waiting>,
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
        if cx.is_late() {
            cx.emit_row_to(TOO_LATE, row);
            return Ok(());
        }
        let waiting = Waiting { tail: row.tail.to_string(), delay_minutes: row.delay_minutes };
        self.waiting.put(cx.state(), (row.scheduled.micros(), row.flight), waiting)?;
        cx.register_event_timer(row.scheduled)
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, Alert>) -> Result<()> {
        let due = self.waiting.iter(cx.state())?;
        for ((scheduled, flight), departure) in due {
            if scheduled > timer.time.micros() {
                break;
            }
            self.waiting.remove(cx.state(), &(scheduled, flight))?;
            self.depart(scheduled, flight, departure, cx)?;
        }
        let silent = |last: &&Last| last.scheduled + DAY < timer.time.micros();
        if self.last.get(cx.state())?.filter(silent).is_some() {
            self.last.clear(cx.state())?;
            let tail = cx.key(0)?;
            cx.emit_to(FORGOTTEN, Forgotten { tail, at: timer.time });
        }
        Ok(())
    }

    fn side_outputs(&self) -> SideOutputs {
        SideOutputs::one(TOO_LATE).and(FORGOTTEN)
    }
}

impl LateTwice {
    fn depart(
        &self,
        scheduled: i64,
        flight: i64,
        departure: Waiting,
        cx: &mut ProcessContext<'_, Alert>,
    ) -> Result<()> {
        let last = self.last.get(cx.state())?.cloned();
        let was_late = departure.delay_minutes > LATE_MINUTES;
        if let Some(last) = &last {
            cx.delete_event_timer(Timestamp(last.scheduled + DAY + 1))?;
            if last.was_late && was_late && scheduled - last.scheduled <= DAY {
                cx.emit(Alert {
                    tail: departure.tail.clone(),
                    at: Timestamp(scheduled),
                    earlier: Timestamp(last.scheduled),
                    flight,
                });
            }
        }
        cx.register_event_timer(Timestamp(scheduled + DAY + 1))?;
        self.last.set(cx.state(), Last { scheduled, was_late })
    }
}

/// The same rule over all rows in event-time order, without engine, state or timers.
fn plain_loop(departures: &[Departure]) -> (Vec<Alert>, Vec<Forgotten>) {
    let mut by_tail: BTreeMap<&str, Vec<&Departure>> = BTreeMap::new();
    for departure in departures {
        by_tail.entry(&departure.tail).or_default().push(departure);
    }
    let (mut alerts, mut forgotten) = (Vec::new(), Vec::new());
    for (tail, mut rows) in by_tail {
        rows.sort_by_key(|row| (row.scheduled, row.flight));
        let mut gone = |row: &Departure| {
            forgotten.push(Forgotten { tail: tail.to_string(), at: row.scheduled + DAY + 1 });
        };
        for pair in rows.windows(2) {
            let [earlier, row] = pair else { unreachable!() };
            if row.scheduled - earlier.scheduled > DAY {
                gone(earlier);
            } else if earlier.delay_minutes > LATE_MINUTES && row.delay_minutes > LATE_MINUTES {
                let (at, earlier) = (row.scheduled, earlier.scheduled);
                alerts.push(Alert { tail: tail.to_string(), at, earlier, flight: row.flight });
            }
        }
        gone(rows[rows.len() - 1]);
    }
    alerts.sort();
    forgotten.sort();
    (alerts, forgotten)
}

#[derive(Clone, Debug)]
struct Arrival {
    departure: Departure,
    /// How long after its event time the row arrives: less than [`BOUND`].
    delay: i64,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let one = (0usize..6, 0i64..6 * 24 * 12, 0i64..=180, 0..BOUND, any::<bool>());
    proptest::collection::vec(one, 1..120).prop_map(|rows| {
        let arrivals = rows.into_iter().zip(0..).map(|((tail, slot, minutes, delay, prompt), flight)| {
            let scheduled = Timestamp(slot * 5 * MINUTE);
            let tail = format!("N{tail}");
            let departure = Departure { tail, scheduled, flight, delay_minutes: minutes };
            Arrival { departure, delay: if prompt { 0 } else { delay } }
        });
        let mut arrivals: Vec<_> = arrivals.collect();
        arrivals.sort_by_key(|arrival| arrival.departure.scheduled.micros() + arrival.delay);
        arrivals
    })
}

#[derive(Default)]
struct Seen {
    alerts: Vec<Alert>,
    forgotten: Vec<Forgotten>,
    too_late: usize,
}

impl Seen {
    fn take(&mut self, harness: &mut OperatorHarness) -> Result<()> {
        self.alerts.extend(harness.take_records::<Alert>(0)?);
        self.too_late += harness.take_records::<Departure>(1)?.len();
        self.forgotten.extend(harness.take_records::<Forgotten>(2)?);
        Ok(())
    }
}

/// Runs the arrivals in shares of `share` rows, a watermark after each; from `restarts`, every so
/// many shares, on to another parallelism through a snapshot.
fn run(arrivals: &[Arrival], share: usize, restarts: Option<usize>) -> Result<Seen> {
    let builder = process_harness(LateTwice::default(), &["tail"])?;
    let mut harness = builder.open()?;
    let mut seen = Seen::default();
    let mut highest = i64::MIN;
    for (index, rows) in arrivals.chunks(share).enumerate() {
        if restarts.is_some_and(|every| index % every == every - 1) {
            let snapshot = harness.snapshot()?;
            harness = builder.clone().parallelism(1 + index as u32 % 3).restore(&snapshot)?;
            if highest > i64::MIN {
                harness.watermark(0, highest - BOUND - 1)?;
            }
        }
        harness.push(0, rows.iter().map(|arrival| arrival.departure.clone()))?;
        let times = rows.iter().map(|arrival| arrival.departure.scheduled.micros());
        highest = times.fold(highest, i64::max);
        harness.watermark(0, highest - BOUND - 1)?;
        seen.take(&mut harness)?;
    }
    harness.end(0)?;
    seen.take(&mut harness)?;
    seen.alerts.sort();
    seen.forgotten.sort();
    Ok(seen)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_arrival_order_within_the_bound_gives_what_a_plain_loop_gives(
        arrivals in arrivals(), share in 1usize..20,
    ) {
        let departures: Vec<_> = arrivals.iter().map(|arrival| arrival.departure.clone()).collect();
        let (alerts, forgotten) = plain_loop(&departures);
        let seen = run(&arrivals, share, None).unwrap();
        prop_assert_eq!(seen.too_late, 0);
        prop_assert_eq!(seen.alerts, alerts);
        prop_assert_eq!(seen.forgotten, forgotten);
    }

    #[test]
    fn snapshots_and_other_parallelisms_on_the_way_change_nothing(
        arrivals in arrivals(), share in 1usize..20, every in 1usize..4,
    ) {
        let straight = run(&arrivals, share, None).unwrap();
        let restarted = run(&arrivals, share, Some(every)).unwrap();
        prop_assert_eq!(restarted.alerts, straight.alerts);
        prop_assert_eq!(restarted.forgotten, straight.forgotten);
    }
}

fn departure(hours: i64, flight: i64, delay_minutes: i64) -> Departure {
    Departure { tail: "N14228".into(), scheduled: Timestamp(hours * HOUR), flight, delay_minutes }
}

#[test]
fn exactly_a_day_apart_still_counts_and_a_punctual_flight_between_does_not() {
    let rows = [departure(0, 1, 61), departure(24, 2, 61), departure(30, 3, 10), departure(40, 4, 90)];
    let mut harness = process_harness(LateTwice::default(), &["tail"]).unwrap().open().unwrap();
    harness.push(0, rows.into_iter().rev()).unwrap();
    assert!(harness.take_records::<Alert>(0).unwrap().is_empty(), "nothing before the watermark");
    harness.watermark(0, 100 * HOUR).unwrap();
    let alerts = harness.take_records::<Alert>(0).unwrap();
    assert_eq!(alerts.iter().map(|alert| alert.flight).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_row_behind_the_watermark_is_counted_not_dropped() {
    let mut harness = process_harness(LateTwice::default(), &["tail"]).unwrap().open().unwrap();
    harness.watermark(0, 5 * HOUR).unwrap();
    harness.push(0, [departure(5, 1, 0)]).unwrap();
    assert_eq!(harness.take_records::<Departure>(1).unwrap(), [departure(5, 1, 0)]);
}
