//! The coordinator's side of one source: its enumerator, and which splits wait for a checkpoint.
//!
//! An enumerator lives as long as an attempt, a discovery as long as the process. So what the
//! discovery knows is kept here, whenever it comes, and the enumerator of each attempt is told it:
//! what an earlier one heard cannot be missing to a later one.
//!
//! Every reader gets a first assignment, an empty one too: it says that the splits known at the
//! start are dealt out, and the reader's watermark need not wait for them. A source without a
//! discovery knows them at once; one with a discovery does after its first find.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ToTask;
use crate::checkpoint::CheckpointId;
use crate::graph::Uid;
use crate::source::{Enumerator, EnumeratorAction, EnumeratorEvent, Source, SplitState};
use crate::{Context, Error, Result};

/// A command to one of the source's readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEffect {
    /// Which reader.
    pub subtask: u32,
    /// What it is told.
    pub command: ToTask,
}

/// What the coordinator must know of a source.
#[derive(Clone)]
pub struct SourceRole {
    /// Makes the enumerator.
    pub source: Arc<dyn Source>,
    /// How many readers it has.
    pub parallelism: u32,
    /// Whether a discovery looks at the world for it.
    pub discovers: bool,
}

/// The coordinator's side of one source.
pub struct SourceCoordinator {
    uid: Uid,
    source: Arc<dyn Source>,
    parallelism: u32,
    discovers: bool,
    enumerator: Option<Box<dyn Enumerator>>,
    assigned: Vec<bool>,
    /// The last that the discovery said: all that it knows.
    facts: Option<Vec<u8>>,
    /// Splits given back at a checkpoint that is not complete yet.
    released: BTreeMap<CheckpointId, Vec<SplitState>>,
}

impl SourceCoordinator {
    /// The side of a source.
    pub fn new(uid: Uid, role: SourceRole) -> Self {
        let SourceRole { source, parallelism, discovers } = role;
        SourceCoordinator {
            uid,
            source,
            parallelism,
            discovers,
            enumerator: None,
            assigned: Vec::new(),
            facts: None,
            released: BTreeMap::new(),
        }
    }

    /// Makes the enumerator of an attempt and tells it that the readers are there, and what the
    /// discovery knows.
    ///
    /// # Errors
    /// The enumerator's.
    pub fn start(&mut self, state: Option<&[u8]>, splits: Vec<SplitState>) -> Result<Vec<SourceEffect>> {
        self.enumerator = Some(self.source.enumerator(state).context(|| format!("source {}", self.uid))?);
        self.assigned = vec![false; self.parallelism as usize];
        self.released.clear();
        let mut effects = self.handle(EnumeratorEvent::Started { parallelism: self.parallelism, splits })?;
        match self.facts.clone() {
            _ if !self.discovers => self.assign_rest(&mut effects),
            Some(facts) => {
                effects.extend(self.handle(EnumeratorEvent::Discovered(facts))?);
                put_the_end_last(&mut effects);
            }
            None => {}
        }
        Ok(effects)
    }

    /// What the discovery knows now. The enumerator hears it if `running` and it is news; the next
    /// attempt's hears it in any case.
    ///
    /// # Errors
    /// The enumerator's.
    pub fn discovered(&mut self, facts: Vec<u8>, running: bool) -> Result<Vec<SourceEffect>> {
        if self.facts.as_ref() == Some(&facts) {
            return Ok(Vec::new());
        }
        self.facts = Some(facts.clone());
        if running { self.handle(EnumeratorEvent::Discovered(facts)) } else { Ok(Vec::new()) }
    }

    /// Tells the enumerator something.
    ///
    /// # Errors
    /// The enumerator's.
    pub fn handle(&mut self, event: EnumeratorEvent) -> Result<Vec<SourceEffect>> {
        let discovered = matches!(event, EnumeratorEvent::Discovered(_));
        let Some(enumerator) = &mut self.enumerator else {
            return Err(Error::internal(format!("source {} is not started", self.uid)));
        };
        let actions = enumerator.handle(event).context(|| format!("source {}", self.uid))?;
        let mut effects = Vec::new();
        for action in actions {
            match action {
                EnumeratorAction::Assign { subtask, splits } => {
                    if let Some(assigned) = self.assigned.get_mut(subtask as usize) {
                        *assigned = true;
                    }
                    effects.push(SourceEffect { subtask, command: ToTask::AssignSplits(splits) });
                }
                EnumeratorAction::Release { subtask, splits } => {
                    effects.push(SourceEffect { subtask, command: ToTask::ReleaseSplits(splits) });
                }
                EnumeratorAction::ToReader { subtask, message } => {
                    effects.push(SourceEffect { subtask, command: ToTask::SourceMessage(message) });
                }
                EnumeratorAction::NoMoreSplits => {
                    let all = 0..self.parallelism;
                    effects
                        .extend(all.map(|subtask| SourceEffect { subtask, command: ToTask::NoMoreSplits }));
                }
            }
        }
        if discovered {
            self.assign_rest(&mut effects);
        }
        Ok(effects)
    }

    fn assign_rest(&mut self, effects: &mut Vec<SourceEffect>) {
        let rest: Vec<_> =
            (0..self.parallelism).filter(|&subtask| !self.assigned[subtask as usize]).collect();
        let nothing = |subtask| SourceEffect { subtask, command: ToTask::AssignSplits(Vec::new()) };
        // Before `NoMoreSplits`, and after messages such as "hold".
        effects.extend(rest.into_iter().map(nothing));
        self.assigned.fill(true);
        put_the_end_last(effects);
    }

    /// What the enumerator knows.
    pub fn snapshot(&self) -> Vec<u8> {
        self.enumerator.as_ref().map(|enumerator| enumerator.snapshot()).unwrap_or_default()
    }

    /// Readers gave splits back at `checkpoint`'s barrier.
    pub fn hold_released(&mut self, checkpoint: CheckpointId, splits: Vec<SplitState>) {
        self.released.entry(checkpoint).or_default().extend(splits);
    }

    /// The checkpoint is published: splits given back at it, or at one before it that was
    /// aborted, may be given to others.
    ///
    /// # Errors
    /// The enumerator's.
    pub fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<Vec<SourceEffect>> {
        match self.released.remove(&checkpoint) {
            Some(splits) if !splits.is_empty() => {
                self.handle(EnumeratorEvent::Released { checkpoint, splits })
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The checkpoint will never be published. Splits given back at it stay with the task that
    /// gave them back until the next one.
    pub fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        self.released.remove(&checkpoint);
    }
}

/// No reader hears that no split follows before it got those that do.
fn put_the_end_last(effects: &mut [SourceEffect]) {
    effects.sort_by_key(|effect| matches!(effect.command, ToTask::NoMoreSplits));
}
