//! The table against a plain map, over random look-ups, deletes, evictions and checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::*;
use super::site::Site;
use crate::checkpoint::{CheckpointStorage, MemoryStorage};
use crate::operator::{OpenContext, OperatorSnapshot};
use crate::state::{KeyedStateSpec, MapBackend, RestoredState};

type Model = BTreeMap<u64, (u64, String)>;

fn add(site: &Site, state: &mut ColumnarState, model: &mut Model, keys: &[u64]) {
    let touched = site.look_up(state, keys);
    assert_eq!(touched.slots.len(), keys.len());
    for (&slot, &row) in touched.changed.iter().zip(&touched.first_rows) {
        let is_new = !model.contains_key(&keys[row as usize]);
        assert_eq!(touched.created.contains(&slot), is_new, "key {}", keys[row as usize]);
    }
    let mut rows = state.rows();
    for (&key, &slot) in keys.iter().zip(&touched.slots) {
        let (count, text) = model.entry(key).or_default();
        assert_eq!(rows.get(slot)[0], *count);
        assert_eq!(rows.bytes(slot, 1).unwrap_or_default(), text.as_bytes());
        *count += 1;
        *text = format!("{key} for the {count}th time");
        rows.get_mut(slot)[0] += 1;
        rows.set_bytes(slot, 1, text.as_bytes());
    }
}

#[derive(Clone, Debug)]
enum Action {
    Add(Vec<u64>),
    Delete(Vec<u64>),
    Freeze,
    Write,
    Abort,
    Restore,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let keys = || prop::collection::vec(0_u64..300, 1..80);
    let action = prop_oneof![
        6 => keys().prop_map(Action::Add),
        2 => keys().prop_map(Action::Delete),
        2 => Just(Action::Freeze),
        2 => Just(Action::Write),
        1 => Just(Action::Abort),
        1 => Just(Action::Restore),
    ];
    prop::collection::vec(action, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_table_is_a_map_that_survives(
        actions in actions(), by_name: bool, bytes_max in prop::sample::select(vec![1_usize, 4_000, 1 << 20]),
    ) {
        let storage: Arc<dyn CheckpointStorage> = Arc::new(MemoryStorage::new());
        let scratch = tempfile::tempdir().unwrap();
        let backend = Arc::new(MapBackend::new(scratch.path()));
        let site = Site { backend, storage, by_name, namespaced: false, bytes_max };
        let mut state = site.open(&RestoredState::default(), 1).unwrap();
        let mut model = Model::new();
        let mut pending: Option<(OperatorSnapshot, Model)> = None;
        let mut complete = (RestoredState::default(), Model::new());
        for (number, action) in (1_u64..).zip(actions) {
            match action {
                Action::Add(keys) => add(&site, &mut state, &mut model, &keys),
                Action::Delete(keys) => {
                    add(&site, &mut state, &mut model, &keys);
                    let touched = site.look_up(&mut state, &keys);
                    state.delete(&touched.changed);
                    keys.iter().for_each(|key| drop(model.remove(key)));
                }
                Action::Freeze if pending.is_none() => {
                    pending = Some((state.snapshot().unwrap(), model.clone()));
                }
                Action::Write => {
                    if let Some((snapshot, frozen)) = pending.take() {
                        complete = (site.write(snapshot, number).unwrap(), frozen);
                    }
                }
                Action::Abort => pending = None,
                Action::Restore => {
                    pending = None;
                    state = site.open(&complete.0, number + 1).unwrap();
                    model = complete.1.clone();
                }
                Action::Freeze => {}
            }
        }
        drop(pending);
        let all: Vec<u64> = (0..300).collect();
        for keys in all.chunks(50) {
            add(&site, &mut state, &mut model, keys);
        }
    }
}

#[test]
fn a_snapshot_of_what_did_not_change_writes_nothing() {
    let storage: Arc<dyn CheckpointStorage> = Arc::new(MemoryStorage::new());
    let scratch = tempfile::tempdir().unwrap();
    let site = Site {
        backend: Arc::new(MapBackend::new(scratch.path())),
        storage,
        by_name: false,
        namespaced: false,
        bytes_max: 1 << 20,
    };
    let mut state = site.open(&RestoredState::default(), 1).unwrap();
    add(&site, &mut state, &mut Model::new(), &(0..1_000).collect::<Vec<_>>());
    assert_eq!(state.dirty_slots().len(), 1_000);
    site.write(state.snapshot().unwrap(), 1).unwrap();
    assert!(state.dirty_slots().is_empty());
    let touched = site.look_up(&mut state, &[7, 8, 7]);
    assert_eq!(state.dirty_slots(), touched.changed);
}

#[test]
fn garbage_in_the_arena_is_left_behind() {
    let storage: Arc<dyn CheckpointStorage> = Arc::new(MemoryStorage::new());
    let scratch = tempfile::tempdir().unwrap();
    let site = Site {
        backend: Arc::new(MapBackend::new(scratch.path())),
        storage,
        by_name: true,
        namespaced: false,
        bytes_max: 1 << 30,
    };
    let mut state = site.open(&RestoredState::default(), 1).unwrap();
    let mut model = Model::new();
    let keys: Vec<u64> = (0..1_000).collect();
    for _ in 0..300 {
        add(&site, &mut state, &mut model, &keys);
    }
    // A thousand keys and texts of some 25 bytes each, and at most two mebibytes of garbage.
    assert!(state.bytes() < 3_000_000, "{} bytes", state.bytes());
}

#[test]
fn a_second_keyed_state_in_one_operator_is_refused_in_any_combination() {
    let storage: Arc<dyn CheckpointStorage> = Arc::new(MemoryStorage::new());
    let scratch = tempfile::tempdir().unwrap();
    let backend = Arc::new(MapBackend::new(scratch.path()));
    let site = Site { backend, storage, by_name: false, namespaced: false, bytes_max: 1 << 20 };
    let spec = site.spec();
    let columnar = |cx: &mut OpenContext<'_>| ColumnarState::open(cx, &spec).map(drop);
    let keyed = |cx: &mut OpenContext<'_>| cx.keyed_state(KeyedStateSpec::default()).map(drop);
    type Open<'a> = &'a dyn Fn(&mut OpenContext<'_>) -> crate::Result<()>;
    let pairs: [[Open<'_>; 2]; 4] =
        [[&columnar, &keyed], [&keyed, &columnar], [&keyed, &keyed], [&columnar, &columnar]];
    for [first, second] in pairs {
        let refused = site.opening(&RestoredState::default(), 1, |cx| {
            first(cx).unwrap();
            second(cx).unwrap_err().to_string()
        });
        assert!(refused.contains("operator table opens keyed state twice"), "{refused}");
    }
}
