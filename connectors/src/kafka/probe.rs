//! Looks at one cluster, again and again: is it there, which partitions does it have, what are
//! their offsets. A slow or dead cluster so delays nobody (F12): every question is bounded in time,
//! and only the watch that asks waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thalweg_engine::{Error, Result};

use super::bounds::Start;
use super::client::{KafkaClient, MetadataClient, Place, TopicId, TopicMetadata, Watch};
use super::fact::{HoldingFact, PartitionFact};
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

/// A running probe; ends when it is dropped.
pub(crate) struct Probe {
    pub target: Target,
    seen: Arc<Seen>,
    watch: Box<dyn Watch>,
}

/// The last look.
struct Seen(Mutex<Vec<HoldingFact>>);

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Vec<HoldingFact>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe {
    /// Starts looking.
    ///
    /// # Errors
    /// An external error when no thread can be had.
    pub fn start(client: &Arc<dyn KafkaClient>, target: Target, pace: Pace) -> Result<Probe> {
        let nothing = target.topics.iter().map(|topic| unseen(&target.name, topic)).collect();
        let seen = Arc::new(Seen(Mutex::new(nothing)));
        let its = seen.clone();
        let mut looking = Looking::new(client.clone(), target.clone(), pace.timeout);
        let look = move || {
            let holdings = looking.look();
            *its.lock() = holdings;
        };
        let watch = client.watch(&format!("kafka-probe-{}", target.name), pace.interval, Box::new(look))?;
        Ok(Probe { target, seen, watch })
    }

    /// The last look.
    pub fn seen(&mut self) -> Vec<HoldingFact> {
        self.watch.turn();
        self.seen.lock().clone()
    }
}

fn unseen(cluster: &str, topic: &str) -> HoldingFact {
    HoldingFact {
        cluster: cluster.to_string(),
        topic: topic.to_string(),
        reachable: None,
        topic_id: None,
        brokers: 0,
        complete: false,
        partitions: Vec::new(),
    }
}

struct Looking {
    client: Arc<dyn KafkaClient>,
    target: Target,
    /// How long a question may take.
    timeout: Duration,
    asking: Option<Box<dyn MetadataClient>>,
    known: BTreeMap<String, Known>,
    trouble: Option<String>,
}

/// What is known of a topic.
#[derive(Default)]
struct Known {
    id: Option<TopicId>,
    /// The most brokers that led its partitions at one time.
    brokers: usize,
    /// Offsets as they were when a partition was first seen.
    partitions: BTreeMap<i32, PartitionFact>,
}

impl Known {
    /// The topic has this id now: what was seen of another making of it is forgotten.
    fn is_of(&mut self, id: Option<TopicId>) {
        if id.is_some() && id != self.id {
            if self.id.is_some() {
                self.partitions.clear();
            }
            self.id = id;
        }
    }
}

impl Looking {
    fn new(client: Arc<dyn KafkaClient>, target: Target, timeout: Duration) -> Self {
        Looking { client, target, timeout, asking: None, known: BTreeMap::new(), trouble: None }
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
            let known = self.known.get(topic);
            let partitions: Vec<_> =
                known.map(|known| known.partitions.values().cloned().collect()).unwrap_or_default();
            holdings.push(HoldingFact {
                reachable: Some(here),
                topic_id: known.and_then(|known| known.id),
                brokers: known.map_or(0, |known| known.brokers),
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
        let asking = match self.asking.take() {
            Some(asking) => asking,
            None => self.client.metadata(&self.target.cluster)?,
        };
        let asking = self.asking.insert(asking);
        let (id, partitions) = match asking.topic(topic, self.timeout)? {
            TopicMetadata::Present { id, partitions } => (id, partitions),
            TopicMetadata::Absent(why) => {
                let trouble = format!("topic {topic}: {why}");
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(cluster = %self.target.name, %trouble, "the topology says it is there");
                    self.trouble = Some(trouble);
                }
                return Ok(false);
            }
        };
        let known = self.known.entry(topic.to_string()).or_default();
        known.is_of(id);
        let leaders: BTreeSet<i32> = partitions.iter().filter_map(|partition| partition.leader).collect();
        known.brokers = known.brokers.max(leaders.len());
        let known = &mut known.partitions;
        let led = partitions.iter().filter(|partition| partition.leader.is_some());
        let led = led.map(|partition| partition.number);
        let new: Vec<i32> = led.filter(|number| !known.contains_key(number)).collect();
        if !new.is_empty() {
            for fact in offsets(asking.as_mut(), topic, &new, &self.target.start, self.timeout)? {
                known.insert(fact.partition, fact);
            }
        }
        Ok(known.len() >= partitions.len())
    }
}

/// The offsets of partitions, asked for all at once.
fn offsets(
    asking: &mut dyn MetadataClient,
    topic: &str,
    partitions: &[i32],
    start: &Start,
    timeout: Duration,
) -> Result<Vec<PartitionFact>> {
    let mut ask = |place| asking.offsets(topic, partitions, place, timeout);
    let low = ask(Place::Oldest)?;
    let high = ask(Place::End)?;
    let at_timestamp = match start {
        Start::Timestamp(milliseconds) => ask(Place::Timestamp(*milliseconds))?,
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
