//! The system's clock is set again and again, forward and back: checkpoints, timeouts and the delay of
//! a restart take as long as they would without.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::cluster::{
    JobConfig, Moment, Outcome, ProcessFault, ProcessFaults, SeededOrder, Simulated, SimulationSetup,
    simulate,
};
use thalweg_engine::runtime::{ChannelBounds, Clock, ManualClock};
use thalweg_engine::state::MapBackend;
use thalweg_engine::time::{HOUR, MILLI, Micros, SECOND};

use crate::job::{Ledger, Numbers, expected, keyed_count};

const SEEDS: u64 = 20;
/// The clock is set by less than this, either way.
const STEP_MAX: Micros = 2 * HOUR;
/// So many in a thousand steps of the simulation set it.
const STEPS: usize = 20;
/// A restart's first delay is about a second; the job itself takes less.
const LASTS_MAX: Micros = 10 * SECOND;

struct Setting {
    order: SeededOrder,
    /// A task fails once, at this step or soon after it.
    fail_at: Option<u64>,
    set: Rc<Cell<u32>>,
}

impl ProcessFaults for Setting {
    fn strike(&mut self, moment: &Moment) -> Option<ProcessFault> {
        if moment.tasks > 0 && self.fail_at.take_if(|at| *at <= moment.step).is_some() {
            return Some(ProcessFault::TaskFails(self.order.below(moment.tasks)));
        }
        if !self.order.happens(STEPS) {
            return None;
        }
        self.set.set(self.set.get() + 1);
        Some(ProcessFault::ClockSteps(self.order.below(2 * STEP_MAX as usize) as Micros - STEP_MAX))
    }
}

#[test]
fn nothing_takes_longer_or_shorter_because_the_clock_was_set() {
    let set = Rc::new(Cell::new(0));
    for seed in 0..SEEDS {
        let mut order = SeededOrder::new(seed ^ 0xc10c);
        let source = Numbers { rows: vec![300, 200], rows_per_poll: 2 };
        let (ledger, clock) = (Ledger::default(), ManualClock::new(0));
        let mut config = JobConfig::new("clock");
        config.parallelism = 1 + order.below(3) as u32;
        config.max_parallelism = 16;
        config.coordinator.checkpoint_interval = 3 * MILLI;
        let fail_at = Some(order.below(300) as u64);
        let setup = SimulationSetup {
            seed: order.next_u64(),
            faults: Box::new(Setting { order: order.fork(), fail_at, set: set.clone() }),
            steps_max: 200_000,
            clock: clock.clone(),
            storage: Arc::new(MemoryStorage::default()),
            backend: Arc::new(MapBackend::default()),
            bounds: ChannelBounds { rows_max: 1 + order.below(100), bytes_max: 1 << 20 },
        };
        let ended = simulate(keyed_count(source.clone(), &ledger), config, setup).unwrap();
        assert_eq!(ended, Simulated::Ended(Outcome::Completed), "seed {seed}");
        assert_eq!(ledger.rows(), expected(&[&source]), "seed {seed}");
        let lasted = clock.monotonic();
        assert!((SECOND / 2..LASTS_MAX).contains(&lasted), "seed {seed}: it took {lasted} µs");
    }
    assert!(set.get() > 200, "set {} times: too few to prove anything", set.get());
}
