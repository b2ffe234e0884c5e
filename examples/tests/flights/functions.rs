//! Whole jobs of two-input and broadcast process functions, and on a retract edge: simulated over
//! crashes, failing tasks, storage faults and rescaling, against a plain loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch};
use arrow::datatypes::{Int8Type, Int64Type};
use thalweg::engine::cluster::FaultCounts;
use thalweg::engine::record::{EdgeSchema, Mode, OP_COLUMN};
use thalweg::engine::source::{Discovery, Enumerator, ReaderOpenContext, Source, SourceReader};
use thalweg::engine::state::StateIdentity;
use thalweg::prelude::*;

use crate::simulated::run_disturbed;

const SEEDS: u64 = 30;
const USERS: i64 = 17;

#[derive(Clone, Debug, PartialEq, Record)]
struct Event {
    user: i64,
    #[record(time)]
    at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Click {
    who: i64,
    page: i64,
    #[record(time)]
    at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Pair {
    user: i64,
    event: i64,
    page: i64,
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Total {
    user: i64,
    total: i64,
}

fn events() -> Vec<Event> {
    (0..300).map(|i| Event { user: i * i % USERS, at: Timestamp(i) }).collect()
}

fn clicks() -> Vec<Click> {
    (0..90).map(|i| Click { who: i * 3 % USERS, page: i, at: Timestamp(i * 2) }).collect()
}

fn stream<T: Record>(env: &Environment, rows: &[T], uid: &str) -> Stream {
    let source = VecSource::of(rows).unwrap().dealt_to(3).unwrap().batch_rows(4);
    env.source(source).watermarks("at", WatermarkStrategy::bounded_out_of_order(3)).uid(uid)
}

/// Runs the job over all seeds; `rows` are what it must deliver, each exactly once.
fn delivers(job: &str, graph: impl Fn(&Collected) -> Graph, mut rows: Vec<Vec<i64>>) {
    rows.sort();
    let counts = Arc::new(FaultCounts::default());
    for seed in 0..SEEDS {
        let found = Collected::new();
        if let Err(error) = run_disturbed(job, seed, &|| graph(&found), &counts) {
            panic!("{job}, seed {seed}: {error}");
        }
        assert_eq!(sorted_rows(&found), rows, "{job}, seed {seed}");
    }
    let least = [(&counts.crashes, 20), (&counts.task_failures, 20), (&counts.store_faults, 50)];
    let proves = least.into_iter().all(|(count, least)| count.load(Ordering::Relaxed) > least);
    assert!(proves, "{counts}: they prove little");
}

/// The rows of 64-bit columns.
fn sorted_rows(found: &Collected) -> Vec<Vec<i64>> {
    let mut rows = Vec::new();
    for batch in found.batches() {
        let number = |column: &ArrayRef, row: usize| match column.as_primitive_opt::<Int8Type>() {
            Some(ops) => i64::from(ops.value(row)),
            None => column.as_primitive::<Int64Type>().value(row),
        };
        let row = |row: usize| batch.columns().iter().map(|column| number(column, row)).collect();
        rows.extend((0..batch.num_rows()).map(row));
    }
    rows.sort();
    rows
}

/// Pairs every event of a user with every click of the user, whichever comes first.
#[derive(Clone, Default)]
struct Join {
    events: ListState<i64>,
    clicks: ListState<i64>,
}

impl KeyedCoProcess for Join {
    type Left = Event;
    type Right = Click;
    type Out = Pair;

    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        self.events = cx.list("events")?;
        self.clicks = cx.list("clicks")?;
        Ok(())
    }

    fn process_left(&mut self, row: EventRow<'_>, cx: &mut ProcessContext<'_, Pair>) -> Result<()> {
        self.events.append(cx.state(), row.at.micros())?;
        for page in self.clicks.get(cx.state())? {
            cx.emit(Pair { user: row.user, event: row.at.micros(), page });
        }
        Ok(())
    }

    fn process_right(&mut self, row: ClickRow<'_>, cx: &mut ProcessContext<'_, Pair>) -> Result<()> {
        self.clicks.append(cx.state(), row.page)?;
        for event in self.events.get(cx.state())? {
            cx.emit(Pair { user: row.who, event, page: row.page });
        }
        Ok(())
    }
}

#[test]
fn a_job_of_two_inputs_pairs_all_rows_of_a_key_once() {
    let mut expected = Vec::new();
    for event in events() {
        let of_user = clicks().into_iter().filter(|click| click.who == event.user);
        expected.extend(of_user.map(|click| vec![event.user, event.at.micros(), click.page]));
    }
    let job = |found: &Collected| {
        let env = Environment::new();
        let (events, clicks) = (stream(&env, &events(), "events"), stream(&env, &clicks(), "clicks"));
        let pairs = events.key_by(&["user"]).process_with(&clicks.key_by(&["who"]), Join::default());
        pairs.uid("join").stream().sink(found.exactly_once_sink()).uid("pairs");
        env.build().unwrap()
    };
    delivers("two-inputs", job, expected);
}

/// The end of time for this test: every row of both streams is before it.
const CLOSING: Timestamp = Timestamp(10_000);

/// At closing time: a user's number of events times the highest page that was clicked by anybody
/// whose number is the user's modulo 3.
#[derive(Clone, Default)]
struct Weighted {
    count: ValueState<i64>,
}

impl KeyedBroadcastProcess for Weighted {
    type In = Event;
    type Broadcast = Click;
    type Out = Total;
    type Key = i64;
    type Value = i64;

    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        self.count = cx.value("count")?;
        Ok(())
    }

    fn process(
        &mut self,
        _row: EventRow<'_>,
        _pages: &BTreeMap<i64, i64>,
        cx: &mut ProcessContext<'_, Total>,
    ) -> Result<()> {
        let count = self.count.get(cx.state())?.copied().unwrap_or(0);
        self.count.set(cx.state(), count + 1)?;
        cx.register_event_timer(CLOSING)
    }

    fn process_broadcast(
        &mut self,
        row: ClickRow<'_>,
        pages: &mut BTreeMap<i64, i64>,
        _cx: &mut BroadcastContext<'_, Total>,
    ) -> Result<()> {
        let highest = pages.entry(row.who % 3).or_default();
        *highest = row.page.max(*highest);
        Ok(())
    }

    fn on_timer(
        &mut self,
        _timer: Timer,
        pages: &BTreeMap<i64, i64>,
        cx: &mut ProcessContext<'_, Total>,
    ) -> Result<()> {
        let (user, count) = (cx.key::<i64>(0)?, self.count.get(cx.state())?.copied().unwrap_or(0));
        cx.emit(Total { user, total: count * pages[&(user % 3)] });
        Ok(())
    }
}

#[test]
fn a_job_with_a_broadcast_input_has_the_same_map_on_every_instance() {
    let highest = |rest: i64| clicks().iter().filter(|c| c.who % 3 == rest).map(|c| c.page).max().unwrap();
    let mut counts = BTreeMap::new();
    for event in events() {
        *counts.entry(event.user).or_insert(0) += 1;
    }
    let expected = counts.iter().map(|(&user, count)| vec![user, count * highest(user % 3)]).collect();
    let job = |found: &Collected| {
        let env = Environment::new();
        let (events, clicks) = (stream(&env, &events(), "events"), stream(&env, &clicks(), "clicks"));
        let totals = events.key_by(&["user"]).process_broadcast(&clicks, Weighted::default());
        totals.uid("weighted").stream().sink(found.exactly_once_sink()).uid("totals");
        env.build().unwrap()
    };
    delivers("broadcast", job, expected);
}

/// Rows that insert and take back.
#[derive(Clone)]
struct Changes(VecSource);

impl Source for Changes {
    fn name(&self) -> String {
        "changes".to_string()
    }
    fn output(&self) -> Result<EdgeSchema> {
        Ok(self.0.output()?.with_mode(Mode::Retract))
    }
    fn identity(&self) -> StateIdentity {
        StateIdentity::of("changes")
    }

    fn enumerator(&self, restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        self.0.enumerator(restored)
    }
    fn discovery(&self) -> Result<Option<Box<dyn Discovery>>> {
        self.0.discovery()
    }
    fn reader(&self, cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        self.0.reader(cx)
    }
}

/// Every value is inserted, and two in three are taken back later.
fn changes() -> Vec<(i64, i8)> {
    let inserted = (0..200).map(|value| (value, 1));
    inserted.chain((0..200).filter(|value| value % 3 != 0).map(|value| (value, -1))).collect()
}

fn changes_source() -> Changes {
    let rows = changes();
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let ops: ArrayRef = Arc::new(Int8Array::from_iter_values(rows.iter().map(|row| row.1)));
    let batch = RecordBatch::try_from_iter([("value", values), (OP_COLUMN, ops)]).unwrap();
    Changes(VecSource::new(batch.schema(), [batch]).dealt_to(2).unwrap().batch_rows(1))
}

#[test]
fn rows_of_a_retract_edge_keep_their_sign_through_filter_and_projection() {
    let kept = changes().into_iter().filter(|(value, _)| *value >= 50);
    let expected: Vec<_> = kept.map(|(value, op)| vec![value * 2, i64::from(op)]).collect();
    let net: i64 = expected.iter().map(|row| row[0] * row[1]).sum();
    assert_eq!(net, (50..200).filter(|value| value % 3 == 0).map(|value| value * 2).sum::<i64>());
    let job = |found: &Collected| {
        let env = Environment::new();
        let doubled = env.source(changes_source()).uid("changes").filter("value >= 50");
        let doubled = doubled.project([("doubled", "value * 2")]);
        assert_eq!(doubled.edge_schema().unwrap().mode, Mode::Retract);
        doubled.sink(found.exactly_once_sink()).uid("out");
        env.build().unwrap()
    };
    delivers("retract", job, expected);
}

#[test]
fn an_operator_that_does_not_take_retractions_is_refused_when_the_job_is_built() {
    #[derive(Clone, Default)]
    struct Pass;
    impl KeyedProcess for Pass {
        type In = Plain;
        type Out = Plain;
        fn process(&mut self, row: PlainRow<'_>, cx: &mut ProcessContext<'_, Plain>) -> Result<()> {
            cx.emit(Plain { value: row.value });
            Ok(())
        }
    }
    let env = Environment::new();
    let changes = env.source(changes_source()).uid("changes");
    let passed = changes.key_by(&["value"]).process(Pass);
    passed.uid("pass").stream().sink(Collected::new().sink());
    let error = env.build().err().expect("it is refused").to_string();
    assert!(error.contains("does not know what to do with a stream that is retract"), "{error}");
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Plain {
    value: i64,
}
