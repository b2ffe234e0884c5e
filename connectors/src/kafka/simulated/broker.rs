//! What a cluster in memory holds, and what happens to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Happening;
use crate::kafka::client::{Place, TopicId};

/// A record in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimulatedRecord {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Headers by name.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// One cluster.
#[derive(Default)]
pub(super) struct Cluster {
    pub away: bool,
    pub topics: BTreeMap<String, Topic>,
}

pub(super) struct Topic {
    pub id: TopicId,
    pub partitions: Vec<Log>,
}

/// A partition's log.
#[derive(Default)]
pub(super) struct Log {
    /// The offset of the oldest record.
    pub oldest: i64,
    records: VecDeque<Arc<SimulatedRecord>>,
}

impl Log {
    /// The offset behind the newest record.
    pub fn end(&self) -> i64 {
        self.oldest + self.records.len() as i64
    }

    /// The record at an offset.
    pub fn record(&self, offset: i64) -> Option<Arc<SimulatedRecord>> {
        let index = usize::try_from(offset - self.oldest).ok()?;
        self.records.get(index).cloned()
    }

    /// The offset of a place.
    pub fn offset(&self, place: Place) -> Option<i64> {
        match place {
            Place::Oldest => Some(self.oldest),
            Place::End => Some(self.end()),
            Place::Timestamp(timestamp) => {
                let index = self.records.iter().position(|record| record.timestamp_ms >= timestamp)?;
                Some(self.oldest + index as i64)
            }
        }
    }

    fn delete_before(&mut self, before: i64) {
        while self.oldest < before && self.records.pop_front().is_some() {
            self.oldest += 1;
        }
    }
}

impl Cluster {
    /// `number`: of the topic that is made now, if one is.
    pub fn happens(&mut self, happening: Happening, number: u64) {
        match happening {
            Happening::Goes => self.away = true,
            Happening::Returns => self.away = false,
            Happening::TopicMade { topic, partitions } => {
                let id = TopicId(u128::from(number).to_be_bytes());
                let partitions = (0..partitions).map(|_| Log::default()).collect();
                self.topics.insert(topic, Topic { id, partitions });
            }
            Happening::TopicDeleted { topic } => {
                self.topics.remove(&topic);
            }
            Happening::PartitionsAdded { topic, total } => {
                if let Some(topic) = self.topics.get_mut(&topic) {
                    let total = usize::try_from(total).unwrap_or(0).max(topic.partitions.len());
                    topic.partitions.resize_with(total, Log::default);
                }
            }
            Happening::Written { topic, partition, records } => {
                if let Some(log) = self.log(&topic, partition) {
                    log.records.extend(records.into_iter().map(Arc::new));
                }
            }
            Happening::Deleted { topic, partition, before } => {
                if let Some(log) = self.log(&topic, partition) {
                    log.delete_before(before);
                }
            }
        }
    }

    fn log(&mut self, topic: &str, partition: i32) -> Option<&mut Log> {
        self.topics.get_mut(topic)?.partitions.get_mut(usize::try_from(partition).ok()?)
    }
}
