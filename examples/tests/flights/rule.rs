//! The rule for one aircraft against the plain loop, over any order of arrival within the bound,
//! also with restarts on the way; and that it forgets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use thalweg::prelude::*;
use thalweg::testing::{HarnessSnapshot, OperatorHarness, process_harness};
use thalweg_examples::data::Flight;
use thalweg_examples::expected::expected;
use thalweg_examples::job::{Alert, Departure, LateTwice};

/// How far a row may come behind one with a later event time.
const BOUND: Micros = 3 * HOUR;
/// Scheduled departures are five minutes apart.
const SLOTS_PER_HOUR: i64 = 12;
const DAYS: i64 = 6;

fn flight(tail: u8, slot: i64, number: i64, dep_delay: i64) -> Flight {
    let (day, hour) = (1 + slot / (24 * SLOTS_PER_HOUR), slot / SLOTS_PER_HOUR % 24);
    Flight {
        carrier: "UA".into(),
        flight: number,
        tailnum: Some(format!("N{tail}")),
        origin: "EWR".into(),
        dest: "ORD".into(),
        dep_delay: Some(dep_delay),
        minute: slot % SLOTS_PER_HOUR * 5,
        time_hour: format!("2013-01-{day:02}T{hour:02}:00:00Z"),
    }
}

fn departure(flight: &Flight) -> Departure {
    Departure {
        tailnum: flight.tailnum.clone().unwrap(),
        flight: flight.flight,
        dep_delay: flight.dep_delay.unwrap(),
        scheduled: Timestamp(flight.scheduled().unwrap()),
    }
}

/// Flights in the order of their arrival: each less than [`BOUND`] after its schedule.
fn arrivals() -> impl Strategy<Value = Vec<Flight>> {
    let slots = DAYS * 24 * SLOTS_PER_HOUR;
    let one = (0u8..6, 0..slots, 0i64..=180, prop_oneof![Just(0), 0..BOUND]);
    proptest::collection::vec(one, 1..120).prop_map(|rows| {
        let mut seen = BTreeSet::new();
        // An aircraft leaves once at a time.
        let rows = rows.into_iter().filter(|(tail, slot, ..)| seen.insert((*tail, *slot)));
        let rows = rows.zip(0..).map(|((tail, slot, minutes, delay), number)| {
            let flight = flight(tail, slot, number, minutes);
            (flight.scheduled().unwrap() + delay, flight)
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(arrives, _)| *arrives);
        rows.into_iter().map(|(_, flight)| flight).collect()
    })
}

fn take(harness: &mut OperatorHarness, alerts: &mut Vec<Alert>) {
    alerts.extend(harness.take_records::<Alert>(0).unwrap());
}

/// Runs the arrivals in shares of `share` rows, a watermark after each; at every so many shares, on
/// to another parallelism through a snapshot.
fn run(arrivals: &[Flight], share: usize, restart_every: Option<usize>) -> Vec<Alert> {
    let builder = process_harness(LateTwice::default(), &["tailnum"]).unwrap();
    let mut harness = builder.open().unwrap();
    let mut alerts = Vec::new();
    let mut highest = Timestamp::MIN;
    for (index, rows) in arrivals.chunks(share).enumerate() {
        if restart_every.is_some_and(|every| index % every == every - 1) {
            let snapshot = harness.snapshot().unwrap();
            harness = builder.clone().parallelism(1 + index as u32 % 3).restore(&snapshot).unwrap();
        }
        let rows: Vec<_> = rows.iter().map(departure).collect();
        highest = rows.iter().map(|row| row.scheduled).fold(highest, Timestamp::max);
        harness.push(0, rows).unwrap();
        harness.watermark(0, highest - (BOUND + 1)).unwrap();
        take(&mut harness, &mut alerts);
    }
    harness.end(0).unwrap();
    take(&mut harness, &mut alerts);
    alerts
}

fn by_aircraft(alerts: &[Alert]) -> BTreeMap<(String, Micros), Micros> {
    let pair = |alert: &Alert| ((alert.tailnum.clone(), alert.scheduled.micros()), alert.earlier.micros());
    alerts.iter().map(pair).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_arrival_gives_what_the_plain_loop_gives(
        arrivals in arrivals(), share in 1usize..20, restart_every in proptest::option::of(1usize..4),
    ) {
        let wanted = expected(&arrivals).unwrap().alerts;
        let alerts = run(&arrivals, share, restart_every);
        prop_assert_eq!(by_aircraft(&alerts), wanted.clone());
        prop_assert_eq!(alerts.len(), wanted.len(), "an alert came twice");
    }
}

#[test]
fn exactly_a_day_apart_still_counts_and_a_punctual_flight_between_does_not() {
    let at = |hours: i64, number, delay| flight(1, hours * SLOTS_PER_HOUR, number, delay);
    let alerts = run(&[at(40, 4, 90), at(30, 3, 10), at(24, 2, 61), at(0, 1, 61)], 4, None);
    let days: Vec<_> = alerts.iter().map(|alert| alert.scheduled - alert.earlier).collect();
    assert_eq!(days, [DAY]);
}

/// Bytes that a checkpoint keeps for the function.
fn kept_bytes(snapshot: &HarnessSnapshot) -> u64 {
    snapshot.manifest().files().map(|file| file.bytes).sum()
}

#[test]
fn an_aircraft_is_forgotten_after_a_day_of_silence() {
    let builder = process_harness(LateTwice::default(), &["tailnum"]).unwrap();
    let nothing = kept_bytes(&builder.open().unwrap().snapshot().unwrap());
    let mut harness = builder.open().unwrap();
    let departure = departure(&flight(1, 0, 1, 61));
    let scheduled = departure.scheduled;
    harness.push(0, [departure]).unwrap();
    harness.watermark(0, scheduled + DAY).unwrap();
    assert!(kept_bytes(&harness.snapshot().unwrap()) > nothing);
    harness.watermark(0, scheduled + (DAY + 1)).unwrap();
    assert_eq!(kept_bytes(&harness.snapshot().unwrap()), nothing);
}
