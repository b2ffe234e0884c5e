//! A store that fails as it is told, for tests and the simulator.
//!
//! The rule: faults are named by meaning ("checkpoint 3, second shared upload"), not by how many
//! calls went before, so that a seed names the same fault after the code has changed. What fails
//! is decided by a closure over the call; nothing here draws lots or reads a clock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::layout::JobLayout;
use super::{Cancellation, CheckpointId, CheckpointStorage, ObjectInfo, PutOutcome};
use crate::{Error, Result};

/// Which method was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `put` or `put_file`.
    Put,
    /// `put_if_absent`.
    PutIfAbsent,
    /// `get`, `get_range` or `get_file`.
    Get,
    /// `list`.
    List,
    /// `delete`.
    Delete,
}

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meaning {
    /// An entry of the log, or the log's listing.
    Log,
    /// A checkpoint's manifest.
    Manifest(CheckpointId),
    /// A shared file, with the checkpoint that uploaded it.
    Shared(CheckpointId),
    /// A file of a checkpoint's own.
    Private(CheckpointId),
    /// Anything else.
    Other,
}

/// One call, as the plan sees it.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method.
    pub operation: Operation,
    /// The path or prefix.
    pub path: &'a str,
    /// What it is for.
    pub meaning: Meaning,
    /// How many calls of this operation with this meaning went before: 0 for the first.
    pub nth: u64,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the call goes through.
    #[default]
    None,
    /// It fails and has no effect.
    FailBefore,
    /// It takes effect, and fails all the same: an answer that was lost.
    FailAfter,
    /// It is refused, as by a 403, and has no effect: the same call will be refused again.
    Refuse,
}

/// Decides a call's fate.
pub type FaultPlan = Box<dyn FnMut(&Call<'_>) -> Fault + Send>;

/// A store whose calls fail as a plan says.
pub struct FaultyStorage {
    inner: Arc<dyn CheckpointStorage>,
    layout: JobLayout,
    state: Mutex<State>,
}

struct State {
    plan: FaultPlan,
    counts: BTreeMap<(Operation, Meaning), u64>,
}

impl FaultyStorage {
    /// Wraps a store. `layout` is that of the job whose calls are given a meaning.
    pub fn new(inner: Arc<dyn CheckpointStorage>, layout: JobLayout, plan: FaultPlan) -> FaultyStorage {
        FaultyStorage { inner, layout, state: Mutex::new(State { plan, counts: BTreeMap::new() }) }
    }

    /// Replaces the plan. Counts go on.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.state.lock().plan = plan;
    }

    fn meaning(&self, path: &str) -> Meaning {
        if path.starts_with(&self.layout.log_directory()) {
            return Meaning::Log;
        }
        match self.layout.written_by(path) {
            Some(id) if path == self.layout.manifest(id) => Meaning::Manifest(id),
            Some(id) if path.starts_with(&self.layout.shared_directory()) => Meaning::Shared(id),
            Some(id) => Meaning::Private(id),
            None => Meaning::Other,
        }
    }

    fn call<T>(&self, operation: Operation, path: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let meaning = self.meaning(path);
        // The plan's lock is not held while the inner store works: stores may be stacked.
        let fault = {
            let mut state = self.state.lock();
            let count = state.counts.entry((operation, meaning)).or_default();
            let nth = *count;
            *count += 1;
            (state.plan)(&Call { operation, path, meaning, nth })
        };
        let failed = || Error::store(format!("{operation:?} {path}: injected fault"));
        match fault {
            Fault::None => work(),
            Fault::FailBefore => Err(failed()),
            Fault::FailAfter => work().and_then(|_| Err(failed())),
            Fault::Refuse => {
                Err(Error::store(format!("{operation:?} {path}: injected refusal (403)")).permanent())
            }
        }
    }
}

impl CheckpointStorage for FaultyStorage {
    fn put(&self, path: &str, data: Bytes) -> Result<()> {
        self.call(Operation::Put, path, || self.inner.put(path, data))
    }

    fn put_if_absent(&self, path: &str, data: Bytes) -> Result<PutOutcome> {
        self.call(Operation::PutIfAbsent, path, || self.inner.put_if_absent(path, data))
    }

    fn put_file(&self, path: &str, local: &Path, cancelled: &Cancellation) -> Result<u64> {
        self.call(Operation::Put, path, || self.inner.put_file(path, local, cancelled))
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.call(Operation::Get, path, || self.inner.get(path))
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.call(Operation::Get, path, || self.inner.get_range(path, range))
    }

    fn get_file(&self, path: &str, local: &Path) -> Result<Option<u64>> {
        self.call(Operation::Get, path, || self.inner.get_file(path, local))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.call(Operation::List, prefix, || self.inner.list(prefix))
    }

    fn delete(&self, path: &str) -> Result<()> {
        self.call(Operation::Delete, path, || self.inner.delete(path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStorage;
    use super::*;

    const ID: CheckpointId = CheckpointId { generation: 1, number: 3 };

    #[test]
    fn the_second_upload_of_checkpoint_3_fails_and_no_other() {
        let layout = JobLayout::new("job").unwrap();
        let memory = Arc::new(MemoryStorage::new());
        let plan: FaultPlan = Box::new(|call| match (call.operation, call.meaning, call.nth) {
            (Operation::Put, Meaning::Shared(CheckpointId { number: 3, .. }), 1) => Fault::FailBefore,
            _ => Fault::None,
        });
        let faulty = FaultyStorage::new(memory.clone(), layout.clone(), plan);
        let other = CheckpointId { generation: 1, number: 4 };
        faulty.put(&layout.manifest(ID), Bytes::new()).unwrap();
        faulty.put(&layout.shared(ID, "a"), Bytes::new()).unwrap();
        faulty.put(&layout.shared(other, "a"), Bytes::new()).unwrap();
        faulty.put(&layout.shared(other, "b"), Bytes::new()).unwrap();
        assert!(faulty.put(&layout.shared(ID, "b"), Bytes::new()).unwrap_err().is_retryable());
        assert!(memory.get(&layout.shared(ID, "b")).unwrap().is_none());
        faulty.put(&layout.shared(ID, "b"), Bytes::new()).unwrap();
    }

    #[test]
    fn a_lost_answer_leaves_the_effect() {
        let layout = JobLayout::new("job").unwrap();
        let memory = Arc::new(MemoryStorage::new());
        let faulty = FaultyStorage::new(memory.clone(), layout.clone(), Box::new(|_| Fault::FailAfter));
        assert!(faulty.put_if_absent(&layout.log_entry(0), "x".into()).is_err());
        assert!(memory.get(&layout.log_entry(0)).unwrap().is_some());
        faulty.set_plan(Box::new(|_| Fault::None));
        assert_eq!(faulty.put_if_absent(&layout.log_entry(0), "y".into()).unwrap(), PutOutcome::Exists);
    }
}
