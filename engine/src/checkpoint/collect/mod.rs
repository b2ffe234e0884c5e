//! Which objects may be deleted (H4). Pure: names in, names out; the coordinator deletes.
//!
//! The rules:
//! - A name is deleted when it is known to have been written (a manifest had it, or the task that
//!   wrote it said so), when no held manifest has it, and when none to come can. A manifest to come
//!   takes over names from the checkpoint that the tasks build on, and what sinks carry from
//!   checkpoints that were aborted before it; so what an aborted checkpoint wrote is left alone
//!   until a later one is published, and the base is not retired.
//! - A listing alone condemns an object of a lower generation, after a grace period, and one of the
//!   own generation only when the job is over: before, it may belong to a checkpoint that is made.
//! - Retirement stands in the log before anything is deleted ([`super::JobLog::retire`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{CheckpointId, JobLayout, LogView, ObjectInfo};
use crate::time::Micros;

/// How long after a claim orphans of lower generations are left alone, in microseconds: time for
/// a predecessor that still runs to find out that it is fenced.
pub const ORPHAN_GRACE: Micros = 10 * 60 * 1_000_000;

/// What a coordinator holds and has let go, by the names of objects.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    /// Of published checkpoints: every name in their manifests.
    retained: BTreeMap<CheckpointId, BTreeSet<String>>,
    /// What tasks build on: the checkpoint restored, then the newest published.
    base: Option<CheckpointId>,
    /// Of checkpoints above the newest published of this generation: what they are known to have
    /// written so far.
    written: BTreeMap<CheckpointId, BTreeSet<String>>,
    /// The newest that this generation published.
    published: Option<CheckpointId>,
    /// Names that nobody will take over and that are not known to be deleted. Some may be held.
    owed: BTreeSet<String>,
}

impl Collector {
    /// A collector that holds nothing yet.
    pub fn new() -> Collector {
        Collector::default()
    }

    /// Holds a checkpoint that the log names ([`super::Manifest::names`]).
    pub fn retain(&mut self, checkpoint: CheckpointId, names: BTreeSet<String>) {
        self.retained.insert(checkpoint, names);
    }

    /// Tasks start from this checkpoint: the next one may name what it names.
    pub fn build_on(&mut self, checkpoint: CheckpointId) {
        self.base = Some(checkpoint);
    }

    /// A checkpoint of this generation wrote these objects, or tried to. May come late.
    pub fn wrote(&mut self, checkpoint: CheckpointId, names: impl IntoIterator<Item = String>) {
        if self.published >= Some(checkpoint) {
            self.owed.extend(names);
        } else {
            self.written.entry(checkpoint).or_default().extend(names);
        }
    }

    /// A checkpoint of this generation is published. What it and the ones before it wrote and its
    /// manifest does not name will be named by none.
    pub fn publish(&mut self, checkpoint: CheckpointId, names: BTreeSet<String>) {
        let later = self.written.split_off(&checkpoint);
        let before = std::mem::replace(&mut self.written, later);
        let own = self.written.remove(&checkpoint).unwrap_or_default();
        let left = before.into_values().flatten().chain(own).filter(|name| !names.contains(name));
        self.owed.extend(left);
        self.retained.insert(checkpoint, names);
        self.base = Some(checkpoint);
        self.published = Some(checkpoint);
    }

    /// The checkpoints to retire when the newest `keep` are kept: what the log allows
    /// ([`LogView::retirable`]), but never the one that tasks build on.
    pub fn retirable(&self, log: &LogView, keep: usize) -> Vec<CheckpointId> {
        let mut retirable = log.retirable(keep);
        retirable.retain(|&checkpoint| self.base != Some(checkpoint));
        retirable
    }

    /// Lets go what the log names no more.
    pub fn follow(&mut self, log: &LogView) {
        let named = |checkpoint: &CheckpointId| log.published().contains(checkpoint);
        let retired: Vec<_> = self.retained.keys().filter(|held| !named(held)).copied().collect();
        for checkpoint in retired {
            self.owed.extend(self.retained.remove(&checkpoint).unwrap_or_default());
        }
    }

    /// The names that may be deleted now. They are named again until [`Collector::deleted`].
    pub fn collectable(&self) -> Vec<String> {
        unheld(&self.owed, self.retained.values())
    }

    /// An object is deleted.
    pub fn deleted(&mut self, name: &str) {
        self.owed.remove(name);
    }

    /// The orphans in a listing, within what `sweep` covers: written by a checkpoint, and named by
    /// nothing that is held. `None` while a checkpoint that the log names is not held, because its
    /// manifest cannot be read: any of them may be its.
    pub fn orphans(
        &self,
        layout: &JobLayout,
        log: &LogView,
        sweep: Sweep,
        listed: &[ObjectInfo],
    ) -> Option<Vec<String>> {
        if log.published().iter().any(|checkpoint| !self.retained.contains_key(checkpoint)) {
            return None;
        }
        let written = listed.iter().filter(|object| {
            layout.written_by(&object.path).is_some_and(|checkpoint| sweep.covers(checkpoint))
        });
        Some(unheld(&written.map(|object| object.path.clone()).collect(), self.retained.values()))
    }
}

/// What a sweep by listing may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The generation of the coordinator that sweeps.
    pub generation: u64,
    /// The grace period after its claim is over.
    pub grace_over: bool,
    /// Its job is over: no task runs, and no checkpoint will be made in this generation.
    pub job_over: bool,
}

impl Sweep {
    /// A sweep at `now` by the coordinator that claimed `generation` at `claimed_at`.
    pub fn new(generation: u64, claimed_at: Micros, now: Micros, grace: Micros, job_over: bool) -> Sweep {
        Sweep { generation, grace_over: now.saturating_sub(claimed_at) >= grace, job_over }
    }

    /// Whether there is anything that it may look at.
    pub fn is_due(&self) -> bool {
        self.grace_over || self.job_over
    }

    /// Whether it may condemn what `checkpoint` wrote.
    pub fn covers(&self, checkpoint: CheckpointId) -> bool {
        match checkpoint.generation.cmp(&self.generation) {
            std::cmp::Ordering::Less => self.grace_over,
            std::cmp::Ordering::Equal => self.job_over,
            std::cmp::Ordering::Greater => false,
        }
    }
}

/// The names in `left` that nothing in `held` has.
fn unheld<'a>(left: &BTreeSet<String>, held: impl IntoIterator<Item = &'a BTreeSet<String>>) -> Vec<String> {
    let held: Vec<_> = held.into_iter().collect();
    left.iter().filter(|name| !held.iter().any(|names| names.contains(*name))).cloned().collect()
}

#[cfg(test)]
mod tests;
