//! What one task reads of one cluster: its splits, and the consumer that reads them.
//!
//! The rule (F3): nothing that happens to a cluster is an error of the task, but for an offset
//! that is gone when the job is told to fail then. Positions live here, not in the consumer: a
//! consumer can be thrown away and made anew at any time. A position is always an offset: where
//! reading goes on when one is gone is found out before it goes on.

use thalweg_engine::operator::Waker;
use thalweg_engine::source::{SplitActivity, SplitId, SplitState};
use thalweg_engine::{Error, Result};

use super::bounds::OnOffsetGone;
use super::client::{ConsumerClient, KafkaClient, Located, Message, MessageKind, TopicId};
use super::cluster_metrics::ClusterMetrics;
use super::gathering::Gathering;
use super::settings::ConsumerNeeds;
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
    /// The offset to read next is gone, and what became of the partition is being found out.
    locating: bool,
    /// The topic was made anew since: the split waits here to be given back.
    superseded: bool,
}

impl Split {
    /// A split that nobody reads yet.
    pub fn new(partition: Partition, position: Position) -> Self {
        Split {
            id: partition.id(),
            partition,
            position,
            activity: SplitActivity::Active,
            listed: true,
            end_told: false,
            assigned: false,
            locating: false,
            superseded: false,
        }
    }

    /// The split with its position, for a checkpoint.
    pub fn state(&self) -> SplitState {
        split_state(&self.id, self.position)
    }

    /// Topic and partition.
    fn place(&self) -> (&str, i32) {
        (&self.partition.topic, self.partition.number)
    }

    /// Whether it is to be read, now or when it is known where.
    fn has_more(&self) -> bool {
        self.listed && !self.superseded && !self.position.is_at_end()
    }

    /// Whether it waits to be told where it goes on: that is no silence.
    pub fn is_displaced(&self) -> bool {
        self.locating || self.superseded
    }

    fn wanted(&self) -> bool {
        self.has_more() && !self.locating
    }

    /// The topic has this id now. Whether its offsets are worth something is the enumerator's to say:
    /// until then nothing more is read at them.
    pub fn compare(&mut self, id: Option<TopicId>) {
        if let (Some(known), Some(id)) = (self.position.topic_id, id)
            && known != id
            && !self.superseded
        {
            tracing::warn!(split = %self.id, %known, %id, "the topic was made anew: its reading stops");
            self.superseded = true;
        }
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
    /// Whether it is known of a split that its offset is gone, or where it goes on.
    pub moved: bool,
    /// Whether all that had come of any split when it was last so is taken now.
    pub asked_all: bool,
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
    /// With what it was made for.
    made_for: Option<(Cluster, ConsumerNeeds)>,
    consumer: Option<Box<dyn ConsumerClient>>,
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
            made_for: None,
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
    pub fn follow(
        &mut self,
        client: &dyn KafkaClient,
        cluster: Option<&Cluster>,
        needs: ConsumerNeeds,
        waker: &Waker,
    ) {
        if !self.splits.iter().any(Split::has_more) {
            self.disconnect();
            return;
        }
        if let (Some(wanted), Some((current, made_for))) = (cluster, &self.made_for) {
            if wanted != current {
                tracing::info!(cluster = %self.name, "Kafka cluster is reached in another way now");
                self.disconnect();
            } else if needs.are_exceeded_by(made_for) {
                tracing::info!(cluster = %self.name, "there is less memory for the Kafka cluster now");
                self.disconnect();
            }
        }
        if self.consumer.is_none()
            && let Some(cluster) = cluster
        {
            match client.consumer(&self.name, cluster, needs, waker) {
                Ok(consumer) => {
                    self.metrics.connects.add(1);
                    self.made_for = Some((cluster.clone(), needs));
                    self.consumer = Some(consumer);
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
        self.made_for = None;
        if let Some(consumer) = self.consumer.take() {
            consumer.retire();
        }
        self.index.clear();
        for split in &mut self.splits {
            // Whoever is asked next says again that an offset is gone.
            (split.assigned, split.locating) = (false, false);
        }
    }

    /// Lets the splits whose offset is gone go on where the job wants it.
    fn relocate(&mut self) -> Result<Fetch> {
        let mut fetch = Fetch::default();
        let Some(consumer) = &mut self.consumer else {
            return Ok(fetch);
        };
        let located = consumer.located();
        for Located { topic, partition, id, oldest, end } in &located {
            let of = |split: &&mut Split| split.locating && split.place() == (topic.as_str(), *partition);
            let Some(split) = self.splits.iter_mut().find(of) else {
                continue;
            };
            split.locating = false;
            split.compare(*id);
            if split.superseded {
                continue;
            }
            let gone = split.position.next;
            split.position.next = match self.on_offset_gone {
                OnOffsetGone::Fail => {
                    return Err(Error::external(format!(
                        "offset {gone} of {} is gone from the broker, which has {oldest} to {end}, and \
                         on_offset_gone is fail",
                        split.id
                    ))
                    .permanent());
                }
                OnOffsetGone::Earliest => *oldest,
                OnOffsetGone::Latest => *end,
            };
            fetch.ended |= split.position.is_at_end();
            self.metrics.offset_resets.add(1);
            tracing::warn!(split = %split.id, gone, next = split.position.next, "reading goes on elsewhere");
        }
        if !located.is_empty() {
            fetch.moved = true;
            self.sync_assignment();
        }
        Ok(fetch)
    }

    /// Assigns what is wanted and unassigns what is not; splits in between are left alone (F5).
    fn sync_assignment(&mut self) {
        let Some(consumer) = &mut self.consumer else {
            return;
        };
        let leaving = self.splits.iter().filter(|split| split.assigned && !split.wanted());
        let unassigned = consumer.unassign(&leaving.map(Split::place).collect::<Vec<_>>());
        let joining = self.splits.iter().filter(|split| !split.assigned && split.wanted());
        let joining = joining.map(|split| {
            let (topic, partition) = split.place();
            (topic, partition, split.position.next)
        });
        let assigned = consumer.assign(&joining.collect::<Vec<_>>());
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

    /// The splits that the consumer reads.
    pub fn asked(&self) -> impl Iterator<Item = &SplitId> {
        self.splits.iter().filter(|split| split.assigned && !split.end_told).map(|split| &split.id)
    }

    /// Takes what was fetched into `gathering`; never waits.
    ///
    /// # Errors
    /// An external error when an offset is gone and the job is to fail then.
    pub fn fetch(&mut self, messages_max: usize, gathering: &mut Gathering) -> Result<Fetch> {
        let mut fetch = self.relocate()?;
        let Some(consumer) = &mut self.consumer else {
            return Ok(fetch);
        };
        let fetched = consumer.fetch(messages_max);
        (fetch.messages, fetch.asked_all) = (fetched.len(), fetched.ends_a_turn());
        let mut bytes = 0;
        let mut last = (0, -1, usize::MAX);
        let mut gone = false;
        for message in (0..fetched.len()).map(|index| fetched.message(index)) {
            if (message.topic_key, message.partition) != (last.0, last.1) {
                let found = find(&mut self.index, &self.splits, &message);
                last = (message.topic_key, message.partition, found.unwrap_or(usize::MAX));
            }
            let Some(split) = self.splits.get_mut(last.2) else {
                about_no_split(&self.name, &self.metrics, &message);
                continue;
            };
            if message.kind != MessageKind::Record {
                let said = on_word(split, &message, &self.metrics);
                fetch.ended |= said == Said::Ended;
                gone |= said == Said::Gone;
                continue;
            }
            let offset = message.offset;
            if !split.assigned || split.locating {
                continue;
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
            gathering.push(&message, last.2, split);
            split.position.next = offset + 1;
            fetch.ended |= split.position.is_at_end();
            fetch.records += 1;
            bytes += message.value.map_or(0, <[u8]>::len) as u64;
        }
        drop(fetched);
        let lost = consumer.is_down();
        if lost != self.lost {
            self.lost = lost;
            self.count_outage();
        }
        self.metrics.records.add(fetch.records);
        self.metrics.bytes.add(bytes);
        if fetch.ended || gone {
            self.sync_assignment();
        }
        if gone {
            fetch.moved = true;
            self.locate();
        }
        Ok(fetch)
    }

    /// Has the consumer find out what became of the splits whose offset is gone.
    fn locate(&mut self) {
        if let Some(consumer) = &mut self.consumer {
            let gone = self.splits.iter().filter(|split| split.locating);
            consumer.locate(&gone.map(Split::place).collect::<Vec<_>>());
        }
    }

    /// Brings gauges up to date.
    pub fn measure(&mut self) {
        let mut lag = 0;
        if let Some(consumer) = &mut self.consumer {
            self.metrics.transport_errors.add(consumer.take_transport_errors());
            for split in self.splits.iter().filter(|split| split.has_more()) {
                let high = consumer.high_watermark(&split.partition.topic, split.partition.number);
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
fn find(index: &mut Vec<(usize, i32, usize)>, splits: &[Split], message: &Message<'_>) -> Option<usize> {
    let (topic, partition) = (message.topic_key, message.partition);
    if let Some((_, _, split)) = index.iter().find(|known| (known.0, known.1) == (topic, partition)) {
        return Some(*split);
    }
    let name = message.details.topic();
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
    /// The offset to read next is gone.
    Gone,
}

/// A word about one split.
fn on_word(split: &mut Split, message: &Message<'_>, metrics: &ClusterMetrics) -> Said {
    match message.kind {
        MessageKind::EndOfPartition => {
            // Behind the last record there may be offsets without records (transaction marks).
            let at = message.offset;
            let ends = !split.position.is_at_end() && split.position.end.is_some_and(|end| at >= end);
            if ends {
                split.position.next = split.position.next.max(at);
            }
            if ends { Said::Ended } else { Said::Nothing }
        }
        MessageKind::OffsetGone => {
            if !split.assigned || split.locating || message.offset < split.position.next {
                return Said::Nothing;
            }
            let (gone, reason) = (split.position.next, message.details.reason());
            tracing::warn!(split = %split.id, gone, reason, "the offset to read next is gone");
            split.locating = true;
            Said::Gone
        }
        MessageKind::Record | MessageKind::Trouble => {
            metrics.transport_errors.add(1);
            tracing::debug!(split = %split.id, reason = message.details.reason(), "Kafka partition in trouble");
            Said::Nothing
        }
    }
}

fn about_no_split(cluster: &str, metrics: &ClusterMetrics, message: &Message<'_>) {
    if message.kind == MessageKind::Trouble || message.kind == MessageKind::OffsetGone {
        metrics.transport_errors.add(1);
        tracing::debug!(cluster, reason = message.details.reason(), "Kafka cluster in trouble");
    }
}
