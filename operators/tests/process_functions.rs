//! Process functions: timers in bounded steps and in order, two inputs that share a key's state,
//! broadcast state, and all of it through snapshots at other parallelisms.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use thalweg_engine::Result;
use thalweg_engine::harness::OperatorHarness;
use thalweg_engine::record::{Record, Timestamp};
use thalweg_engine::state::{ListState, ValueState};
use thalweg_operators::process::{
    BroadcastContext, KeyedBroadcastProcess, KeyedCoProcess, KeyedProcess, ProcessContext, ProcessOpen,
    TimeDomain, Timer, broadcast_process_harness, co_process_harness, process_harness,
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Record)]
#[record(crate = "thalweg_engine")]
struct Event {
    user: i64,
    #[record(time)]
    at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Record)]
#[record(crate = "thalweg_engine")]
struct Count {
    user: i64,
    count: u64,
}

fn event(user: i64, at: i64) -> Event {
    Event { user, at: Timestamp(at) }
}

/// Emits each user's count when a timer of the user fires, and forgets the user.
#[derive(Clone)]
struct CountUntil {
    domain: TimeDomain,
    count: ValueState<Count_>,
}

type Count_ = (i64, u64);

impl CountUntil {
    fn by(domain: TimeDomain) -> Self {
        CountUntil { domain, count: ValueState::default() }
    }
}

impl KeyedProcess for CountUntil {
    type In = Event;
    type Out = Count;

    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        self.count = cx.value("count")?;
        Ok(())
    }

    fn process(&mut self, row: EventRow<'_>, cx: &mut ProcessContext<'_, Count>) -> Result<()> {
        let count = self.count.get(cx.state())?.map_or(0, |(_, count)| *count);
        self.count.set(cx.state(), (row.user, count + 1))?;
        match self.domain {
            TimeDomain::Event => cx.register_event_timer(row.at + 10),
            TimeDomain::Processing => cx.register_processing_timer(cx.now() + 10),
        }
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, Count>) -> Result<()> {
        assert_eq!(timer.domain, self.domain);
        assert_eq!(cx.time(), Some(timer.time));
        let Some((user, count)) = self.count.get(cx.state())?.copied() else {
            return Ok(());
        };
        cx.emit(Count { user, count });
        self.count.clear(cx.state())
    }
}

#[test]
fn one_watermark_fires_many_timers_in_bounded_steps_and_in_time_order() {
    let function = CountUntil::by(TimeDomain::Event);
    let mut harness = process_harness(function, &["user"]).unwrap().open().unwrap();
    const USERS: i64 = 30_000;
    harness.push(0, (0..USERS).rev().map(|user| event(user, user))).unwrap();
    harness.watermark(0, 9).unwrap();
    assert!(harness.take_records::<Count>(0).unwrap().is_empty());
    harness.watermark(0, 10).unwrap();
    assert_eq!(harness.take_records::<Count>(0).unwrap(), [Count { user: 0, count: 1 }]);
    harness.end(0).unwrap();
    let users: Vec<_> = harness.take_records::<Count>(0).unwrap().into_iter().map(|row| row.user).collect();
    assert_eq!(users, (1..USERS).collect::<Vec<_>>(), "in time order");
    assert!(harness.step_rows_max() <= 8192, "{}", harness.step_rows_max());
}

#[test]
fn a_barrier_in_the_middle_of_many_timers_divides_them() {
    const USERS: i64 = 30_000;
    let builder = process_harness(CountUntil::by(TimeDomain::Event), &["user"]).unwrap();
    let mut harness = builder.open().unwrap();
    harness.push(0, (0..USERS).map(|user| event(user, user % 7))).unwrap();
    harness.begin_watermark(0, 1_000, 3).unwrap();
    let before = harness.take_records::<Count>(0).unwrap();
    let snapshot = harness.snapshot().unwrap();
    harness.finish_watermark().unwrap();
    let after = harness.take_records::<Count>(0).unwrap();
    assert!(before.len() > 1_000 && after.len() > 1_000, "{} and {}", before.len(), after.len());
    let whole = |after: Vec<Count>| {
        let mut users: Vec<_> = before.iter().chain(&after).map(|row| row.user).collect();
        users.sort();
        assert_eq!(users, (0..USERS).collect::<Vec<_>>(), "each user's timer fires once");
    };
    whole(after);
    for parallelism in [1, 3] {
        let mut restored = builder.clone().parallelism(parallelism).restore(&snapshot).unwrap();
        restored.end(0).unwrap();
        whole(restored.take_records::<Count>(0).unwrap());
    }
}

#[test]
fn keys_side_by_side_and_apart_are_told_apart() {
    let function = CountUntil::by(TimeDomain::Event);
    let mut harness = process_harness(function, &["user"]).unwrap().parallelism(2).open().unwrap();
    harness.push(0, [1, 1, 2, 1, 2, 2, 2].map(|user| event(user, 0))).unwrap();
    harness.end(0).unwrap();
    let mut counts = harness.take_records::<Count>(0).unwrap();
    counts.sort();
    assert_eq!(counts, [Count { user: 1, count: 3 }, Count { user: 2, count: 4 }]);
}

#[test]
fn processing_time_timers_fire_by_the_clock_and_outlive_a_restart() {
    let function = CountUntil::by(TimeDomain::Processing);
    let builder = process_harness(function, &["user"]).unwrap();
    let mut harness = builder.open().unwrap();
    harness.push(0, [event(1, 0)]).unwrap();
    harness.advance_to(5).unwrap();
    harness.push(0, [event(2, 0)]).unwrap();
    harness.advance_to(9).unwrap();
    assert!(harness.take_records::<Count>(0).unwrap().is_empty());
    harness.advance_to(10).unwrap();
    assert_eq!(harness.take_records::<Count>(0).unwrap(), [Count { user: 1, count: 1 }]);

    let snapshot = harness.snapshot().unwrap();
    let mut restored = builder.clone().parallelism(3).now(12).restore(&snapshot).unwrap();
    restored.advance_to(14).unwrap();
    assert!(restored.take_records::<Count>(0).unwrap().is_empty());
    restored.advance_to(15).unwrap();
    assert_eq!(restored.take_records::<Count>(0).unwrap(), [Count { user: 2, count: 1 }]);
}

#[test]
fn what_comes_after_the_barrier_is_not_in_the_snapshot() {
    let builder = process_harness(CountUntil::by(TimeDomain::Event), &["user"]).unwrap();
    let mut harness = builder.open().unwrap();
    harness.push(0, [event(1, 0)]).unwrap();
    let pending = harness.begin_snapshot().unwrap();
    harness.push(0, [event(1, 0), event(2, 0)]).unwrap();
    let snapshot = harness.complete_snapshot(pending).unwrap();
    let pending = harness.begin_snapshot().unwrap();
    harness.abort_snapshot(pending).unwrap();
    let total = |mut harness: OperatorHarness| {
        harness.end(0).unwrap();
        let mut counts = harness.take_records::<Count>(0).unwrap();
        counts.sort();
        counts
    };
    assert_eq!(total(builder.restore(&snapshot).unwrap()), [Count { user: 1, count: 1 }]);
    assert_eq!(total(harness), [Count { user: 1, count: 2 }, Count { user: 2, count: 1 }]);
}

#[test]
fn a_state_that_was_not_registered_is_a_clear_error() {
    #[derive(Clone, Default)]
    struct Forgetful(ValueState<u64>);
    impl KeyedProcess for Forgetful {
        type In = Event;
        type Out = Count;
        fn process(&mut self, _: EventRow<'_>, cx: &mut ProcessContext<'_, Count>) -> Result<()> {
            self.0.set(cx.state(), 1)
        }
    }
    let mut harness = process_harness(Forgetful::default(), &["user"]).unwrap().open().unwrap();
    assert!(harness.push(0, [event(1, 0)]).is_err());
}

#[test]
fn a_timer_knows_its_key() {
    #[derive(Clone)]
    struct Echo;
    impl KeyedProcess for Echo {
        type In = Event;
        type Out = Count;
        fn process(&mut self, row: EventRow<'_>, cx: &mut ProcessContext<'_, Count>) -> Result<()> {
            cx.register_event_timer(row.at)?;
            cx.state().register_event_timer(row.at.micros(), b"again")
        }
        fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, Count>) -> Result<()> {
            assert!(cx.key::<String>(0).unwrap_err().to_string().contains("part 0 of the key is a Int64"));
            assert!(cx.key::<i64>(1).unwrap_err().to_string().contains("there is no part 1"));
            assert_eq!(cx.key::<Option<i64>>(0)?, Some(cx.key(0)?));
            let count = timer.namespace.len() as u64;
            cx.emit(Count { user: cx.key(0)?, count });
            Ok(())
        }
    }
    let mut harness = process_harness(Echo, &["user"]).unwrap().open().unwrap();
    harness.push(0, [event(-7, 1)]).unwrap();
    harness.end(0).unwrap();
    let counts = harness.take_records::<Count>(0).unwrap();
    assert_eq!(counts, [Count { user: -7, count: 0 }, Count { user: -7, count: 5 }]);
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Record)]
#[record(crate = "thalweg_engine")]
struct Click {
    who: i64,
    page: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Record)]
#[record(crate = "thalweg_engine")]
struct Visit {
    at: Timestamp,
    page: String,
}

/// Joins every event of a user with every click of the user, whichever comes first.
#[derive(Clone, Default)]
struct Join {
    events: ListState<i64>,
    clicks: ListState<String>,
}

impl KeyedCoProcess for Join {
    type Left = Event;
    type Right = Click;
    type Out = Visit;

    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        self.events = cx.list("events")?;
        self.clicks = cx.list("clicks")?;
        Ok(())
    }

    fn process_left(&mut self, row: EventRow<'_>, cx: &mut ProcessContext<'_, Visit>) -> Result<()> {
        self.events.append(cx.state(), row.at.micros())?;
        for page in self.clicks.get(cx.state())? {
            cx.emit(Visit { at: row.at, page });
        }
        Ok(())
    }

    fn process_right(&mut self, row: ClickRow<'_>, cx: &mut ProcessContext<'_, Visit>) -> Result<()> {
        self.clicks.append(cx.state(), row.page.to_string())?;
        for at in self.events.get(cx.state())? {
            cx.emit_row(VisitRow { at: Timestamp(at), page: row.page });
        }
        Ok(())
    }
}

fn click(who: i64, page: &str) -> Click {
    Click { who, page: page.into() }
}

#[test]
fn two_inputs_share_the_state_of_a_key_through_a_rescale() {
    let builder = co_process_harness(Join::default(), &["user"], &["who"]).unwrap();
    let mut harness = builder.clone().parallelism(2).open().unwrap();
    harness.push(0, [event(1, 10), event(2, 20)]).unwrap();
    harness.push(1, [click(1, "a"), click(3, "c")]).unwrap();
    let snapshot = harness.snapshot().unwrap();
    let mut visits = harness.take_records::<Visit>(0).unwrap();
    let mut harness = builder.parallelism(3).restore(&snapshot).unwrap();
    harness.push(1, [click(2, "b")]).unwrap();
    harness.push(0, [event(1, 11)]).unwrap();
    visits.extend(harness.take_records::<Visit>(0).unwrap());
    visits.sort();
    let visit = |at, page: &str| Visit { at: Timestamp(at), page: page.into() };
    assert_eq!(visits, [visit(10, "a"), visit(11, "a"), visit(20, "b")]);
}

#[test]
fn keys_of_two_types_are_refused() {
    let error = co_process_harness(Join::default(), &["user"], &["page"]).unwrap().open().err().unwrap();
    assert!(error.to_string().contains("different types"), "{error}");
}

#[derive(Clone, Debug, PartialEq, Record)]
#[record(crate = "thalweg_engine")]
struct Limit {
    user: i64,
    limit: Option<u64>,
}

/// Emits a user's count whenever it is above the user's limit; a limit of nothing takes it back.
#[derive(Clone, Default)]
struct Limited {
    count: ValueState<u64>,
}

impl KeyedBroadcastProcess for Limited {
    type In = Event;
    type Broadcast = Limit;
    type Out = Count;
    type Key = i64;
    type Value = u64;

    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        self.count = cx.value("count")?;
        Ok(())
    }

    fn process(
        &mut self,
        row: EventRow<'_>,
        limits: &BTreeMap<i64, u64>,
        cx: &mut ProcessContext<'_, Count>,
    ) -> Result<()> {
        let count = self.count.get(cx.state())?.copied().unwrap_or(0) + 1;
        self.count.set(cx.state(), count)?;
        if limits.get(&row.user).is_some_and(|limit| count > *limit) {
            cx.emit(Count { user: row.user, count });
        }
        Ok(())
    }

    fn process_broadcast(
        &mut self,
        row: LimitRow<'_>,
        limits: &mut BTreeMap<i64, u64>,
        _cx: &mut BroadcastContext<'_, Count>,
    ) -> Result<()> {
        match row.limit {
            Some(limit) => limits.insert(row.user, limit),
            None => limits.remove(&row.user),
        };
        Ok(())
    }
}

#[test]
fn broadcast_state_is_on_every_instance_and_outlives_a_rescale_once() {
    let users = 0..20i64;
    let builder = broadcast_process_harness(Limited::default(), &["user"]).unwrap();
    let mut harness = builder.clone().parallelism(2).open().unwrap();
    harness.push(1, users.clone().map(|user| Limit { user, limit: Some(1) })).unwrap();
    harness.push(0, users.clone().map(|user| event(user, 0))).unwrap();
    assert!(harness.take_records::<Count>(0).unwrap().is_empty());
    let snapshot = harness.snapshot().unwrap();
    let unions = snapshot
        .parts()
        .filter(|part| matches!(part, thalweg_engine::checkpoint::SnapshotPart::Union { .. }));
    assert_eq!(unions.count(), 1, "the first instance alone writes the map");

    let mut harness = builder.parallelism(3).restore(&snapshot).unwrap();
    harness.push(1, [Limit { user: 7, limit: None }]).unwrap();
    harness.push(0, users.clone().map(|user| event(user, 0))).unwrap();
    let mut counts = harness.take_records::<Count>(0).unwrap();
    counts.sort();
    let expected: Vec<_> = users.filter(|user| *user != 7).map(|user| Count { user, count: 2 }).collect();
    assert_eq!(counts, expected);
}
