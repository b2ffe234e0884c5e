//! Looks at one cluster, again and again, on a thread of its own: is it there, which partitions
//! does it have, what are their offsets. A slow or dead cluster so delays nobody (F12): every
//! call is bounded in time, and only this thread waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use thalweg_engine::{Error, Result};

use super::bounds::Start;
use super::fact::{HoldingFact, PartitionFact};
use super::settings::probe_config;
use super::topology::Cluster;

/// What a probe looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub name: String,
    pub cluster: Cluster,
    /// The physical topics.
    pub topics: Vec<String>,
    pub start: Start,
}

/// How long a look may take and how long the next one waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub interval: Duration,
    pub timeout: Duration,
}

/// A running probe; ends when it is dropped (its thread a bounded while later).
pub(crate) struct Probe {
    pub target: Target,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    holdings: Vec<HoldingFact>,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the next look is due; false when the probe is to end.
    fn pause(&self, interval: Duration) -> bool {
        let seen = self.lock();
        let waited = self.changed.wait_timeout_while(seen, interval, |seen| !seen.stop);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}

impl Probe {
    /// Starts looking.
    ///
    /// # Errors
    /// An external error when no thread can be had.
    pub fn start(target: Target, pace: Pace) -> Result<Probe> {
        let shared = Arc::new(Shared::default());
        shared.lock().holdings = target.topics.iter().map(|topic| unseen(&target.name, topic)).collect();
        let (its, looking) = (shared.clone(), target.clone());
        std::thread::Builder::new()
            .name(format!("kafka-probe-{}", target.name))
            .spawn(move || Looking::new(looking, pace).run(&its))
            .map_err(|error| Error::external("cannot start a thread").caused_by(error))?;
        Ok(Probe { target, shared })
    }

    /// The last look.
    pub fn seen(&self) -> Vec<HoldingFact> {
        self.shared.lock().holdings.clone()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
    }
}

fn unseen(cluster: &str, topic: &str) -> HoldingFact {
    HoldingFact {
        cluster: cluster.to_string(),
        topic: topic.to_string(),
        reachable: None,
        complete: false,
        partitions: Vec::new(),
    }
}

struct Looking {
    target: Target,
    pace: Pace,
    client: Option<BaseConsumer>,
    /// Offsets as they were when a partition was first seen, by topic.
    known: BTreeMap<String, BTreeMap<i32, PartitionFact>>,
    trouble: Option<String>,
}

impl Looking {
    fn new(target: Target, pace: Pace) -> Self {
        Looking { target, pace, client: None, known: BTreeMap::new(), trouble: None }
    }

    fn run(mut self, shared: &Shared) {
        loop {
            let holdings = self.look();
            shared.lock().holdings = holdings;
            if !shared.pause(self.pace.interval) {
                return;
            }
        }
    }

    fn look(&mut self) -> Vec<HoldingFact> {
        let topics = self.target.topics.clone();
        let mut holdings = Vec::with_capacity(topics.len());
        let mut reachable = true;
        for topic in &topics {
            let looked = if reachable { self.look_at(topic) } else { Err(Error::external("unreachable")) };
            let (here, complete) = match looked {
                Ok(complete) => (true, complete),
                Err(error) => {
                    reachable = false;
                    self.report(&error);
                    (false, false)
                }
            };
            let partitions: Vec<_> =
                self.known.get(topic).map(|known| known.values().cloned().collect()).unwrap_or_default();
            holdings.push(HoldingFact {
                reachable: Some(here),
                complete: complete && !partitions.is_empty(),
                partitions,
                ..unseen(&self.target.name, topic)
            });
        }
        if reachable && self.trouble.take().is_some() {
            tracing::info!(cluster = %self.target.name, "Kafka cluster is reached again");
        }
        holdings
    }

    fn report(&mut self, error: &Error) {
        let trouble = error.to_string();
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(cluster = %self.target.name, %trouble, "Kafka cluster is not reached");
        }
        self.trouble = Some(trouble);
    }

    /// Whether all of the topic's partitions are known with their offsets.
    fn look_at(&mut self, topic: &str) -> Result<bool> {
        let timeout = self.pace.timeout;
        let client = match self.client.take() {
            Some(client) => client,
            None => probe_config(&self.target.cluster)?
                .create::<BaseConsumer>()
                .map_err(|error| Error::user("the client cannot be made").caused_by(error))?,
        };
        let client = self.client.insert(client);
        // Serves logs and errors, which would pile up otherwise.
        while client.poll(Duration::ZERO).is_some() {}
        let unreached = |error| Error::external("no metadata").caused_by(error);
        let metadata = client.fetch_metadata(Some(topic), timeout).map_err(unreached)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(false);
        };
        if let Some(error) = found.error() {
            let trouble = format!("topic {topic}: {}", rdkafka::error::RDKafkaErrorCode::from(error));
            if self.trouble.as_ref() != Some(&trouble) {
                tracing::warn!(cluster = %self.target.name, %trouble, "the topology says it is there");
                self.trouble = Some(trouble);
            }
            return Ok(false);
        }
        let known = self.known.entry(topic.to_string()).or_default();
        let led = found.partitions().iter().filter(|partition| partition.leader() >= 0);
        let new: Vec<i32> =
            led.map(|partition| partition.id()).filter(|id| !known.contains_key(id)).collect();
        let total = found.partitions().len();
        if !new.is_empty() {
            for fact in offsets(client, topic, &new, &self.target.start, timeout)? {
                known.insert(fact.partition, fact);
            }
        }
        Ok(known.len() >= total)
    }
}

/// The offsets of partitions, asked for all at once.
fn offsets(
    client: &BaseConsumer,
    topic: &str,
    partitions: &[i32],
    start: &Start,
    timeout: Duration,
) -> Result<Vec<PartitionFact>> {
    let ask = |at: Offset| -> Result<BTreeMap<i32, i64>> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(topic, *partition, at)
                .map_err(|error| Error::internal("cannot ask for offsets").caused_by(error))?;
        }
        let answer = client
            .offsets_for_times(list, timeout)
            .map_err(|error| Error::external(format!("no offsets of topic {topic}")).caused_by(error))?;
        let offset = |at| match at {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let answered = answer.elements();
        let good = answered.iter().filter(|element| element.error().is_ok());
        Ok(good.filter_map(|element| Some((element.partition(), offset(element.offset())?))).collect())
    };
    // The protocol's own marks for "oldest" and "next" are what these two offsets are on the wire.
    let low = ask(Offset::Beginning)?;
    let high = ask(Offset::End)?;
    let at_timestamp = match start {
        Start::Timestamp(milliseconds) => ask(Offset::Offset(*milliseconds))?,
        _ => BTreeMap::new(),
    };
    let fact = |partition: &i32| {
        Some(PartitionFact {
            topic: topic.to_string(),
            partition: *partition,
            low: *low.get(partition)?,
            high: *high.get(partition)?,
            at_timestamp: at_timestamp.get(partition).copied(),
        })
    };
    Ok(partitions.iter().filter_map(fact).collect())
}
