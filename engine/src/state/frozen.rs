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
//! The task writes to the store only when no layer is pending or running; so a snapshot holds
//! exactly what was known at its barrier, and an aborted one loses nothing.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::key_group::KeyGroupRange;
use super::op_sink::{OpSink, Target};
use super::store::KvSnapshotter;
use super::table::FrozenUnits;
use super::timer_overlay::TimerOverlay;
use crate::checkpoint::{CheckpointId, SnapshotPart, SnapshotSite};
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

impl Stage {
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

    fn set_stage(&self, stage: Stage) {
        *self.stage.lock() = stage;
        self.changed.notify_all();
    }

    /// Waits until no helper writes for it any more.
    pub(super) fn wait_until_closed(&self) {
        let mut stage = self.stage.lock();
        while stage.is_open() {
            self.changed.wait(&mut stage);
        }
    }

    /// A later barrier's helper wants to go on: waits for one that runs, overtakes one that does
    /// not. Afterwards the layer is stored or abandoned.
    fn overtake(&self) {
        let mut stage = self.stage.lock();
        while *stage == Stage::Running {
            self.changed.wait(&mut stage);
        }
        if *stage == Stage::Pending {
            *stage = Stage::Abandoned;
        }
    }

    /// Pending to running.
    fn claim(&self) -> bool {
        let mut stage = self.stage.lock();
        let claimed = *stage == Stage::Pending;
        if claimed {
            *stage = Stage::Running;
        }
        claimed
    }

    /// Writes the layer, whole; again if it was written in part.
    pub(super) fn write(&self, sink: &mut OpSink<'_>) -> Result<()> {
        for units in self.units.lock().iter() {
            units.write(sink)?;
        }
        self.timers.write(sink)?;
        sink.flush()
    }

    /// An abandoned layer is in the store now.
    pub(super) fn set_written(&self) {
        self.units.lock().clear();
        self.set_stage(Stage::Written);
    }
}

/// The helper's side of a frozen layer. Dropped before its files are frozen, it abandons it.
pub(super) struct Flush {
    pub(super) checkpoint: CheckpointId,
    pub(super) layer: AbandonUnlessLinked,
    /// Layers of earlier barriers that were not in the store when this one was frozen.
    pub(super) earlier: Vec<Arc<FrozenLayer>>,
    pub(super) snapshotter: Box<dyn KvSnapshotter>,
    pub(super) key_groups: KeyGroupRange,
    pub(super) meta: Vec<u8>,
}

impl Flush {
    /// Writes what was frozen, freezes the store's files, uploads them.
    pub(super) fn run(self, site: &SnapshotSite) -> Result<Vec<SnapshotPart>> {
        let checkpoint = self.checkpoint;
        let mut guard = self.layer;
        let mut snapshotter = self.snapshotter;
        guard.link(|layer| {
            if !layer.claim() {
                return Err(Error::external(format!(
                    "checkpoint {checkpoint} was overtaken by a later one before its state was written"
                )));
            }
            let mut sink = OpSink::new(Target::Snapshotter(snapshotter.as_mut()));
            for earlier in &self.earlier {
                earlier.overtake();
                if !earlier.stage().is_stored() {
                    earlier.write(&mut sink)?;
                    earlier.set_written();
                }
            }
            layer.write(&mut sink).context(|| "writing what the barrier froze".to_string())?;
            snapshotter.freeze(site)
        })?;
        let handle = snapshotter.upload(site, self.key_groups, self.meta)?;
        Ok(vec![SnapshotPart::Keyed(handle)])
    }
}

/// Holds a layer until it is linked.
pub(super) struct AbandonUnlessLinked(Option<Arc<FrozenLayer>>);

impl AbandonUnlessLinked {
    pub(super) fn new(layer: Arc<FrozenLayer>) -> Self {
        AbandonUnlessLinked(Some(layer))
    }

    fn link(&mut self, write: impl FnOnce(&FrozenLayer) -> Result<()>) -> Result<()> {
        let Some(layer) = &self.0 else { return Ok(()) };
        write(layer)?;
        layer.units.lock().clear();
        layer.set_stage(Stage::Linked);
        self.0 = None;
        Ok(())
    }
}

impl Drop for AbandonUnlessLinked {
    fn drop(&mut self) {
        if let Some(layer) = &self.0
            && layer.stage().is_open()
        {
            layer.set_stage(Stage::Abandoned);
        }
    }
}
