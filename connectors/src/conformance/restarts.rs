//! What every bounded source owes when tasks fail and are restarted in the same process, where its
//! discovery lives on: each row is delivered once, whether the failure comes before the first
//! checkpoint, between two, twice in a row, or while the discovery is looking. Whole jobs in the
//! simulator, with the engine's own coordinator, tasks and discovery's thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::cluster::{
    JobConfig, Moment, Outcome, ProcessFault, ProcessFaults, SeededOrder, Simulated, SimulationSetup,
    WorkFault, simulate,
};
use thalweg_engine::graph::Environment;
use thalweg_engine::runtime::{ChannelBounds, ManualClock};
use thalweg_engine::source::Source;
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::{HOUR, MILLI, Micros, SECOND};
use thalweg_engine::{Context, Result};

use super::source::rows_of;
use super::{ComparableRow, comparable_rows, ensure};
use crate::collect::Collected;
use crate::sink::StreamSink;

/// Orders that each kind of failure is tried in.
const SEEDS: u64 = 6;
/// A run of more steps is stuck.
const STEPS_MAX: u64 = 2_000_000;
/// A look that is waited for ends within this: before a restart, in its delay, or after it.
const LOOK_MAX: Micros = 4 * SECOND;
/// From one checkpoint to the next while a look is waited for.
const INTERVAL_WHILE_LOOKING: Micros = 50 * MILLI;
/// A failure comes so many steps after it could, at most.
const STEPS_LATER_MAX: usize = 60;

/// When tasks fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    BeforeTheFirstCheckpoint,
    BetweenTwo,
    TwiceInARow,
    /// The look ends before the restart, in its delay, or after it.
    WhileLooking,
}

/// Makes a source in a world of its own, which goes by this clock.
pub type MakeSource<'a> = &'a dyn Fn(&mut SeededOrder, &ManualClock) -> Result<Arc<dyn Source>>;

/// The suite for one source whose rows are the same in each of its worlds.
pub struct RestartSuite<'a> {
    /// Makes the source.
    pub make: MakeSource<'a>,
    /// Its rows, sorted.
    pub rows: Vec<ComparableRow>,
    /// Whether the first look of its discovery sees all that is to be seen. Then the later ones say
    /// nothing: what was said once has to last.
    pub is_seen_at_once: bool,
    /// From one checkpoint to the next: several while its rows are read.
    pub interval: Micros,
}

/// Runs the suite for a source whose rows do not change between reads.
///
/// # Errors
/// What is broken.
pub fn check_restarts(source: &Arc<dyn Source>) -> Result<()> {
    let rows = rows_of(source.as_ref(), 1)?;
    let make = |_: &mut SeededOrder, _: &ManualClock| Ok(source.clone());
    RestartSuite { make: &make, rows, is_seen_at_once: true, interval: MILLI }.check()
}

impl RestartSuite<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// What is broken.
    pub fn check(&self) -> Result<()> {
        let source = (self.make)(&mut SeededOrder::new(0), &ManualClock::new(0))?;
        let looks = source.discovery()?.is_some();
        for when in [When::BeforeTheFirstCheckpoint, When::BetweenTwo, When::TwiceInARow, When::WhileLooking]
        {
            if when == When::WhileLooking && !looks {
                continue;
            }
            let mut failures = 0;
            for seed in 0..SEEDS {
                let asked = || format!("tasks fail {when:?}, seed {seed}");
                let (rows, failed) = self.run(when, seed).context(asked)?;
                failures += failed;
                ensure(rows == self.rows, || {
                    let (found, wanted) = (rows.len(), self.rows.len());
                    format!("{}: {found} rows that are not the {wanted} of the source", asked())
                })?;
            }
            ensure(failures > 0, || format!("no task failed {when:?}: the runs prove nothing"))?;
        }
        Ok(())
    }

    /// One job; the rows that it delivered, sorted, and how many tasks failed.
    fn run(&self, when: When, seed: u64) -> Result<(Vec<ComparableRow>, u32)> {
        let (mut order, clock) = (SeededOrder::new(seed), ManualClock::new(0));
        let (env, found) = (Environment::new(), Collected::new());
        let source = (self.make)(&mut order, &clock)?;
        env.source_dyn(source).sink(found.exactly_once_sink()).uid("out");
        let mut config = JobConfig::new("restarts");
        config.parallelism = 1 + order.below(3) as u32;
        config.max_parallelism = 16;
        let is_long = when == When::WhileLooking;
        config.coordinator.checkpoint_interval = if is_long { INTERVAL_WHILE_LOOKING } else { self.interval };
        let failed = Rc::new(Cell::new(0));
        let setup = SimulationSetup {
            seed: order.next_u64(),
            faults: Box::new(Failing {
                when,
                order: order.fork(),
                due_at: None,
                failed: failed.clone(),
                looks: 0,
                is_seen_at_once: self.is_seen_at_once,
            }),
            steps_max: STEPS_MAX,
            clock,
            storage: Arc::new(MemoryStorage::default()),
            backend: Arc::new(MapBackend::default()),
            bounds: ChannelBounds { rows_max: 100_000, bytes_max: 16 << 20 },
        };
        let ended = simulate(env.build()?, config, setup)?;
        ensure(ended == Simulated::Ended(Outcome::Completed), || format!("ended with {ended:?}"))?;
        let mut rows = Vec::new();
        for batch in found.batches() {
            rows.extend(comparable_rows(&batch)?);
        }
        rows.sort();
        Ok((rows, failed.get()))
    }
}

/// Fails a task at the time in question.
struct Failing {
    when: When,
    order: SeededOrder,
    /// The step of the next failure, once it can come.
    due_at: Option<u64>,
    failed: Rc<Cell<u32>>,
    looks: u32,
    is_seen_at_once: bool,
}

impl Failing {
    /// Whether this is a time at which the next failure can come.
    fn can_come(&self, moment: &Moment) -> bool {
        let wanted = if self.when == When::TwiceInARow { 2 } else { 1 };
        let is_first = self.failed.get() == 0;
        moment.tasks > 0
            && self.failed.get() < wanted
            && moment.restarts == self.failed.get()
            && match self.when {
                When::BeforeTheFirstCheckpoint => moment.published.is_none(),
                When::BetweenTwo => moment.published.is_some(),
                When::TwiceInARow => true,
                When::WhileLooking => is_first && moment.looking,
            }
    }
}

impl ProcessFaults for Failing {
    fn strike(&mut self, moment: &Moment) -> Option<ProcessFault> {
        if !self.can_come(moment) {
            self.due_at = None;
            return None;
        }
        let later = self.order.below(STEPS_LATER_MAX) as u64;
        if *self.due_at.get_or_insert(moment.step + later) > moment.step {
            return None;
        }
        self.due_at = None;
        self.failed.set(self.failed.get() + 1);
        Some(ProcessFault::TaskFails(self.order.below(moment.tasks)))
    }

    /// The first look takes long where that is in question.
    fn on_work(&mut self, name: &str) -> WorkFault {
        if !name.starts_with("discovery ") {
            return WorkFault::None;
        }
        self.looks += 1;
        match self.looks {
            1 if self.when == When::WhileLooking => {
                WorkFault::Late(self.order.below(LOOK_MAX as usize) as Micros)
            }
            1 => WorkFault::None,
            _ if self.is_seen_at_once => WorkFault::Late(1_000 * HOUR),
            _ => WorkFault::None,
        }
    }
}
