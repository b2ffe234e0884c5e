//! Two coordinators on one store: the first is paused before or after each of its calls to the
//! store in turn, the second claims and works, the first wakes.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::Result;
use crate::checkpoint::{Cancellation, ObjectInfo, PutOutcome};

/// Runs `meanwhile` once, before or after the call number `at`.
struct Pausing {
    inner: Arc<MemoryStorage>,
    at: usize,
    before: bool,
    calls: AtomicUsize,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Pausing {
    fn call<T>(&self, work: impl FnOnce(&MemoryStorage) -> T) -> T {
        let is_it = self.calls.fetch_add(1, Ordering::Relaxed) == self.at;
        let meanwhile = || {
            if is_it && let Some(meanwhile) = self.meanwhile.lock().take() {
                meanwhile();
            }
        };
        if self.before {
            meanwhile();
        }
        let answer = work(&self.inner);
        if !self.before {
            meanwhile();
        }
        answer
    }
}

impl CheckpointStorage for Pausing {
    fn put(&self, path: &str, data: Bytes) -> Result<()> {
        self.call(|inner| inner.put(path, data))
    }
    fn put_if_absent(&self, path: &str, data: Bytes) -> Result<PutOutcome> {
        self.call(|inner| inner.put_if_absent(path, data))
    }
    fn put_file(&self, path: &str, local: &Path, cancelled: &Cancellation) -> Result<u64> {
        self.call(|inner| inner.put_file(path, local, cancelled))
    }
    fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.call(|inner| inner.get(path))
    }
    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.call(|inner| inner.get_range(path, range))
    }
    fn get_file(&self, path: &str, local: &Path) -> Result<Option<u64>> {
        self.call(|inner| inner.get_file(path, local))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.call(|inner| inner.list(prefix))
    }
    fn delete(&self, path: &str) -> Result<()> {
        self.call(|inner| inner.delete(path))
    }
}

/// What the paused coordinator was told, in order.
#[derive(Default)]
struct Told {
    published: Vec<CheckpointId>,
    committed: Vec<CheckpointId>,
    retired: Vec<CheckpointId>,
}

/// A coordinator's life: claims, then publishes, commits and retires `rounds` times. Stops at the
/// first error.
fn live(mut log: JobLog, rounds: usize, told: &Mutex<Told>) -> (JobLog, Result<()>) {
    let mut round = || -> Result<()> {
        let checkpoint = next(&log);
        log.publish(checkpoint)?;
        told.lock().published.push(checkpoint);
        log.committed(checkpoint)?;
        told.lock().committed.push(checkpoint);
        let old = log.view().retirable(2);
        log.retire(&old)?;
        told.lock().retired.extend(old);
        Ok(())
    };
    let ended = (0..rounds).try_for_each(|_| round());
    (log, ended)
}

/// Pauses at call `at`; returns false when the coordinator's life had fewer calls.
fn pause_at(at: usize, before: bool, successor_rounds: usize) -> bool {
    let memory = Arc::new(MemoryStorage::new());
    // Somebody was there before, so that the log does not begin with the one that is paused.
    let (_, ended) = live(claim(&memory, "before"), 2, &Mutex::default());
    ended.unwrap();

    let told = Arc::new(Mutex::new(Told::default()));
    let successor = Arc::new(Mutex::new(None));
    let meanwhile = {
        let (memory, told, successor) = (memory.clone(), told.clone(), successor.clone());
        move || {
            let log = claim(&memory, "successor");
            let (known, told) = (log.view().clone(), told.lock());
            for checkpoint in &told.published {
                let kept = known.published().contains(checkpoint);
                assert!(
                    kept || checkpoint.number < known.next_number() - 2,
                    "{checkpoint} was published and is lost"
                );
            }
            assert!(told.committed.iter().all(|&checkpoint| known.is_committed(checkpoint)));
            assert!(told.retired.iter().all(|checkpoint| !known.published().contains(checkpoint)));
            drop(told);
            let (log, ended) = live(log, successor_rounds, &Mutex::default());
            ended.unwrap();
            *successor.lock() = Some((log, known));
        }
    };
    let storage = Arc::new(Pausing {
        inner: memory.clone(),
        at,
        before,
        calls: AtomicUsize::new(0),
        meanwhile: Mutex::new(Some(Box::new(meanwhile))),
    });
    let paused = JobLog::claim(storage.clone(), layout(), "paused".into()).unwrap();
    if let Some((log, _)) = &*successor.lock()
        && paused.generation() > log.generation()
    {
        // Overtaken while it claimed, it is now the successor of its successor.
        assert_eq!(paused.view().published(), log.view().published());
        return true;
    }
    let (mut paused, ended) = live(paused, 14, &told);
    let Some((mut log, known)) = successor.lock().take() else { return false };
    if let Err(error) = ended {
        assert!(!error.is_retryable(), "{error}");
    }
    // Nothing of what it did after waking is in the log, and it will never do anything again.
    assert!(paused.publish(next(&paused)).is_err());
    assert!(paused.is_fenced());
    assert_eq!(read_log(&*memory, &layout()).unwrap(), *log.view(), "paused at {at}, before: {before}");
    for checkpoint in &told.lock().published {
        assert!(checkpoint.number < known.next_number(), "{checkpoint} was published after the claim");
    }
    assert!(told.lock().committed.iter().all(|&checkpoint| known.is_committed(checkpoint)));
    publish_next(&mut log);
    assert_eq!(read_log(&*memory, &layout()).unwrap(), *log.view());
    true
}

fn pause_everywhere(successor_rounds: usize) {
    for before in [true, false] {
        let mut at = 0;
        while pause_at(at, before, successor_rounds) {
            at += 1;
        }
        assert!(at > 100, "the life of a coordinator has {at} calls");
    }
}

#[test]
fn a_coordinator_that_wakes_after_its_successor_worked_changes_nothing() {
    pause_everywhere(2);
}

#[test]
fn nor_after_its_successor_has_only_claimed() {
    pause_everywhere(0);
}

#[test]
fn nor_after_its_successor_has_compacted_the_log_past_its_slot() {
    pause_everywhere(40);
}
