//! What the coordinator says to a task, and what a barrier says of the checkpoints before it.
//!
//! The rule: messages and channels keep an order each, and none between them. So a message tells
//! nothing that a barrier does not tell too; it only tells it sooner. What a source is told keeps
//! its order: what was said behind a checkpoint is done behind its barrier, for the checkpoint knows
//! nothing of it on the coordinator's side either.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Body, Task};
use crate::checkpoint::{Barrier, CheckpointId, FileHandle};
use crate::cluster::ToTask;
use crate::runtime::task_environment::Head;
use crate::runtime::unsettled::Fate;
use crate::time::Micros;
use crate::{Context, Error, Result};

/// Shared files that need not be uploaded again.
#[derive(Default)]
pub(super) struct KnownFiles {
    /// The checkpoint that names them.
    of: Option<CheckpointId>,
    by_hash: Arc<BTreeMap<String, FileHandle>>,
}

impl KnownFiles {
    /// What the snapshot at a barrier may leave out: files of the checkpoint that it builds on
    /// stay. None, when the message that names them has not come.
    pub(super) fn at(&self, barrier: Barrier) -> Arc<BTreeMap<String, FileHandle>> {
        if self.of == barrier.builds_on { self.by_hash.clone() } else { Arc::default() }
    }
}

impl Task {
    /// Deals with commands. Returns `false` when the task is to stop at once.
    pub(super) fn obey(&mut self, body: &mut Body) -> Result<bool> {
        while let Some(command) = self.mailbox.take() {
            match command {
                ToTask::Cancel => return Ok(false),
                ToTask::Trigger { barrier, known } => self.announce(barrier, known, body),
                ToTask::Completed(checkpoint) => {
                    self.uploads.retain(|&other, _| other > checkpoint);
                    if self.unsettled.settle(checkpoint) {
                        settle(checkpoint, Fate::Completed, body)?;
                    }
                }
                ToTask::Aborted(checkpoint) => self.aborted(checkpoint, body)?,
                ToTask::Finish => self.finishing = true,
                command @ (ToTask::AssignSplits(_)
                | ToTask::ReleaseSplits(_)
                | ToTask::NoMoreSplits
                | ToTask::SourceMessage(_)) => {
                    if matches!(body.head, Head::Gate(_)) {
                        return Err(Error::internal(format!("a task without a source got {command:?}")));
                    }
                    self.orders.push_back(command);
                }
            }
        }
        Ok(true)
    }

    /// A barrier is on its way, or a source is to send it.
    fn announce(&mut self, barrier: Barrier, known: Arc<BTreeMap<String, FileHandle>>, body: &Body) {
        if Some(barrier.checkpoint) <= self.passed.max(self.aborted) {
            return;
        }
        self.announced = Some(barrier.checkpoint);
        self.known = KnownFiles { of: barrier.builds_on, by_hash: known };
        if matches!(body.head, Head::Source(_)) {
            // One that is still to be sent is over, or this one would not be.
            self.orders.retain(|order| !matches!(order, ToTask::Trigger { .. }));
            self.orders.push_back(ToTask::Trigger { barrier, known: Arc::default() });
        }
    }

    fn aborted(&mut self, checkpoint: CheckpointId, body: &mut Body) -> Result<()> {
        self.aborted = self.aborted.max(Some(checkpoint));
        self.uploads.remove(&checkpoint);
        self.announced = self.announced.filter(|&announced| announced > checkpoint);
        self.orders.retain(
            |order| !matches!(order, ToTask::Trigger { barrier, .. } if barrier.checkpoint <= checkpoint),
        );
        if let Head::Gate(gate) = &mut body.head {
            gate.abort(checkpoint);
        }
        if self.unsettled.settle(checkpoint) {
            settle(checkpoint, Fate::Aborted, body)?;
        }
        Ok(())
    }

    /// Does what a source is told, in its order, up to a barrier. Returns whether one is about to
    /// pass.
    pub(super) fn follow_orders(&mut self, body: &mut Body, now: Micros) -> Result<bool> {
        while let Some(order) = self.orders.pop_front() {
            let Head::Source(head) = &mut body.head else { return Ok(false) };
            match order {
                // Positions are ahead of what was emitted.
                ToTask::Trigger { .. } if head.has_pending() => {
                    self.orders.push_front(order);
                    return Ok(false);
                }
                ToTask::Trigger { barrier, .. } => {
                    self.barrier(barrier, body)?;
                    return Ok(true);
                }
                ToTask::AssignSplits(splits) => head.add_splits(splits, now)?,
                ToTask::ReleaseSplits(splits) => head.release_at_barrier(splits),
                ToTask::NoMoreSplits => head.no_more_splits(),
                ToTask::SourceMessage(message) => head.message(&message, now)?,
                order => return Err(Error::internal(format!("{order:?} is no order to a source"))),
            }
        }
        Ok(false)
    }

    /// A barrier has come on every channel, or is to be sent: what was before it is settled, and it
    /// passes when the operators are flushed.
    pub(super) fn barrier(&mut self, barrier: Barrier, body: &mut Body) -> Result<()> {
        for (checkpoint, fate) in self.unsettled.at_barrier(barrier) {
            settle(checkpoint, fate, body)?;
        }
        self.uploads.retain(|&other, _| other >= barrier.checkpoint);
        self.passed = Some(barrier.checkpoint);
        self.announced = self.announced.filter(|&announced| announced > barrier.checkpoint);
        if self.aborted < Some(barrier.checkpoint) {
            self.begin_snapshot(barrier, body);
        }
        Ok(())
    }
}

/// Tells head and operators what became of a snapshot that they made.
fn settle(checkpoint: CheckpointId, fate: Fate, body: &mut Body) -> Result<()> {
    if let (Head::Source(head), Fate::Completed) = (&mut body.head, fate) {
        head.checkpoint_completed(checkpoint)?;
    }
    for link in body.chain.links_mut() {
        match fate {
            Fate::Completed => link.operator.checkpoint_completed(checkpoint),
            Fate::Aborted => link.operator.checkpoint_aborted(checkpoint),
        }
        .context(|| format!("operator {}", link.uid))?;
    }
    Ok(())
}
