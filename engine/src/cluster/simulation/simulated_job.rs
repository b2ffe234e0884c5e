//! A job's life in the simulator: run after run over crashes, failing tasks, pauses, steps of the
//! clock and a store that fails, is slow, refuses or is away, each at a parallelism of its own, until
//! it ends. Tasks are restarted as by default.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::{
    CrashAt, FaultCounts, ProcessFaults, SeededFaults, SeededOrder, Simulated, SimulationSetup,
    seeded_store_faults, simulate,
};
use crate::checkpoint::fault::FaultyStorage;
use crate::checkpoint::log::read_log;
use crate::checkpoint::{CheckpointStorage, JobLayout, Manifest, MemoryStorage};
use crate::cluster::{JobConfig, Outcome};
use crate::graph::Graph;
use crate::runtime::{ChannelBounds, ManualClock};
use crate::state::{MapBackend, StateBackend};
#[cfg(feature = "rocksdb")]
use crate::state::{RocksBackend, RocksConfig};
use crate::time::{HOUR, Micros};
use crate::{Context, Error, Result};

/// Runs of one life; from [`DISTURBED_RUNS`] on nothing befalls them.
const RUNS_MAX: usize = 8;
const DISTURBED_RUNS: usize = 6;
/// A run of more steps is stuck.
const STEPS_MAX: u64 = 500_000;
/// One in so many runs has checkpoints seconds apart, and outages of minutes.
const SLOW_RUNS: usize = 6;
/// The system's clock shows this at the start: another time than the monotonic one.
const STARTED: Micros = 480_000 * HOUR;
/// One in so many seeds keeps its state in RocksDB.
#[cfg(feature = "rocksdb")]
const ROCKSDB_SEEDS: u64 = 10;

/// A bounded job, and how it is disturbed.
pub struct SimulatedJob<'a> {
    /// The job's name.
    pub name: &'a str,
    /// Makes the graph of each run.
    pub graph: &'a dyn Fn(&mut SeededOrder) -> Result<Graph>,
    /// From one checkpoint to the next, in most runs. Microseconds.
    pub interval: Micros,
    /// The process crashes within so many steps, and a task fails within as many.
    pub steps: usize,
    /// Up to so many in a thousand calls of the store fail.
    pub faults_per_thousand: usize,
    /// A directory for state on disk.
    pub local: &'a Path,
    /// What happened.
    pub counts: &'a Arc<FaultCounts>,
}

impl SimulatedJob<'_> {
    /// Runs the job to its end, in an order and over faults that `seed` decides, and then once more
    /// undisturbed: a store that was away at the end is tidied by the next run. It holds what its
    /// checkpoints name, and nothing else.
    ///
    /// # Errors
    /// The job is stuck, ended in another way, lost a file of a checkpoint or left others behind.
    pub fn run(&self, seed: u64) -> Result<()> {
        let mut order = SeededOrder::new(seed);
        let (storage, clock) = (Arc::new(MemoryStorage::default()), ManualClock::new(0));
        clock.step(STARTED);
        let mut completed = false;
        for run in 0..RUNS_MAX {
            let disturbed = run < DISTURBED_RUNS && !completed;
            let slow = disturbed && order.below(SLOW_RUNS) == 0;
            let interval = if slow { self.interval * 1_000 } else { self.interval };
            let setup = SimulationSetup {
                seed: order.next_u64(),
                faults: self.faults(&mut order, disturbed, interval),
                steps_max: STEPS_MAX,
                clock: clock.clone(),
                storage: self.storage(&mut order, disturbed, interval, &storage, &clock)?,
                backend: self.backend(seed, run)?,
                bounds: ChannelBounds { rows_max: 1 + order.below(100), bytes_max: 1 << 20 },
            };
            let config = self.config(&mut order, interval);
            match simulate((self.graph)(&mut order)?, config, setup).context(|| format!("run {run}"))? {
                Simulated::Crashed => {}
                Simulated::Ended(Outcome::Completed) if disturbed => completed = true,
                Simulated::Ended(Outcome::Completed) => {
                    return holds_only_what_is_named(storage.as_ref(), &JobLayout::new(self.name)?);
                }
                // A store that refuses everything at the start fails the job, and one of its threads
                // may get no processor for longer than a cancelled task is waited for; whoever
                // supervises it starts it again.
                Simulated::Ended(Outcome::Failed { .. } | Outcome::Stuck { .. }) if disturbed => {}
                Simulated::Ended(other) => return Err(Error::internal(format!("ended with {other:?}"))),
            }
        }
        Err(Error::internal(format!("not over after {RUNS_MAX} runs")))
    }

    fn faults(&self, order: &mut SeededOrder, disturbed: bool, interval: Micros) -> Box<dyn ProcessFaults> {
        let drawn = SeededFaults::new(order.fork(), self.steps, interval, self.counts.clone());
        if disturbed { Box::new(drawn) } else { Box::new(CrashAt(None)) }
    }

    fn storage(
        &self,
        order: &mut SeededOrder,
        disturbed: bool,
        interval: Micros,
        storage: &Arc<MemoryStorage>,
        clock: &ManualClock,
    ) -> Result<Arc<dyn CheckpointStorage>> {
        let per_thousand = order.below(self.faults_per_thousand + 1);
        let per_thousand = if disturbed { per_thousand } else { 0 };
        let (clock, counts) = (clock.clone(), self.counts.clone());
        let plan = seeded_store_faults(order.fork(), per_thousand, interval, clock, counts);
        Ok(Arc::new(FaultyStorage::new(storage.clone(), JobLayout::new(self.name)?, plan)))
    }

    /// State of a run: its own, for none survives.
    fn backend(&self, seed: u64, run: usize) -> Result<Arc<dyn StateBackend>> {
        let directory = self.local.join(format!("{seed}-{run}"));
        #[cfg(feature = "rocksdb")]
        if seed.is_multiple_of(ROCKSDB_SEEDS) {
            return Ok(Arc::new(RocksBackend::new(RocksConfig::new(directory).simulated())?));
        }
        #[cfg(not(feature = "rocksdb"))]
        let _ = seed;
        Ok(Arc::new(MapBackend::new(directory)))
    }

    fn config(&self, order: &mut SeededOrder, interval: Micros) -> JobConfig {
        let mut config = JobConfig::new(self.name);
        config.parallelism = 1 + order.below(3) as u32;
        config.max_parallelism = 16;
        config.checkpoints_retained = 1 + order.below(2) as u32;
        config.coordinator.checkpoint_interval = interval;
        // No predecessor outlives a crash here.
        config.orphan_grace = 0;
        config
    }
}

/// Fails with the names of objects that neither the log nor a checkpoint that it names has, and of
/// those that a checkpoint names and that are not there.
///
/// # Errors
/// An internal error with the names; the store's.
pub fn holds_only_what_is_named(storage: &dyn CheckpointStorage, layout: &JobLayout) -> Result<()> {
    let view = read_log(storage, layout)?;
    let mut named = BTreeSet::new();
    for &checkpoint in view.published() {
        named.extend(Manifest::read(storage, layout, checkpoint)?.names(layout));
    }
    let listed = storage.list(&format!("{}/", layout.job_path()))?.into_iter();
    let files = listed.map(|object| object.path).filter(|path| layout.log_sequence(path).is_none());
    let held: BTreeSet<_> = files.collect();
    if held == named {
        return Ok(());
    }
    let (leaked, lost) = (held.difference(&named), named.difference(&held));
    let (leaked, lost) = (leaked.collect::<Vec<_>>(), lost.collect::<Vec<_>>());
    let published = view.published();
    Err(Error::internal(format!("published {published:?}; leaked {leaked:?}; lost {lost:?}")))
}
