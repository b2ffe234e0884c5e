//! Kafka clusters in memory, for tests and the simulator: no socket, no thread, time from a clock
//! that is given. What a script plans for them comes about when its time has come: clusters go and
//! come back, records are written and deleted, topics are deleted and made anew.
//!
//! They stand behind the same cut as librdkafka does, and one suite holds both to it: see
//! [`crate::conformance::kafka_client`].

mod broker;
mod clients;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thalweg_engine::cluster::SeededOrder;
use thalweg_engine::operator::Waker;
use thalweg_engine::runtime::Clock;
use thalweg_engine::time::Micros;

use self::broker::Cluster;
pub use self::broker::SimulatedRecord;

/// What can happen to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Nobody reaches it any more.
    Goes,
    /// It is back, with what it had.
    Returns,
    /// A topic is made, with an id of its own.
    TopicMade {
        /// Its name.
        topic: String,
        /// How many partitions it has.
        partitions: i32,
    },
    /// A topic and its records are gone.
    TopicDeleted {
        /// Its name.
        topic: String,
    },
    /// A topic has more partitions.
    PartitionsAdded {
        /// The topic.
        topic: String,
        /// How many it has now.
        total: i32,
    },
    /// Records are written, each behind the last, whether or not anybody reaches the cluster.
    Written {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What is written.
        records: Vec<SimulatedRecord>,
    },
    /// Retention takes the records before an offset.
    Deleted {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The oldest offset that is left.
        before: i64,
    },
}

/// Clusters in memory, named by their bootstrap addresses. Clones are the same clusters.
#[derive(Clone)]
pub struct SimulatedKafka(Arc<World>);

struct World {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    clusters: BTreeMap<String, Cluster>,
    planned: BTreeMap<Micros, Vec<(String, Happening)>>,
    topics_made: u64,
    wakers: BTreeMap<u64, Waker>,
    consumers_made: u64,
    order: SeededOrder,
}

impl SimulatedKafka {
    /// No cluster yet. `seed` decides how much a fetch brings and when a look is late.
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        let state = State {
            clusters: BTreeMap::new(),
            planned: BTreeMap::new(),
            topics_made: 0,
            wakers: BTreeMap::new(),
            consumers_made: 0,
            order: SeededOrder::new(seed),
        };
        SimulatedKafka(Arc::new(World { clock, state: Mutex::new(state) }))
    }

    /// Something happens now to the cluster at this bootstrap address; one that is new is there at
    /// once.
    pub fn happens(&self, bootstrap: &str, happening: Happening) {
        self.lock().happens(bootstrap, happening);
    }

    /// Something will happen at a time, in microseconds of the clock's monotonic time. What is planned for one time
    /// comes about in the order in which it was planned.
    pub fn will_happen(&self, at: Micros, bootstrap: &str, happening: Happening) {
        let mut state = self.lock();
        state.planned.entry(at).or_default().push((bootstrap.to_string(), happening));
    }

    /// The state as of now.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.clock.monotonic();
        while let Some(due) = state.planned.first_entry().filter(|planned| *planned.key() <= now) {
            for (bootstrap, happening) in due.remove() {
                state.happens(&bootstrap, happening);
            }
        }
        state
    }
}

impl State {
    fn happens(&mut self, bootstrap: &str, happening: Happening) {
        let cluster = self.clusters.entry(bootstrap.to_string()).or_default();
        self.topics_made += u64::from(matches!(happening, Happening::TopicMade { .. }));
        cluster.happens(happening, self.topics_made);
        self.wakers.values().for_each(Waker::wake);
    }
}
