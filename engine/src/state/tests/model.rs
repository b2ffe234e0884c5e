//! Values, lists, maps and timers against plain collections, over random changes, evictions,
//! barriers, helpers that are slow, abandoned or break off in the middle, in any order, and restores.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::frozen::{Flush, FlushStep};
use super::super::*;
use super::site::{Kind, Site, at, key_bytes};
use crate::Result;
use crate::checkpoint::{CheckpointId, KeyedHandle, SnapshotPart, SnapshotSite};
use crate::time::{Micros, Watermark};

/// What all states of all keys hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    values: BTreeMap<u64, u64>,
    lists: BTreeMap<u64, Vec<String>>,
    maps: BTreeMap<u64, BTreeMap<i32, String>>,
    timers: BTreeSet<(Micros, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Op {
    Set(u64, u64),
    Add(u64),
    Clear(u64),
    Append(u64, u8),
    ListClear(u64),
    ListGet(u64),
    Put(u64, i32, u8),
    Remove(u64, i32),
    MapGet(u64, i32),
    MapClear(u64),
    MapIter(u64),
    Register(u64, Micros),
    Unregister(u64, Micros),
    /// Takes so many timers, the earliest first.
    Fire(usize),
    Barrier,
    /// One of the helpers under way does its next piece of work.
    Step(usize),
    /// It works until it is done, or must wait for another.
    Finish(usize),
    /// It is gone, wherever it is.
    Drop(usize),
    /// Its next write fails.
    Fail(usize),
    /// Freezing its files will fail.
    Break(usize),
    Restore,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u64..8;
    let map_key = -3i32..5;
    let time = 0 as Micros..10;
    let helper = 0_usize..4;
    prop_oneof![
        4 => (key.clone(), any::<u64>()).prop_map(|(key, value)| Op::Set(key, value)),
        4 => key.clone().prop_map(Op::Add),
        2 => key.clone().prop_map(Op::Clear),
        4 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Op::Append(key, value)),
        1 => key.clone().prop_map(Op::ListClear),
        2 => key.clone().prop_map(Op::ListGet),
        5 => (key.clone(), map_key.clone(), any::<u8>()).prop_map(|(key, at, value)| Op::Put(key, at, value)),
        3 => (key.clone(), map_key.clone()).prop_map(|(key, at)| Op::Remove(key, at)),
        3 => (key.clone(), map_key).prop_map(|(key, at)| Op::MapGet(key, at)),
        1 => key.clone().prop_map(Op::MapClear),
        2 => key.clone().prop_map(Op::MapIter),
        6 => (key.clone(), time.clone()).prop_map(|(key, time)| Op::Register(key, time)),
        5 => (key.clone(), time).prop_map(|(key, time)| Op::Unregister(key, time)),
        1 => (1_usize..8).prop_map(Op::Fire),
        6 => Just(Op::Barrier),
        24 => helper.clone().prop_map(Op::Step),
        1 => helper.clone().prop_map(Op::Finish),
        3 => helper.clone().prop_map(Op::Drop),
        1 => helper.clone().prop_map(Op::Fail),
        1 => helper.prop_map(Op::Break),
        1 => Just(Op::Restore),
    ]
}

/// A helper under way.
struct Pending {
    flush: Flush,
    site: SnapshotSite,
    model: Model,
}

/// Helpers under way at a time.
const PENDING_MAX: usize = 4;

struct Run {
    site: Site,
    keyed: KeyedState,
    value: ValueState<u64>,
    list: ListState<String>,
    map: MapState<i32, String>,
    model: Model,
    pending: Vec<Pending>,
    complete: Option<(CheckpointId, KeyedHandle, Model)>,
}

fn text(value: u8) -> String {
    "x".repeat(usize::from(value) % 40) + &value.to_string()
}

impl Run {
    fn new(kind: Kind, cache_bytes_max: usize) -> Run {
        let spec = KeyedStateSpec { cache_bytes_max, timer_bytes_max: 1024 };
        let mut site = Site::new(kind, spec);
        let mut keyed = site.open(&[]);
        let (value, list, map) = Self::states(&mut keyed);
        Run { site, keyed, value, list, map, model: Model::default(), pending: Vec::new(), complete: None }
    }

    fn states(keyed: &mut KeyedState) -> (ValueState<u64>, ListState<String>, MapState<i32, String>) {
        (keyed.value("value").unwrap(), keyed.list("list").unwrap(), keyed.map("map").unwrap())
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Set(key, to) => {
                at(&mut self.keyed, key);
                self.value.set(&mut self.keyed, to).unwrap();
                self.model.values.insert(key, to);
            }
            Op::Add(key) => {
                at(&mut self.keyed, key);
                let seen = self.value.get(&mut self.keyed).unwrap().copied();
                assert_eq!(seen.as_ref(), self.model.values.get(&key));
                let sum = seen.unwrap_or(0).wrapping_add(1);
                self.value.modify(&mut self.keyed, |value| *value = Some(sum)).unwrap();
                self.model.values.insert(key, sum);
            }
            Op::Clear(key) => {
                at(&mut self.keyed, key);
                self.value.clear(&mut self.keyed).unwrap();
                self.model.values.remove(&key);
            }
            Op::Append(key, value) => {
                at(&mut self.keyed, key);
                self.list.append(&mut self.keyed, text(value)).unwrap();
                self.model.lists.entry(key).or_default().push(text(value));
            }
            Op::ListClear(key) => {
                at(&mut self.keyed, key);
                self.list.clear(&mut self.keyed).unwrap();
                self.model.lists.remove(&key);
            }
            Op::ListGet(key) => self.check_list(key),
            Op::Put(key, map_key, value) => {
                at(&mut self.keyed, key);
                self.map.put(&mut self.keyed, map_key, text(value)).unwrap();
                self.model.maps.entry(key).or_default().insert(map_key, text(value));
            }
            Op::Remove(key, map_key) => {
                at(&mut self.keyed, key);
                self.map.remove(&mut self.keyed, &map_key).unwrap();
                self.model.maps.entry(key).or_default().remove(&map_key);
            }
            Op::MapGet(key, map_key) => {
                at(&mut self.keyed, key);
                let expected = self.model.maps.get(&key).and_then(|map| map.get(&map_key));
                assert_eq!(self.map.get(&mut self.keyed, &map_key).unwrap(), expected);
            }
            Op::MapClear(key) => {
                at(&mut self.keyed, key);
                self.map.clear(&mut self.keyed).unwrap();
                self.model.maps.remove(&key);
            }
            Op::MapIter(key) => self.check_map(key),
            Op::Register(key, time) => {
                at(&mut self.keyed, key);
                self.keyed.register_event_timer(time, b"").unwrap();
                self.model.timers.insert((time, key_bytes(key)));
            }
            Op::Unregister(key, time) => {
                at(&mut self.keyed, key);
                self.keyed.delete_event_timer(time, b"").unwrap();
                self.model.timers.remove(&(time, key_bytes(key)));
            }
            Op::Fire(count) => (0..count).for_each(|_| self.fire()),
            _ => self.checkpoint_step(op),
        }
    }

    fn fire(&mut self) {
        let fired = self.keyed.next_due_event_timer(Watermark::MAX).unwrap();
        let fired = fired.map(|timer| (timer.time, timer.key));
        assert_eq!(fired.as_ref().map(|timer| timer.0), self.model.timers.first().map(|timer| timer.0));
        assert!(fired.is_none_or(|timer| self.model.timers.remove(&timer)));
    }

    fn checkpoint_step(&mut self, op: &Op) {
        match *op {
            Op::Barrier if self.pending.len() < PENDING_MAX => {
                let (flush, site) = self.site.freeze(&mut self.keyed);
                self.pending.push(Pending { flush, site, model: self.model.clone() });
            }
            Op::Restore => {
                if let Some((_, handle, model)) = self.complete.clone() {
                    self.pending.clear();
                    self.keyed = self.site.open(&[handle]);
                    (self.value, self.list, self.map) = Self::states(&mut self.keyed);
                    self.model = model;
                }
            }
            Op::Step(helper)
            | Op::Finish(helper)
            | Op::Drop(helper)
            | Op::Fail(helper)
            | Op::Break(helper)
                if !self.pending.is_empty() =>
            {
                self.helper_step(op, helper % self.pending.len());
            }
            _ => {}
        }
    }

    fn helper_step(&mut self, op: &Op, helper: usize) {
        let Pending { flush, site, .. } = &mut self.pending[helper];
        let step = match op {
            Op::Drop(_) => Err(crate::Error::external("dropped")),
            Op::Break(_) => {
                site.scratch = site.scratch.join("not").join("there");
                Ok(FlushStep::More)
            }
            Op::Fail(_) => {
                self.site.faults.break_after(0);
                let step = flush.step(site);
                self.site.faults.break_after(usize::MAX);
                step
            }
            Op::Finish(_) => loop {
                match flush.step(site) {
                    Ok(FlushStep::More) => {}
                    step => break step,
                }
            },
            _ => flush.step(site),
        };
        self.helper_stepped(helper, step);
    }

    fn helper_stepped(&mut self, helper: usize, step: Result<FlushStep>) {
        if matches!(step, Ok(FlushStep::More | FlushStep::Blocked(_))) {
            return;
        }
        let Pending { flush, site, model } = self.pending.remove(helper);
        if step.is_err() {
            drop(flush);
            self.keyed.checkpoint_aborted(site.checkpoint).unwrap();
            return;
        }
        let parts = flush.upload(&site).unwrap();
        let [SnapshotPart::Keyed(handle)] = parts.as_slice() else { panic!("{parts:?}") };
        self.site.complete(handle);
        self.keyed.checkpoint_completed(site.checkpoint).unwrap();
        if self.complete.as_ref().is_none_or(|complete| complete.0 < site.checkpoint) {
            self.complete = Some((site.checkpoint, handle.clone(), model));
        }
    }

    fn check_list(&mut self, key: u64) {
        at(&mut self.keyed, key);
        let expected = self.model.lists.get(&key).cloned().unwrap_or_default();
        assert_eq!(self.list.is_empty(&mut self.keyed).unwrap(), expected.is_empty());
        assert_eq!(self.list.get(&mut self.keyed).unwrap(), expected);
    }

    fn check_map(&mut self, key: u64) {
        at(&mut self.keyed, key);
        let expected = self.model.maps.get(&key).cloned().unwrap_or_default();
        let seen: Vec<_> = self.map.iter(&mut self.keyed).unwrap().collect();
        assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
    }

    fn check_all(&mut self) {
        for key in 0..8 {
            at(&mut self.keyed, key);
            assert_eq!(self.value.get(&mut self.keyed).unwrap(), self.model.values.get(&key));
            self.check_list(key);
            self.check_map(key);
        }
        for _ in 0..=self.model.timers.len() {
            self.fire();
        }
    }

    /// Everything that was ever known, here and after a restore of a last checkpoint.
    fn check_here_and_restored(&mut self) {
        self.pending.clear();
        self.checkpoint_step(&Op::Barrier);
        self.checkpoint_step(&Op::Finish(0));
        self.check_all();
        self.checkpoint_step(&Op::Restore);
        self.check_all();
    }
}

fn run(kind: Kind, ops: &[Op], cache_bytes_max: usize) {
    let mut run = Run::new(kind, cache_bytes_max);
    // A task waits for helpers only where they run beside it; here they are steps of this thread.
    run.keyed.stop_waiting();
    for op in ops {
        run.step(op);
        run.keyed.stop_waiting();
    }
    run.check_here_and_restored();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn states_on_an_ordered_map_behave_as_the_model(
        ops in proptest::collection::vec(op(), 1..400), cache in 256usize..20_000,
    ) {
        run(Kind::Map, &ops, cache);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn states_on_rocksdb_behave_as_the_model(
        ops in proptest::collection::vec(op(), 1..150), cache in 256usize..20_000,
    ) {
        run(Kind::Rocks, &ops, cache);
    }
}
