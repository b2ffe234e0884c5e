use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::site::{Kind, Site, at, finish};
use crate::checkpoint::{KeyedHandle, SnapshotSite, SnapshotTask};

/// What all states of all keys hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    values: BTreeMap<u64, u64>,
    lists: BTreeMap<u64, Vec<String>>,
    maps: BTreeMap<u64, BTreeMap<i32, String>>,
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
    Barrier,
    Finish,
    Drop,
    Break,
    Restore,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u64..12;
    let map_key = -3i32..5;
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
        2 => key.prop_map(Op::MapIter),
        2 => Just(Op::Barrier),
        2 => Just(Op::Finish),
        1 => Just(Op::Drop),
        1 => Just(Op::Break),
        1 => Just(Op::Restore),
    ]
}

struct Pending {
    task: SnapshotTask,
    site: SnapshotSite,
    model: Model,
}

struct Run {
    site: Site,
    keyed: KeyedState,
    value: ValueState<u64>,
    list: ListState<String>,
    map: MapState<i32, String>,
    model: Model,
    pending: Vec<Pending>,
    complete: Option<(KeyedHandle, Model)>,
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
            _ => self.checkpoint_step(op),
        }
    }

    fn checkpoint_step(&mut self, op: &Op) {
        match op {
            Op::Barrier if self.pending.len() < 3 => {
                let (task, site) = self.site.barrier(&mut self.keyed);
                self.pending.push(Pending { task, site, model: self.model.clone() });
            }
            Op::Finish => {
                if let Some(Pending { task, site, model }) = self.pending.pop() {
                    let handle = finish(task, &site).unwrap();
                    self.site.complete(&handle);
                    self.keyed.checkpoint_completed(site.checkpoint).unwrap();
                    self.complete = Some((handle, model));
                    // Earlier ones were overtaken.
                    for Pending { task, site, .. } in self.pending.drain(..) {
                        assert!(task(&site).is_err());
                        self.keyed.checkpoint_aborted(site.checkpoint).unwrap();
                    }
                }
            }
            Op::Drop => drop(self.pending.pop()),
            Op::Break => {
                if let Some(Pending { task, mut site, .. }) = self.pending.pop() {
                    site.scratch = site.scratch.join("not").join("there");
                    assert!(task(&site).is_err());
                    for Pending { task, site, .. } in self.pending.drain(..) {
                        assert!(task(&site).is_err());
                    }
                }
            }
            Op::Restore => {
                if let Some((handle, model)) = self.complete.clone() {
                    self.pending.clear();
                    self.keyed = self.site.open(&[handle]);
                    (self.value, self.list, self.map) = Self::states(&mut self.keyed);
                    self.model = model;
                    self.check_all();
                }
            }
            _ => {}
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
        for key in 0..12 {
            at(&mut self.keyed, key);
            assert_eq!(self.value.get(&mut self.keyed).unwrap(), self.model.values.get(&key));
            self.check_list(key);
            self.check_map(key);
        }
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
    run.check_all();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn states_on_an_ordered_map_behave_as_the_model(
        ops in proptest::collection::vec(op(), 1..200), cache in 256usize..20_000,
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
