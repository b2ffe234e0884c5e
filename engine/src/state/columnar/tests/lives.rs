//! Keys that come, change, are deleted, come again and are due, while helpers are slow or break off
//! in the middle of their writing, memory is short and the process starts again: against a plain
//! map. What is due is found as an operator finds it: in memory, or by the store's timers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::*;
use super::site::{Site, TIMER_OFFSET};
use crate::checkpoint::MemoryStorage;
use crate::operator::OperatorSnapshot;
use crate::state::tests::faulty::FaultyBackend;
use crate::state::{MapBackend, RestoredState};
use crate::time::Micros;

/// Windows of a key begin this far apart.
const WINDOW: Micros = 10;
const WINDOWS: u64 = 4;

/// What is known of every key, and the first window that is not over.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    counts: BTreeMap<(u64, Micros), u64>,
    base: Micros,
}

/// What the state of a key holds beside its count.
fn text(key: u64, window: Micros, count: u64) -> String {
    format!("{key} at {window}: {count}")
}

#[derive(Clone, Debug)]
enum Action {
    Add(Vec<(u64, u64)>),
    Delete(Vec<(u64, u64)>),
    /// Takes what is due next, in memory and in the store.
    Fire,
    Freeze,
    /// The helper does all its work.
    Finish,
    /// The helper breaks off after so many writes.
    Break(usize),
    /// The helper never begins.
    Abort,
    Restore,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let keys = || prop::collection::vec((0_u64..12, 0..WINDOWS), 1..12);
    let action = prop_oneof![
        6 => keys().prop_map(Action::Add),
        4 => keys().prop_map(Action::Delete),
        1 => Just(Action::Fire),
        4 => Just(Action::Freeze),
        3 => Just(Action::Finish),
        2 => (0_usize..4).prop_map(Action::Break),
        1 => Just(Action::Abort),
        1 => Just(Action::Restore),
    ];
    prop::collection::vec(action, 1..80)
}

struct Run {
    site: Site,
    backend: Arc<FaultyBackend>,
    state: ColumnarState,
    model: Model,
    pending: Option<(OperatorSnapshot, Model)>,
    complete: (RestoredState, Model),
    checkpoints: u64,
}

impl Run {
    fn new(scratch: &std::path::Path, by_name: bool, bytes_max: usize) -> Run {
        let backend = Arc::new(FaultyBackend::new(Arc::new(MapBackend::new(scratch))));
        let site = Site {
            backend: backend.clone(),
            storage: Arc::new(MemoryStorage::new()),
            by_name,
            namespaced: true,
            bytes_max,
        };
        let mut state = site.open(&RestoredState::default(), 1).unwrap();
        state.writer.share_bytes = 500;
        let complete = (RestoredState::default(), Model::default());
        Run { site, backend, state, model: Model::default(), pending: None, complete, checkpoints: 0 }
    }

    /// The beginning of the window that is so many after the first.
    fn window(&self, number: u64) -> Micros {
        self.model.base + number as Micros * WINDOW
    }

    fn add(&mut self, keys: &[(u64, u64)]) -> Touched {
        let (keys, windows): (Vec<u64>, Vec<Micros>) =
            keys.iter().map(|&(key, window)| (key, self.window(window))).unzip();
        let touched = self.site.look_up_in(&mut self.state, &keys, &windows);
        let mut rows = self.state.rows();
        for ((&key, &window), &slot) in keys.iter().zip(&windows).zip(&touched.slots) {
            let count = self.model.counts.entry((key, window)).or_default();
            assert_eq!(rows.get(slot)[0], *count, "key {key} window {window}");
            let seen = (*count > 0).then(|| text(key, window, *count));
            assert_eq!(rows.bytes(slot, 1), seen.as_ref().map(String::as_bytes));
            *count += 1;
            rows.get_mut(slot)[0] += 1;
            rows.set_bytes(slot, 1, text(key, window, *count).as_bytes());
        }
        touched
    }

    fn delete(&mut self, keys: &[(u64, u64)]) {
        let touched = self.add(keys);
        self.state.delete(&touched.changed);
        for &(key, window) in keys {
            let window = self.window(window);
            self.model.counts.remove(&(key, window));
        }
    }

    /// The slots in memory that are due at a time.
    fn due_in_memory(&self, time: Micros) -> Vec<u32> {
        let all = 0..self.state.chunks.slot_end();
        all.filter(|&slot| self.state.is_live(slot) && self.state.namespace(slot) + TIMER_OFFSET == time)
            .collect()
    }

    /// The earliest time that something is due.
    fn first_time(&self) -> Option<Micros> {
        let live = (0..self.state.chunks.slot_end()).filter(|&slot| self.state.is_live(slot));
        let in_memory = live.map(|slot| self.state.namespace(slot) + TIMER_OFFSET).min();
        in_memory.into_iter().chain(self.state.first_stored_time()).min()
    }

    /// Takes everything that is due at the earliest time, as an operator does.
    fn fire(&mut self) {
        let Some(time) = self.first_time() else {
            assert_eq!(self.model.counts, BTreeMap::new(), "nothing is due");
            return;
        };
        let mut fired = BTreeSet::new();
        let in_memory = self.due_in_memory(time);
        self.take(&in_memory, time, &mut fired);
        let mut cursor = self.state.begin_timers(time);
        let mut touched = Touched::default();
        loop {
            let more = self.state.next_timers(&mut cursor, 5, &mut touched).unwrap();
            self.take(&touched.changed, time, &mut fired);
            if !more {
                break;
            }
        }
        let due = self.model.counts.extract_if(.., |&(_, window), _| window + TIMER_OFFSET == time);
        assert_eq!(fired, due.map(|((key, window), count)| text(key, window, count)).collect(), "at {time}");
        self.model.base = self.model.base.max(time - TIMER_OFFSET + WINDOW);
    }

    fn take(&mut self, slots: &[u32], time: Micros, fired: &mut BTreeSet<String>) {
        for &slot in slots {
            assert_eq!(self.state.namespace(slot) + TIMER_OFFSET, time);
            let text = String::from_utf8(self.state.rows().bytes(slot, 1).unwrap().to_vec()).unwrap();
            let count = self.state.rows().get(slot)[0];
            assert!(text.ends_with(&format!(": {count}")), "{text}");
            assert!(fired.insert(text), "fired twice");
        }
        self.state.delete(slots);
    }

    /// Hands the frozen set to a helper that breaks off after so many writes.
    fn flush(&mut self, writes_max: usize) {
        let Some((snapshot, model)) = self.pending.take() else { return };
        self.checkpoints += 1;
        self.backend.break_after(writes_max);
        let written = self.site.write(snapshot, self.checkpoints);
        self.backend.break_after(usize::MAX);
        if let Ok(restored) = written {
            self.complete = (restored, model);
        }
    }

    fn step(&mut self, action: &Action) {
        match action {
            Action::Add(keys) => drop(self.add(keys)),
            Action::Delete(keys) => self.delete(keys),
            Action::Fire => self.fire(),
            Action::Freeze if self.pending.is_none() => {
                self.pending = Some((self.state.snapshot().unwrap(), self.model.clone()));
            }
            Action::Freeze => {}
            Action::Finish => self.flush(usize::MAX),
            Action::Break(writes) => self.flush(*writes),
            Action::Abort => self.pending = None,
            Action::Restore => {
                self.pending = None;
                self.checkpoints += 1;
                self.state = self.site.open(&self.complete.0, self.checkpoints).unwrap();
                self.state.writer.share_bytes = 500;
                self.model = self.complete.1.clone();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn keys_live_and_are_due_as_in_a_map_whatever_the_helper_does(
        actions in actions(), by_name: bool,
        bytes_max in prop::sample::select(vec![1_usize, 3_000, 1 << 20]),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let mut run = Run::new(scratch.path(), by_name, bytes_max);
        for action in &actions {
            run.step(action);
        }
        // What a last checkpoint holds is due after a restore, and what is in memory here.
        run.pending = None;
        run.step(&Action::Freeze);
        run.step(&Action::Finish);
        for restore in [false, true] {
            if restore {
                run.step(&Action::Restore);
            }
            for _ in 0..=WINDOWS {
                run.fire();
            }
            prop_assert_eq!(&run.model.counts, &BTreeMap::new());
        }
    }
}
