//! A checkpoint that waits for its acknowledgements.

use std::collections::{BTreeMap, BTreeSet};

use super::TaskId;
use super::decision::CheckpointContent;
use crate::checkpoint::{CheckpointId, SnapshotPart};
use crate::graph::{ChainId, Uid};
use crate::sink::Committable;
use crate::source::SplitState;
use crate::time::Micros;

/// A checkpoint that was triggered and not yet acknowledged by all.
pub struct PendingCheckpoint {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// When it was triggered.
    pub started: Micros,
    waiting: BTreeSet<TaskId>,
    parts: BTreeMap<(Uid, u32), Vec<SnapshotPart>>,
    released: BTreeMap<Uid, Vec<SplitState>>,
    finished: BTreeSet<(ChainId, u32)>,
    enumerators: BTreeMap<Uid, Vec<u8>>,
}

impl PendingCheckpoint {
    /// A checkpoint that waits for `waiting`.
    pub fn new(
        checkpoint: CheckpointId,
        started: Micros,
        waiting: BTreeSet<TaskId>,
        enumerators: BTreeMap<Uid, Vec<u8>>,
    ) -> Self {
        PendingCheckpoint {
            checkpoint,
            started,
            waiting,
            parts: BTreeMap::new(),
            released: BTreeMap::new(),
            finished: BTreeSet::new(),
            enumerators,
        }
    }

    /// Takes an acknowledgement in. Returns whether it was the last one.
    pub fn acknowledge(
        &mut self,
        id: &TaskId,
        parts: Vec<(Uid, Vec<SnapshotPart>)>,
        released: Vec<(Uid, SplitState)>,
        finished: bool,
    ) -> bool {
        if !self.waiting.remove(id) {
            return false;
        }
        for (uid, parts) in parts {
            self.parts.insert((uid, id.subtask), parts);
        }
        for (uid, split) in released {
            self.released.entry(uid).or_default().push(split);
        }
        if finished {
            self.finished.insert((id.chain, id.subtask));
        }
        self.waiting.is_empty()
    }

    /// Who has not acknowledged.
    pub fn waiting(&self) -> impl Iterator<Item = &TaskId> {
        self.waiting.iter()
    }

    /// Who has not acknowledged, for an error.
    pub fn missing(&self) -> String {
        self.waiting.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// What is to be published, and the splits that were given back.
    pub fn into_content(
        self,
        uids: &BTreeMap<ChainId, Vec<Uid>>,
        uncommitted: BTreeMap<CheckpointId, Vec<Committable>>,
    ) -> (CheckpointContent, BTreeMap<Uid, Vec<SplitState>>) {
        let finished = self.finished.iter().flat_map(|(chain, subtask)| {
            uids.get(chain).into_iter().flatten().map(move |uid| (uid.clone(), *subtask))
        });
        let content = CheckpointContent {
            checkpoint: self.checkpoint,
            finished: finished.collect(),
            parts: self.parts,
            enumerators: self.enumerators,
            uncommitted,
        };
        (content, self.released)
    }
}

impl CheckpointContent {
    /// What its sinks have prepared.
    pub fn committables(&self) -> Vec<Committable> {
        let parts = self.parts.values().flatten();
        parts
            .filter_map(|part| match part {
                SnapshotPart::Committable(committable) => Some(committable.clone()),
                _ => None,
            })
            .collect()
    }
}
