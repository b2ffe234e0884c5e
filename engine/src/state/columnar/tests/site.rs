//! A workplace for the tests of the table: a backend, a store for checkpoints, and tables on them.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray, UInt64Array};
use arrow::datatypes::DataType;

use super::super::*;
use crate::checkpoint::{Cancellation, CheckpointId, CheckpointStorage, SnapshotSite};
use crate::graph::Uid;
use crate::metrics::MetricGroup;
use crate::operator::{OpenContext, OperatorSnapshot, SubtaskInfo, Waker};
use crate::state::key_encoding::hash_keys;
use crate::state::{RestoredState, StateBackend};
use crate::time::Micros;

/// When a namespace is due, from its beginning.
pub(super) const TIMER_OFFSET: Micros = 9;

/// A state of a counter and a string, for keys that are words or strings; with namespaces, it has a
/// timer at each one's end.
pub(super) struct Site {
    pub(super) backend: Arc<dyn StateBackend>,
    pub(super) storage: Arc<dyn CheckpointStorage>,
    pub(super) by_name: bool,
    pub(super) namespaced: bool,
    pub(super) bytes_max: usize,
}

impl Site {
    pub(super) fn opening<T>(
        &self,
        restored: &RestoredState,
        generation: u64,
        open: impl FnOnce(&mut OpenContext<'_>) -> T,
    ) -> T {
        let info = SubtaskInfo {
            job: "job".into(),
            uid: Uid::new("table").unwrap(),
            subtask: 0,
            parallelism: 1,
            max_parallelism: 8,
            generation,
            attempt: 1,
            claim: "test".into(),
        };
        let mut cx = OpenContext {
            info: &info,
            restored,
            backend: &self.backend,
            storage: &self.storage,
            metrics: &MetricGroup::default(),
            waker: &Waker::new(|| {}),
            now: 0,
            has_keyed_state: false,
        };
        open(&mut cx)
    }

    pub(super) fn open(&self, restored: &RestoredState, generation: u64) -> crate::Result<ColumnarState> {
        let spec = self.spec();
        self.opening(restored, generation, |cx| ColumnarState::open(cx, &spec))
    }

    pub(super) fn spec(&self) -> ColumnarSpec {
        ColumnarSpec {
            key: vec![if self.by_name { DataType::Utf8View } else { DataType::UInt64 }],
            namespaced: self.namespaced,
            words: vec![WordKind::Plain, WordKind::Bytes],
            timer_offsets: if self.namespaced { vec![TIMER_OFFSET] } else { vec![] },
            describe: "count and text".into(),
            describe_timers: String::new(),
            bytes_max: self.bytes_max,
        }
    }

    fn column(&self, keys: &[u64]) -> ArrayRef {
        if self.by_name {
            Arc::new(StringViewArray::from_iter_values(keys.iter().map(|key| format!("the key named {key}"))))
        } else {
            Arc::new(UInt64Array::from(keys.to_vec()))
        }
    }

    pub(super) fn look_up(&self, state: &mut ColumnarState, keys: &[u64]) -> Touched {
        self.look_up_in(state, keys, &[])
    }

    pub(super) fn look_up_in(&self, state: &mut ColumnarState, keys: &[u64], namespaces: &[i64]) -> Touched {
        let columns = [self.column(keys)];
        let hashes = hash_keys(&columns, keys.len()).unwrap();
        let mut touched = Touched::default();
        state.look_up(&columns, hashes.values(), namespaces, 0, &mut touched).unwrap();
        touched
    }

    pub(super) fn write(&self, snapshot: OperatorSnapshot, number: u64) -> crate::Result<RestoredState> {
        let checkpoint = CheckpointId { generation: 1, number };
        let site = SnapshotSite {
            storage: self.storage.clone(),
            job_path: "job".into(),
            checkpoint,
            uid: Uid::new("table").unwrap(),
            subtask: 0,
            known: Arc::default(),
            scratch: self.backend.scratch(&format!("columnar-{checkpoint}")).unwrap(),
            cancelled: Cancellation::default(),
        };
        Ok(RestoredState { parts: snapshot.make(&site)? })
    }
}
