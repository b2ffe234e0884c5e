//! The clients of clusters in memory.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::Arc;
use std::time::Duration;

use thalweg_engine::operator::Waker;
use thalweg_engine::time::Micros;
use thalweg_engine::{Error, Result};

use super::broker::{Cluster, SimulatedRecord, Topic};
use super::{SimulatedKafka, State};
use crate::kafka::client::{
    ConsumerClient, Fetched, KafkaClient, Located, Message, MessageDetails, MessageKind, MetadataClient,
    PartitionMetadata, Place, TopicMetadata, Watch,
};
use crate::kafka::settings::ConsumerNeeds;
use crate::kafka::topology;

/// One look in so many is late.
const LATE_LOOKS: usize = 4;

impl KafkaClient for SimulatedKafka {
    fn metadata(&self, cluster: &topology::Cluster) -> Result<Box<dyn MetadataClient>> {
        Ok(Box::new(SimulatedMetadata { kafka: self.clone(), bootstrap: cluster.bootstrap.clone() }))
    }

    fn consumer(
        &self,
        _name: &str,
        cluster: &topology::Cluster,
        needs: ConsumerNeeds,
        waker: &Waker,
    ) -> Result<Box<dyn ConsumerClient>> {
        let mut state = self.lock();
        state.consumers_made += 1;
        let number = state.consumers_made;
        state.wakers.insert(number, waker.clone());
        drop(state);
        Ok(Box::new(SimulatedConsumer {
            kafka: self.clone(),
            bootstrap: cluster.bootstrap.clone(),
            number,
            tells_ends: needs.end_of_partition,
            assigned: BTreeMap::new(),
            locating: Vec::new(),
            topics: Vec::new(),
        }))
    }

    fn watch(
        &self,
        _name: &str,
        interval: Duration,
        look: Box<dyn FnMut() + Send>,
    ) -> Result<Box<dyn Watch>> {
        let interval = Micros::try_from(interval.as_micros()).unwrap_or(Micros::MAX);
        Ok(Box::new(SimulatedWatch { kafka: self.clone(), interval, look, next_at: Micros::MIN }))
    }
}

impl State {
    /// A cluster that can be reached.
    fn reached(&self, bootstrap: &str) -> Option<&Cluster> {
        self.clusters.get(bootstrap).filter(|cluster| !cluster.away)
    }
}

struct SimulatedWatch {
    kafka: SimulatedKafka,
    interval: Micros,
    look: Box<dyn FnMut() + Send>,
    next_at: Micros,
}

impl Watch for SimulatedWatch {
    fn turn(&mut self) {
        let now = self.kafka.0.clock.monotonic();
        if now < self.next_at || self.kafka.lock().order.below(LATE_LOOKS) == 0 {
            return;
        }
        (self.look)();
        self.next_at = now.saturating_add(self.interval);
    }
}

struct SimulatedMetadata {
    kafka: SimulatedKafka,
    bootstrap: String,
}

impl SimulatedMetadata {
    fn ask<T>(&self, question: impl FnOnce(&Cluster) -> T) -> Result<T> {
        let state = self.kafka.lock();
        let cluster = state.reached(&self.bootstrap);
        cluster.map(question).ok_or_else(|| Error::external("no broker answers"))
    }
}

impl MetadataClient for SimulatedMetadata {
    fn topic(&mut self, topic: &str, _timeout: Duration) -> Result<TopicMetadata> {
        self.ask(|cluster| match cluster.topics.get(topic) {
            None => TopicMetadata::Absent("there is no such topic".to_string()),
            Some(Topic { id, partitions }) => {
                let partition = |number| PartitionMetadata { number, leader: Some(1) };
                let partitions = (0..partitions.len() as i32).map(partition).collect();
                TopicMetadata::Present { id: Some(*id), partitions }
            }
        })
    }

    fn offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        place: Place,
        _timeout: Duration,
    ) -> Result<BTreeMap<i32, i64>> {
        self.ask(|cluster| {
            let Some(topic) = cluster.topics.get(topic) else {
                return BTreeMap::new();
            };
            let offset = |&partition: &i32| {
                let log = topic.partitions.get(usize::try_from(partition).ok()?)?;
                Some((partition, log.offset(place)?))
            };
            partitions.iter().filter_map(offset).collect()
        })
    }
}

/// What a consumer knows of a partition that it reads.
struct Reading {
    next: i64,
    /// The end that was told last.
    end_told: i64,
    /// Its offset is gone, and that was told.
    stopped: bool,
}

struct SimulatedConsumer {
    kafka: SimulatedKafka,
    bootstrap: String,
    number: u64,
    tells_ends: bool,
    assigned: BTreeMap<(String, i32), Reading>,
    locating: Vec<(String, i32)>,
    /// Topics by their keys in messages.
    topics: Vec<Arc<str>>,
}

impl Drop for SimulatedConsumer {
    fn drop(&mut self) {
        self.kafka.lock().wakers.remove(&self.number);
    }
}

impl ConsumerClient for SimulatedConsumer {
    fn assign(&mut self, partitions: &[(&str, i32, i64)]) -> Result<()> {
        for &(topic, partition, next) in partitions {
            let reading = Reading { next, end_told: -1, stopped: false };
            self.assigned.insert((topic.to_string(), partition), reading);
        }
        if let Some(waker) = self.kafka.lock().wakers.get(&self.number) {
            waker.wake();
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[(&str, i32)]) -> Result<()> {
        for &(topic, partition) in partitions {
            self.assigned.remove(&(topic.to_string(), partition));
        }
        Ok(())
    }

    fn fetch(&mut self, messages_max: usize) -> Box<dyn Fetched + '_> {
        let mut messages = Vec::new();
        let mut state = self.kafka.lock();
        let room = 1 + state.order.below(messages_max);
        let first = state.order.below(self.assigned.len());
        let Some(cluster) = state.reached(&self.bootstrap) else {
            return Box::new(SimulatedMessages { messages, ends_a_turn: true });
        };
        // One of them begins, and in turn the others follow.
        let (before, after): (Vec<_>, Vec<_>) =
            self.assigned.iter_mut().enumerate().partition(|(index, _)| *index < first);
        for (_, ((topic, partition), reading)) in after.into_iter().chain(before) {
            let key = topic_key(&mut self.topics, topic);
            let message = |kind, offset, record| SimulatedMessage {
                kind,
                topic_key: key,
                topic: self.topics[key - 1].clone(),
                partition: *partition,
                offset,
                record,
            };
            let log = cluster.topics.get(topic).and_then(|topic| topic.partitions.get(*partition as usize));
            let Some(log) = log.filter(|_| !reading.stopped && messages.len() < room) else {
                continue;
            };
            if !(log.oldest..=log.end()).contains(&reading.next) {
                reading.stopped = true;
                messages.push(message(MessageKind::OffsetGone, reading.next, None));
                continue;
            }
            while messages.len() < room
                && let Some(record) = log.record(reading.next)
            {
                messages.push(message(MessageKind::Record, reading.next, Some(record)));
                reading.next += 1;
            }
            let end = log.end();
            if self.tells_ends && reading.next == end && reading.end_told != end && messages.len() < room {
                reading.end_told = end;
                messages.push(message(MessageKind::EndOfPartition, end, None));
            }
        }
        let ends_a_turn = messages.len() < room;
        Box::new(SimulatedMessages { messages, ends_a_turn })
    }

    fn locate(&mut self, partitions: &[(&str, i32)]) {
        let wanted = partitions.iter().map(|&(topic, partition)| (topic.to_string(), partition));
        self.locating.extend(wanted);
    }

    fn located(&mut self) -> Vec<Located> {
        let state = self.kafka.lock();
        let Some(cluster) = state.reached(&self.bootstrap) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        self.locating.retain(|(name, partition)| {
            let topic = cluster.topics.get(name);
            let log = topic.and_then(|topic| Some((topic, topic.partitions.get(*partition as usize)?)));
            found.extend(log.map(|(topic, log)| Located {
                topic: name.clone(),
                partition: *partition,
                id: Some(topic.id),
                oldest: log.oldest,
                end: log.end(),
            }));
            log.is_none()
        });
        found
    }

    fn high_watermark(&self, topic: &str, partition: i32) -> Option<i64> {
        let state = self.kafka.lock();
        let topic = state.reached(&self.bootstrap)?.topics.get(topic)?;
        Some(topic.partitions.get(usize::try_from(partition).ok()?)?.end())
    }

    fn is_down(&mut self) -> bool {
        self.kafka.lock().reached(&self.bootstrap).is_none()
    }

    fn take_transport_errors(&mut self) -> u64 {
        0
    }

    fn retire(self: Box<Self>) {}
}

/// Keys begin with 1.
fn topic_key(topics: &mut Vec<Arc<str>>, topic: &str) -> usize {
    if let Some(known) = topics.iter().position(|known| **known == *topic) {
        return known + 1;
    }
    topics.push(topic.into());
    topics.len()
}

struct SimulatedMessages {
    messages: Vec<SimulatedMessage>,
    ends_a_turn: bool,
}

struct SimulatedMessage {
    kind: MessageKind,
    topic_key: usize,
    topic: Arc<str>,
    partition: i32,
    offset: i64,
    record: Option<Arc<SimulatedRecord>>,
}

impl Fetched for SimulatedMessages {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn ends_a_turn(&self) -> bool {
        self.ends_a_turn
    }

    fn message(&self, index: usize) -> Message<'_> {
        let message = &self.messages[index];
        let record = message.record.as_deref();
        Message {
            kind: message.kind,
            topic_key: message.topic_key,
            partition: message.partition,
            offset: message.offset,
            value: record.and_then(|record| record.value.as_deref()),
            key: record.and_then(|record| record.key.as_deref()),
            details: message,
        }
    }
}

impl MessageDetails for SimulatedMessage {
    fn topic(&self) -> String {
        self.topic.to_string()
    }

    fn reason(&self) -> String {
        format!("{:?}", self.kind)
    }

    fn timestamp_ms(&self) -> Option<i64> {
        self.record.as_ref().map(|record| record.timestamp_ms)
    }

    fn header(&self, name: &CStr) -> Option<&[u8]> {
        let headers = &self.record.as_ref()?.headers;
        let last = headers.iter().rev().find(|(header, _)| header.as_bytes() == name.to_bytes())?;
        Some(&last.1)
    }
}
