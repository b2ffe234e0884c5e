//! What one task reads of one cluster: its splits, and the consumer that reads them.
//!
//! The rule (F3): nothing that happens to a cluster is an error of the task, but for an offset
//! that is gone when the job is told to fail then. Positions live here, not in the consumer: a
//! consumer can be thrown away and made anew at any time.

use std::ffi::CString;

use rdkafka::Offset;
use rdkafka::error::RDKafkaErrorCode;
use thalweg_engine::operator::Waker;
use thalweg_engine::source::{SplitActivity, SplitId, SplitState};
use thalweg_engine::{Error, Result};

use super::bounds::OnOffsetGone;
use super::cluster_metrics::ClusterMetrics;
use super::consumer::{ClusterConsumer, FetchBuffer, Message};
use super::gathering::Gathering;
use super::settings::{ConsumerNeeds, consumer_config};
use super::split::{Partition, Position, split_state};
use super::topology::Cluster;

/// A split in a reader.
pub(crate) struct Split {
    pub id: SplitId,
    pub partition: Partition,
    pub position: Position,
    /// What the engine was last told of the split's part in the watermark.
    pub activity: SplitActivity,
    /// Whether the topology lists it; what is not listed waits here to be given back.
    pub listed: bool,
    /// Whether the engine was told that it is read to its end.
    pub end_told: bool,
    /// Whether the consumer reads it.
    assigned: bool,
    /// The offset to read next is gone: reading goes on at this end of the partition, and where
    /// that is the next record says.
    restart: Option<Offset>,
    topic: CString,
}

impl Split {
    /// A split that nobody reads yet.
    ///
    /// # Errors
    /// An internal error for a topic's name that cannot be.
    pub fn new(partition: Partition, position: Position) -> Result<Self> {
        let topic = CString::new(partition.topic.as_str())
            .map_err(|_| Error::internal(format!("{:?} cannot be a topic", partition.topic)))?;
        Ok(Split {
            id: partition.id(),
            partition,
            position,
            activity: SplitActivity::Active,
            listed: true,
            end_told: false,
            assigned: false,
            restart: None,
            topic,
        })
    }

    /// The split with its position, for a checkpoint.
    pub fn state(&self) -> SplitState {
        split_state(&self.id, self.position)
    }

    fn wanted(&self) -> bool {
        self.listed && !self.position.is_at_end()
    }

    /// Where the consumer begins.
    fn start(&self) -> Offset {
        self.restart.unwrap_or(Offset::Offset(self.position.next))
    }
}

/// What a fetch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetch {
    /// Messages that came, errors among them.
    pub messages: usize,
    /// Records among them that were taken.
    pub records: u64,
    /// Whether a split came to its end.
    pub ended: bool,
}

/// The splits of one cluster in one task.
pub(crate) struct ClusterReader {
    pub name: String,
    pub splits: Vec<Split>,
    pub metrics: ClusterMetrics,
    /// The discovery does not reach the cluster.
    told_away: bool,
    /// The consumer has lost every broker: noticed at once, however slow the discovery is.
    lost: bool,
    /// Whether either was so when it was last counted.
    counted_down: bool,
    /// The last fetch brought records.
    pub flowing: bool,
    on_offset_gone: OnOffsetGone,
    consumer: Option<(Cluster, ClusterConsumer)>,
    /// (topic, partition) as messages name them -> index of the split.
    index: Vec<(usize, i32, usize)>,
}

impl ClusterReader {
    /// Without splits and without a connection.
    pub fn new(name: &str, on_offset_gone: OnOffsetGone, metrics: ClusterMetrics) -> Self {
        ClusterReader {
            name: name.to_string(),
            splits: Vec::new(),
            metrics,
            told_away: false,
            lost: false,
            counted_down: false,
            flowing: false,
            on_offset_gone,
            consumer: None,
            index: Vec::new(),
        }
    }

    /// Whether nothing can be expected of the cluster. What was queued before it went, or what
    /// comes before the discovery notices its return, still counts.
    pub fn is_away(&self) -> bool {
        (self.told_away || self.lost) && !self.flowing
    }

    /// Takes over what the discovery says, without counting: the cluster is new here.
    pub fn begin(&mut self, away: bool) {
        (self.told_away, self.counted_down) = (away, away);
    }

    /// Takes over what the discovery says.
    pub fn tell_away(&mut self, away: bool) {
        self.told_away = away;
        self.count_outage();
    }

    fn count_outage(&mut self) {
        let down = self.told_away || self.lost;
        match (std::mem::replace(&mut self.counted_down, down), down) {
            (false, true) => self.metrics.outages.add(1),
            (true, false) => self.metrics.returns.add(1),
            _ => {}
        }
    }

    /// Takes a split.
    pub fn add(&mut self, split: Split) {
        self.splits.push(split);
        self.index.clear();
    }

    /// Gives a split up; `None` when it is not here.
    pub fn remove(&mut self, id: &SplitId) -> Option<SplitState> {
        let at = self.splits.iter().position(|split| split.id == *id)?;
        self.splits[at].listed = false;
        self.sync_assignment();
        self.index.clear();
        Some(self.splits.remove(at).state())
    }

    /// Makes the consumer fit `cluster` and the splits: connects, reconnects when the cluster is
    /// reached in another way now, assigns and unassigns, and lets go of a consumer without work.
    pub fn follow(&mut self, cluster: Option<&Cluster>, needs: ConsumerNeeds, waker: &Waker) {
        if !self.splits.iter().any(Split::wanted) {
            self.disconnect();
            return;
        }
        if let (Some(wanted), Some((current, _))) = (cluster, &self.consumer)
            && wanted != current
        {
            tracing::info!(cluster = %self.name, "Kafka cluster is reached in another way now");
            self.disconnect();
        }
        if self.consumer.is_none()
            && let Some(cluster) = cluster
        {
            let made = consumer_config(cluster, needs)
                .and_then(|config| ClusterConsumer::new(&self.name, &config, waker));
            match made {
                Ok(consumer) => {
                    self.metrics.connects.add(1);
                    self.consumer = Some((cluster.clone(), consumer));
                }
                Err(error) => {
                    self.metrics.transport_errors.add(1);
                    tracing::warn!(cluster = %self.name, %error, "Kafka cluster cannot be read");
                }
            }
        }
        self.sync_assignment();
    }

    fn disconnect(&mut self) {
        self.lost = false;
        if let Some((_, consumer)) = self.consumer.take() {
            consumer.retire();
        }
        self.index.clear();
        for split in &mut self.splits {
            split.assigned = false;
        }
    }

    /// Takes from the consumer the splits that are to begin elsewhere.
    fn reassign(&mut self) {
        let Some((_, consumer)) = &self.consumer else {
            return;
        };
        let moved = self.splits.iter().filter(|split| split.assigned && split.restart.is_some());
        let moved = moved.map(|split| (split.partition.topic.as_str(), split.partition.number));
        match consumer.unassign(moved) {
            Ok(()) => {
                let moved = self.splits.iter_mut().filter(|split| split.restart.is_some());
                moved.for_each(|split| split.assigned = false);
            }
            Err(error) => {
                tracing::warn!(cluster = %self.name, %error, "the consumer is made anew");
                self.disconnect();
            }
        }
    }

    /// Assigns what is wanted and unassigns what is not; splits in between are left alone (F5).
    fn sync_assignment(&mut self) {
        let Some((_, consumer)) = &self.consumer else {
            return;
        };
        let leaving = self.splits.iter().filter(|split| split.assigned && !split.wanted());
        let unassigned =
            consumer.unassign(leaving.map(|split| (split.partition.topic.as_str(), split.partition.number)));
        let joining = self.splits.iter().filter(|split| !split.assigned && split.wanted());
        let assigned = consumer.assign(
            joining.map(|split| (split.partition.topic.as_str(), split.partition.number, split.start())),
        );
        match unassigned.and(assigned) {
            Ok(()) => {
                for split in &mut self.splits {
                    split.assigned = split.wanted();
                }
            }
            Err(error) => {
                // The positions are ours: start over with a new consumer at the next look.
                tracing::warn!(cluster = %self.name, %error, "the consumer is made anew");
                self.metrics.transport_errors.add(1);
                self.disconnect();
            }
        }
    }

    /// Takes what was fetched into `gathering`; never waits.
    ///
    /// # Errors
    /// An external error when an offset is gone and the job is to fail then.
    pub fn fetch(&mut self, buffer: &mut FetchBuffer, gathering: &mut Gathering) -> Result<Fetch> {
        let Some((_, consumer)) = &mut self.consumer else {
            return Ok(Fetch::default());
        };
        let fetched = consumer.fetch(buffer);
        let mut fetch = Fetch { messages: fetched.len(), ..Fetch::default() };
        let mut bytes = 0;
        let mut last = (0, -1, usize::MAX);
        let mut restarted = false;
        for message in fetched.iter() {
            if (message.topic_key(), message.partition()) != (last.0, last.1) {
                let found = find(&mut self.index, &self.splits, message);
                last = (message.topic_key(), message.partition(), found.unwrap_or(usize::MAX));
            }
            let Some(split) = self.splits.get_mut(last.2) else {
                if let Some(code) = message.error() {
                    about_no_split(&self.name, &self.metrics, code, message);
                }
                continue;
            };
            if let Some(code) = message.error() {
                let said = on_error(split, code, message, self.on_offset_gone, &self.metrics)?;
                fetch.ended |= said == Said::Ended;
                restarted |= said == Said::Restart;
                continue;
            }
            let offset = message.offset();
            if !split.assigned {
                continue;
            }
            if split.restart.take().is_some() {
                tracing::warn!(split = %split.id, offset, "reading goes on here");
                split.position.next = offset;
            }
            if offset < split.position.next {
                // Of an assignment before the last one.
                continue;
            }
            if split.position.end.is_some_and(|end| offset >= end) {
                fetch.ended |= !split.position.is_at_end();
                split.position.next = split.position.next.max(offset);
                continue;
            }
            gathering.push(message, last.2, split);
            split.position.next = offset + 1;
            fetch.ended |= split.position.is_at_end();
            fetch.records += 1;
            bytes += message.payload().len() as u64;
        }
        drop(fetched);
        let lost = consumer.is_down();
        if lost != self.lost {
            self.lost = lost;
            self.count_outage();
        }
        self.metrics.records.add(fetch.records);
        self.metrics.bytes.add(bytes);
        if restarted {
            self.reassign();
        }
        if fetch.ended || restarted {
            self.sync_assignment();
        }
        Ok(fetch)
    }

    /// Brings gauges up to date.
    pub fn measure(&self) {
        let mut lag = 0;
        if let Some((_, consumer)) = &self.consumer {
            self.metrics.transport_errors.add(consumer.take_transport_errors());
            for split in self.splits.iter().filter(|split| split.wanted()) {
                let high = consumer.high_watermark(&split.topic, split.partition.number);
                let ahead = match (high, split.position.end) {
                    (Some(high), Some(end)) => high.min(end),
                    (Some(high), None) => high,
                    (None, Some(end)) => end,
                    (None, None) => split.position.next,
                };
                lag += (ahead - split.position.next).max(0);
            }
        }
        self.metrics.lag.set(lag);
    }
}

impl Drop for ClusterReader {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// The split that a message is of.
fn find(index: &mut Vec<(usize, i32, usize)>, splits: &[Split], message: Message<'_>) -> Option<usize> {
    let (topic, partition) = (message.topic_key(), message.partition());
    if let Some((_, _, split)) = index.iter().find(|known| (known.0, known.1) == (topic, partition)) {
        return Some(*split);
    }
    let name = message.topic();
    let of = |split: &Split| split.partition.number == partition && split.partition.topic == name;
    let split = splits.iter().position(of)?;
    index.push((topic, partition, split));
    Some(split)
}

/// What a message that is no record says about its split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing that matters here.
    Nothing,
    /// It came to its end.
    Ended,
    /// It is to be read from elsewhere.
    Restart,
}

/// An error about one split.
fn on_error(
    split: &mut Split,
    code: RDKafkaErrorCode,
    message: Message<'_>,
    on_offset_gone: OnOffsetGone,
    metrics: &ClusterMetrics,
) -> Result<Said> {
    match code {
        RDKafkaErrorCode::PartitionEOF => {
            // Behind the last record there may be offsets without records (transaction marks).
            let at = message.offset();
            if split.restart.take().is_some() {
                split.position.next = at;
            }
            let ends = !split.position.is_at_end() && split.position.end.is_some_and(|end| at >= end);
            if ends {
                split.position.next = split.position.next.max(at);
            }
            Ok(if ends { Said::Ended } else { Said::Nothing })
        }
        RDKafkaErrorCode::AutoOffsetReset => {
            let (id, gone) = (&split.id, split.position.next);
            let restart = match on_offset_gone {
                OnOffsetGone::Fail => {
                    return Err(Error::external(format!(
                        "offset {gone} of {id} is gone from the broker, and on_offset_gone is fail: {}",
                        message.error_text()
                    ))
                    .permanent());
                }
                OnOffsetGone::Earliest => Offset::Beginning,
                OnOffsetGone::Latest => Offset::End,
            };
            metrics.offset_resets.add(1);
            tracing::warn!(split = %id, gone, ?restart, "the offset to read next is gone");
            split.restart = Some(restart);
            Ok(Said::Restart)
        }
        _ => {
            metrics.transport_errors.add(1);
            tracing::debug!(split = %split.id, %code, "Kafka partition in trouble");
            Ok(Said::Nothing)
        }
    }
}

fn about_no_split(cluster: &str, metrics: &ClusterMetrics, code: RDKafkaErrorCode, message: Message<'_>) {
    if code != RDKafkaErrorCode::PartitionEOF {
        metrics.transport_errors.add(1);
        tracing::debug!(cluster, %code, reason = message.error_text(), "Kafka cluster in trouble");
    }
}
