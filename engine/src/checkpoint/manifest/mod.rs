//! The manifest of a checkpoint: everything that a restore needs to know, in one immutable object.
//!
//! The rules: a manifest is written whole before its checkpoint is published and never changed;
//! it names every object that a restore or a commit reads; one that does not verify is refused,
//! never half read.

mod deal;
mod file;
mod held;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use file::MANIFEST_FORMAT;

use super::{CheckpointId, FileHandle, JobLayout, SnapshotPart};
use crate::Result;
use crate::graph::Uid;
use crate::sink::Committable;
use crate::source::SplitState;
use crate::state::{RestoredState, StateIdentity};

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The job's name.
    pub job: String,
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// The fingerprint of the graph that made it: that of the same program is the same. What a
    /// restore compares is each operator's identity.
    pub fingerprint: u64,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// The operators, by uid.
    pub operators: BTreeMap<Uid, OperatorState>,
    /// What sinks prepared and is not known to be committed: of this checkpoint, and of earlier
    /// ones whose commits were not done when it was taken. In the order in which to commit.
    pub committables: Vec<Committable>,
}

/// What a checkpoint holds of one operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorState {
    /// How many instances it had.
    pub parallelism: u32,
    /// The parts that each instance added; instances without any are left out.
    pub subtasks: BTreeMap<u32, Vec<SnapshotPart>>,
    /// Instances that had come to the end of their input.
    pub finished: BTreeSet<u32>,
    /// A source's enumerator, in the source's own encoding.
    #[serde(with = "super::base64_text::option")]
    pub enumerator: Option<Vec<u8>>,
    /// What its state is; `None` when it has none, and in manifests of format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<StateIdentity>,
}

impl OperatorState {
    /// Whether every instance had come to the end of its input.
    pub fn is_finished(&self) -> bool {
        self.parallelism > 0 && self.finished.len() == self.parallelism as usize
    }
}

impl Manifest {
    /// A manifest with nothing in it yet.
    pub fn new(
        job: impl Into<String>,
        checkpoint: CheckpointId,
        fingerprint: u64,
        max_parallelism: u32,
    ) -> Manifest {
        Manifest {
            job: job.into(),
            checkpoint,
            fingerprint,
            max_parallelism,
            operators: BTreeMap::new(),
            committables: Vec::new(),
        }
    }

    /// Adds an operator; every operator of the graph has its place, with or without state.
    pub fn add_operator(&mut self, uid: &Uid, parallelism: u32, identity: Option<StateIdentity>) {
        let operator = self.operators.entry(uid.clone()).or_default();
        operator.parallelism = parallelism;
        operator.identity = identity;
    }

    /// Adds what one instance acknowledged. Its committables join those of the manifest.
    pub fn add_parts(&mut self, uid: &Uid, subtask: u32, parts: Vec<SnapshotPart>) {
        let operator = self.operators.entry(uid.clone()).or_default();
        for part in parts {
            match part {
                SnapshotPart::Committable(committable) => self.committables.push(committable),
                state => operator.subtasks.entry(subtask).or_default().push(state),
            }
        }
    }

    /// Records that an instance had come to its end.
    pub fn add_finished(&mut self, uid: &Uid, subtask: u32) {
        self.operators.entry(uid.clone()).or_default().finished.insert(subtask);
    }

    /// Records a source's enumerator.
    pub fn add_enumerator(&mut self, uid: &Uid, state: Vec<u8>) {
        self.operators.entry(uid.clone()).or_default().enumerator = Some(state);
    }

    /// A source's enumerator.
    pub fn enumerator(&self, uid: &Uid) -> Option<&[u8]> {
        self.operators.get(uid)?.enumerator.as_deref()
    }

    /// The splits that a source's readers held, each once, in the order of their ids: the
    /// enumerator deals them out anew.
    pub fn splits(&self, uid: &Uid) -> Vec<SplitState> {
        let parts = self.parts(uid).filter_map(|(_, part)| match part {
            SnapshotPart::Splits(splits) => Some(splits),
            _ => None,
        });
        let by_id: BTreeMap<_, _> = parts.flatten().map(|split| (split.id.clone(), split.clone())).collect();
        by_id.into_values().collect()
    }

    /// What instance `subtask` of an operator starts with: the keyed handles that overlap its key
    /// groups, its share of lists, all of unions. Splits are the enumerator's to deal out
    /// ([`Manifest::splits`]), committables the coordinator's to commit.
    ///
    /// At the parallelism of the checkpoint an instance gets back the lists that it had; at
    /// another one all items, in the order of subtasks, are dealt out in runs of equal length.
    ///
    /// # Errors
    /// A user error when the number of key groups is not that of the checkpoint.
    pub fn restored_for(
        &self,
        uid: &Uid,
        subtask: u32,
        parallelism: u32,
        max_parallelism: u32,
    ) -> Result<RestoredState> {
        deal::restored_for(self, uid, subtask, parallelism, max_parallelism)
    }

    /// The shared files in it, by content hash: what [`super::SnapshotSite::known`] is made of.
    pub fn shared_files(&self, layout: &JobLayout) -> BTreeMap<String, FileHandle> {
        let directory = layout.shared_directory();
        let shared = self.files().filter(|file| file.path.starts_with(&directory));
        shared.map(|file| (file.hash.clone(), file.clone())).collect()
    }

    /// Every object in the store that it needs, itself included.
    pub fn names(&self, layout: &JobLayout) -> BTreeSet<String> {
        let files = self.files().map(|file| file.path.clone());
        let staged = self.committables.iter().flat_map(|committable| committable.objects.iter().cloned());
        files.chain(staged).chain([layout.manifest(self.checkpoint)]).collect()
    }

    /// The files of keyed state.
    pub fn files(&self) -> impl Iterator<Item = &FileHandle> {
        let parts = self.operators.values().flat_map(|operator| operator.subtasks.values().flatten());
        parts.flat_map(|part| match part {
            SnapshotPart::Keyed(handle) => handle.files.as_slice(),
            _ => &[],
        })
    }

    /// An operator's parts with their subtasks.
    fn parts(&self, uid: &Uid) -> impl Iterator<Item = (u32, &SnapshotPart)> {
        let subtasks = self.operators.get(uid).into_iter().flat_map(|operator| &operator.subtasks);
        subtasks.flat_map(|(&subtask, parts)| parts.iter().map(move |part| (subtask, part)))
    }
}
