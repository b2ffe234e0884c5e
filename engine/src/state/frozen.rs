//! What a barrier froze, on its way into the store.
//!
//! The task freezes (a swap); a helper thread writes the layer, freezes the store's files and
//! uploads them. Both look at one small record of how far that is, the [`Stage`], under a lock:
//!
//! ```text
//! Pending -> Running -> Linked          written, and the files frozen
//!    |          |
//!    |          +-----> Abandoned       broke off: to be written by whoever comes next
//!    +----------------> Abandoned       dropped unrun, or overtaken by a later barrier's helper
//! Abandoned -> Written                  by the task, or by a later barrier's helper
//! ```
//!
//! The rule: layers reach the store in the order of their barriers, one writer at a time. A helper
//! writes nothing, not even an abandoned layer, before every earlier helper has ended or can no
//! longer begin; the task writes only when no layer is pending or running. So a snapshot holds
//! exactly what was known at its barrier, and an aborted one loses nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::key_group::KeyGroupRange;
use super::op_sink::{OpSink, Target};
use super::store::KvSnapshotter;
use super::table::FrozenUnits;
use super::timer_overlay::TimerOverlay;
use crate::checkpoint::{CheckpointId, SnapshotPart, SnapshotSite, SnapshotTask};
use crate::{Context, Error, Result};

/// How far a frozen layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Pending,
    Running,
    Linked,
    Abandoned,
    Written,
}

/// What happens to a frozen layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Its helper begins.
    Claim,
    /// A later barrier's helper wants to go on.
    Overtake,
    /// Its helper has written it and frozen the files.
    Link,
    /// Its helper broke off.
    Abandon,
    /// The task or a later helper has written it.
    Write,
}

impl Stage {
    /// What comes of an event; `None` where it changes nothing.
    fn after(self, event: Event) -> Option<Stage> {
        Some(match (self, event) {
            (Stage::Pending, Event::Claim) => Stage::Running,
            (Stage::Pending, Event::Overtake | Event::Abandon) | (Stage::Running, Event::Abandon) => {
                Stage::Abandoned
            }
            (Stage::Running, Event::Link) => Stage::Linked,
            (Stage::Abandoned, Event::Write) => Stage::Written,
            _ => return None,
        })
    }

    /// Whether a helper may still write to the store for it.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Stage::Pending | Stage::Running)
    }

    /// Whether the layer is in the store.
    pub(super) fn is_stored(self) -> bool {
        matches!(self, Stage::Linked | Stage::Written)
    }
}

/// All of one barrier's layers.
pub(super) struct FrozenLayer {
    stage: Mutex<Stage>,
    changed: Condvar,
    units: Mutex<Vec<Arc<dyn FrozenUnits>>>,
    pub(super) timers: Arc<TimerOverlay>,
}

impl FrozenLayer {
    pub(super) fn new(units: Vec<Arc<dyn FrozenUnits>>, timers: Arc<TimerOverlay>) -> Self {
        FrozenLayer {
            stage: Mutex::new(Stage::Pending),
            changed: Condvar::new(),
            units: Mutex::new(units),
            timers,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.lock()
    }

    /// Lets an event happen; answers whether it changed anything.
    fn happen(&self, event: Event) -> bool {
        let mut stage = self.stage.lock();
        let Some(after) = stage.after(event) else { return false };
        if after.is_stored() {
            self.units.lock().clear();
        }
        *stage = after;
        self.changed.notify_all();
        true
    }

    /// Waits until no helper writes for it any more.
    pub(super) fn wait_until_closed(&self) {
        let mut stage = self.stage.lock();
        while stage.is_open() {
            self.changed.wait(&mut stage);
        }
    }

    /// How many parts it is written in.
    fn parts(&self) -> usize {
        self.units.lock().len() + 1
    }

    /// Writes one part: the units of one state, or the timers.
    fn write_part(&self, part: usize, sink: &mut OpSink<'_>) -> Result<()> {
        let units = self.units.lock().get(part).cloned();
        match units {
            Some(units) => units.write(sink)?,
            None => self.timers.write(sink)?,
        }
        sink.flush()
    }

    /// Writes the layer, whole; again if it was written in part.
    pub(super) fn write(&self, sink: &mut OpSink<'_>) -> Result<()> {
        (0..self.parts()).try_for_each(|part| self.write_part(part, sink))?;
        self.happen(Event::Write);
        Ok(())
    }
}

/// What a step of a helper came to.
pub(super) enum FlushStep {
    /// Something was done, and there is more to do.
    More,
    /// An earlier barrier's helper has to end first.
    Blocked(Arc<FrozenLayer>),
    /// Everything is in the store and the files are frozen.
    Linked,
}

/// How far a helper is.
enum Progress {
    Unclaimed,
    /// Waits for earlier helpers.
    Claimed,
    /// Writes this part of the first layer that is not stored.
    Writing(usize),
}

/// The helper's side of a frozen layer. Dropped before its files are frozen, it abandons it.
pub(super) struct Flush {
    checkpoint: CheckpointId,
    layer: AbandonUnlessLinked,
    /// Layers of earlier barriers that were not in the store when this one was frozen.
    earlier: VecDeque<Arc<FrozenLayer>>,
    progress: Progress,
    snapshotter: Box<dyn KvSnapshotter>,
    key_groups: KeyGroupRange,
    meta: Vec<u8>,
}

impl Flush {
    pub(super) fn new(
        checkpoint: CheckpointId,
        layer: Arc<FrozenLayer>,
        earlier: VecDeque<Arc<FrozenLayer>>,
        snapshotter: Box<dyn KvSnapshotter>,
        key_groups: KeyGroupRange,
        meta: Vec<u8>,
    ) -> Flush {
        let layer = AbandonUnlessLinked(layer);
        Flush { checkpoint, layer, earlier, progress: Progress::Unclaimed, snapshotter, key_groups, meta }
    }

    /// Writes what was frozen and freezes the store's files; what is left is to upload them.
    pub(super) fn run(mut self, site: &SnapshotSite) -> Result<SnapshotTask> {
        loop {
            match self.step(site)? {
                FlushStep::More => {}
                FlushStep::Blocked(earlier) => earlier.wait_until_closed(),
                FlushStep::Linked => return Ok(Box::new(move |site| self.upload(site))),
            }
        }
    }

    /// Does the next piece of the writing, without waiting.
    pub(super) fn step(&mut self, site: &SnapshotSite) -> Result<FlushStep> {
        match self.progress {
            Progress::Unclaimed => {
                if !self.layer.0.happen(Event::Claim) {
                    return Err(Error::external(format!(
                        "checkpoint {} was overtaken by a later one before its state was written",
                        self.checkpoint
                    )));
                }
                self.progress = Progress::Claimed;
            }
            Progress::Claimed => {
                for earlier in &self.earlier {
                    earlier.happen(Event::Overtake);
                }
                // All of them, before anything is written: one that still runs may be about to
                // write a layer that lies before another one's.
                if let Some(running) = self.earlier.iter().find(|earlier| earlier.stage().is_open()) {
                    return Ok(FlushStep::Blocked(running.clone()));
                }
                self.earlier.retain(|earlier| !earlier.stage().is_stored());
                self.progress = Progress::Writing(0);
            }
            Progress::Writing(part) => return self.write(part, site),
        }
        Ok(FlushStep::More)
    }

    fn write(&mut self, part: usize, site: &SnapshotSite) -> Result<FlushStep> {
        let earlier = self.earlier.front();
        let layer = earlier.unwrap_or(&self.layer.0);
        if part < layer.parts() {
            let mut sink = OpSink::new(Target::Snapshotter(self.snapshotter.as_mut()));
            layer.write_part(part, &mut sink).context(|| "writing what a barrier froze".to_string())?;
            self.progress = Progress::Writing(part + 1);
            return Ok(FlushStep::More);
        }
        self.progress = Progress::Writing(0);
        if let Some(earlier) = self.earlier.pop_front() {
            earlier.happen(Event::Write);
            return Ok(FlushStep::More);
        }
        self.snapshotter.freeze(site)?;
        self.layer.0.happen(Event::Link);
        Ok(FlushStep::Linked)
    }

    /// Uploads the frozen files.
    pub(super) fn upload(self, site: &SnapshotSite) -> Result<Vec<SnapshotPart>> {
        let handle = self.snapshotter.upload(site, self.key_groups, self.meta)?;
        Ok(vec![SnapshotPart::Keyed(handle)])
    }
}

/// Holds a layer, and abandons it unless it was linked.
struct AbandonUnlessLinked(Arc<FrozenLayer>);

impl Drop for AbandonUnlessLinked {
    fn drop(&mut self) {
        self.0.happen(Event::Abandon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_written_once_and_only_when_nobody_else_can() {
        let layer = FrozenLayer::new(Vec::new(), Arc::default());
        assert!(!layer.happen(Event::Write), "its helper may still come");
        assert!(layer.happen(Event::Overtake));
        assert!(!layer.happen(Event::Claim), "its helper came too late");
        assert!(layer.happen(Event::Write));
        assert!(!layer.happen(Event::Abandon), "it stays in the store");
        assert_eq!(layer.stage(), Stage::Written);
        let layer = FrozenLayer::new(Vec::new(), Arc::default());
        assert!(layer.happen(Event::Claim));
        assert!(!layer.happen(Event::Overtake), "a running helper is waited for");
        assert!(layer.happen(Event::Link));
        assert!(!layer.happen(Event::Write) && !layer.happen(Event::Abandon));
        assert_eq!(layer.stage(), Stage::Linked);
    }
}
