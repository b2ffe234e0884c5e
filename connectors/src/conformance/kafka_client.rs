//! What a way to Kafka owes the federated source, held to librdkafka on a real cluster and to the
//! clusters in memory alike: what the simulator finds with these is then true of those.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thalweg_engine::operator::Waker;
use thalweg_engine::runtime::ManualClock;
use thalweg_engine::time::MILLI;
use thalweg_engine::{Context, Result};

use super::{broken, ensure};
use crate::kafka::client::{
    ConsumerClient, KafkaClient, Located, MessageKind, MetadataClient, Place, TopicId, TopicMetadata,
};
use crate::kafka::topology::Cluster;
use crate::kafka::{ConsumerNeeds, Happening, Librdkafka, SimulatedKafka, SimulatedRecord};

/// So many moments are waited for something to come about.
const MOMENTS_MAX: u32 = 3_000;
/// How long a question may take.
const QUESTION_BOUND: Duration = Duration::from_secs(2);

/// A cluster that the suite may do anything to.
pub trait ClusterUnderTest {
    /// How a client reaches it.
    fn cluster(&self) -> Cluster;

    /// Makes this happen to it.
    ///
    /// # Errors
    /// Whatever keeps it from happening.
    fn happens(&self, happening: Happening) -> Result<()>;

    /// Lets about ten milliseconds pass.
    fn moment(&self);
}

/// Holds librdkafka to the suite, on a real cluster.
///
/// # Errors
/// What is broken.
pub fn check_librdkafka(cluster: &dyn ClusterUnderTest) -> Result<()> {
    Suite { client: Arc::new(Librdkafka), world: cluster }.check()
}

/// Holds the clusters in memory to the suite.
///
/// # Errors
/// What is broken.
pub fn check_simulated() -> Result<()> {
    for seed in 0..20 {
        let clock = ManualClock::new(0);
        let kafka = SimulatedKafka::new(Arc::new(clock.clone()), seed);
        let world = InMemory { kafka: kafka.clone(), clock };
        world.happens(Happening::Returns)?;
        Suite { client: Arc::new(kafka), world: &world }.check().context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

struct InMemory {
    kafka: SimulatedKafka,
    clock: ManualClock,
}

impl ClusterUnderTest for InMemory {
    fn cluster(&self) -> Cluster {
        Cluster::at("memory:1")
    }

    fn happens(&self, happening: Happening) -> Result<()> {
        self.kafka.happens("memory:1", happening);
        Ok(())
    }

    fn moment(&self) {
        let now = thalweg_engine::runtime::Clock::monotonic(&self.clock);
        self.clock.advance_to(now + 10 * MILLI);
    }
}

/// A message as the suite compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    kind: MessageKind,
    topic: String,
    partition: i32,
    offset: i64,
    record: SimulatedRecord,
}

struct Suite<'a> {
    client: Arc<dyn KafkaClient>,
    world: &'a dyn ClusterUnderTest,
}

type Case<'a> = fn(&Suite<'a>) -> Result<()>;

impl<'a> Suite<'a> {
    fn check(&self) -> Result<()> {
        let cases: [(&str, Case<'a>); 7] = [
            ("topics and their ids", Suite::topics_and_their_ids),
            ("offsets of places", Suite::offsets_of_places),
            ("records", Suite::records),
            ("ends of partitions", Suite::ends_of_partitions),
            ("another offset", Suite::another_offset),
            ("an offset that is gone", Suite::an_offset_that_is_gone),
            ("an outage", Suite::an_outage),
        ];
        for (name, case) in cases {
            case(self).context(|| name.to_string())?;
        }
        Ok(())
    }

    fn topics_and_their_ids(&self) -> Result<()> {
        let mut metadata = self.metadata()?;
        let absent = metadata.topic("ids", QUESTION_BOUND)?;
        ensure(matches!(absent, TopicMetadata::Absent(_)), || format!("{absent:?} of no topic"))?;
        self.make("ids", 2)?;
        let first = self.id_of(metadata.as_mut(), "ids", 2)?;
        self.world.happens(Happening::PartitionsAdded { topic: "ids".into(), total: 3 })?;
        let grown = self.id_of(metadata.as_mut(), "ids", 3)?;
        ensure(grown == first, || "a topic with a partition more has another id".to_string())?;
        self.world.happens(Happening::TopicDeleted { topic: "ids".into() })?;
        self.until("the topic to be gone", || {
            let found = metadata.topic("ids", QUESTION_BOUND)?;
            Ok(matches!(found, TopicMetadata::Absent(_)).then_some(()))
        })?;
        self.make("ids", 1)?;
        let anew = self.id_of(metadata.as_mut(), "ids", 1)?;
        ensure(anew != first, || "a topic that was made anew has the old one's id".to_string())
    }

    fn offsets_of_places(&self) -> Result<()> {
        self.make("places", 2)?;
        self.write("places", 1, (0..10).map(|number| record(number, "x")))?;
        let mut metadata = self.metadata()?;
        self.id_of(metadata.as_mut(), "places", 2)?;
        let mut offsets = |place| metadata.offsets("places", &[0, 1], place, QUESTION_BOUND);
        let mut expect = |place, expected: &[(i32, i64)]| {
            let found = offsets(place)?;
            let expected = BTreeMap::from_iter(expected.iter().copied());
            ensure(found == expected, || format!("{place:?} is {found:?}, expected {expected:?}"))
        };
        expect(Place::Oldest, &[(0, 0), (1, 0)])?;
        expect(Place::End, &[(0, 0), (1, 10)])?;
        expect(Place::Timestamp(1_005_000), &[(1, 5)])?;
        expect(Place::Timestamp(9_000_000), &[])?;
        self.world.happens(Happening::Deleted { topic: "places".into(), partition: 1, before: 4 })?;
        expect(Place::Oldest, &[(0, 0), (1, 4)])?;
        expect(Place::End, &[(0, 0), (1, 10)])
    }

    fn records(&self) -> Result<()> {
        self.make("records", 2)?;
        let headers = vec![("h".to_string(), b"1".to_vec()), ("h".to_string(), b"2".to_vec())];
        let full = SimulatedRecord { key: Some(b"k".to_vec()), headers, ..record(0, "full") };
        let tombstone = SimulatedRecord { key: Some(b"k".to_vec()), value: None, ..record(1, "") };
        let written = [full, tombstone, record(2, ""), record(3, "last")];
        let woken = Arc::new(AtomicBool::new(false));
        let waking = woken.clone();
        let waker = Waker::new(move || waking.store(true, Ordering::Release));
        let mut consumer = self.consumer(&waker, false)?;
        for partition in [0, 1] {
            self.write("records", partition, written.iter().cloned())?;
        }
        consumer.assign(&[("records", 0, 0), ("records", 1, 2)])?;
        let got = self.fetch(consumer.as_mut(), 6)?;
        for (partition, first) in [(0, 0), (1, 2)] {
            let of_partition = got.iter().filter(|got| got.partition == partition);
            let found: Vec<_> = of_partition.cloned().collect();
            let expected: Vec<_> = (first..4)
                .map(|offset| Got {
                    kind: MessageKind::Record,
                    topic: "records".into(),
                    partition,
                    offset: offset as i64,
                    record: last_header_only(&written[offset]),
                })
                .collect();
            ensure(found == expected, || format!("{found:?}, expected {expected:?}"))?;
        }
        self.until("the waker", || Ok(woken.load(Ordering::Acquire).then_some(())))?;
        let high = consumer.high_watermark("records", 0);
        ensure(high == Some(4), || format!("the high watermark is {high:?}"))
    }

    fn ends_of_partitions(&self) -> Result<()> {
        self.make("ends", 1)?;
        self.write("ends", 0, [record(0, "a")])?;
        let mut consumer = self.consumer(&Waker::new(|| ()), true)?;
        consumer.assign(&[("ends", 0, 0)])?;
        let first = self.fetch(consumer.as_mut(), 2)?;
        self.write("ends", 0, [record(1, "b"), record(2, "c")])?;
        let second = self.until("the end after the last record", || {
            let got = self.fetch_some(consumer.as_mut());
            Ok(got.last().filter(|last| last.kind == MessageKind::EndOfPartition).map(|last| last.offset))
        })?;
        let told = first.iter().map(|got| (got.kind, got.offset)).collect::<Vec<_>>();
        let expected = [(MessageKind::Record, 0), (MessageKind::EndOfPartition, 1)];
        ensure(told == expected, || format!("{told:?}, expected {expected:?}"))?;
        // Between the two records there may have been an end, too.
        ensure(second == 2 || second == 3, || format!("an end at {second}"))
    }

    fn another_offset(&self) -> Result<()> {
        self.make("another", 1)?;
        self.write("another", 0, (0..5).map(|number| record(number, "x")))?;
        let mut consumer = self.consumer(&Waker::new(|| ()), false)?;
        consumer.assign(&[("another", 0, 3)])?;
        let got = self.fetch(consumer.as_mut(), 2)?;
        ensure(got[0].offset == 3, || format!("{got:?} from offset 3"))?;
        consumer.unassign(&[("another", 0)])?;
        consumer.assign(&[("another", 0, 1)])?;
        let mut offsets = Vec::new();
        self.until("the records from offset 1", || {
            offsets.extend(self.fetch_some(consumer.as_mut()).iter().map(|got| got.offset));
            Ok(offsets.ends_with(&[1, 2, 3, 4]).then_some(()))
        })
    }

    fn an_offset_that_is_gone(&self) -> Result<()> {
        self.make("gone", 3)?;
        for partition in [0, 1, 2] {
            self.write("gone", partition, (0..10).map(|number| record(number, "x")))?;
        }
        self.world.happens(Happening::Deleted { topic: "gone".into(), partition: 0, before: 6 })?;
        let mut metadata = self.metadata()?;
        let id = self.id_of(metadata.as_mut(), "gone", 3)?;
        let mut consumer = self.consumer(&Waker::new(|| ()), false)?;
        consumer.assign(&[("gone", 0, 2), ("gone", 1, 500), ("gone", 2, 0)])?;
        // What is there of the third is read whatever becomes of the others.
        let got = self.fetch(consumer.as_mut(), 12)?;
        let gone = got.iter().filter(|got| got.kind == MessageKind::OffsetGone).map(|got| got.partition);
        let mut gone: Vec<_> = gone.collect();
        gone.sort_unstable();
        ensure(gone == [0, 1], || format!("offsets of {gone:?} are gone"))?;
        consumer.unassign(&[("gone", 0), ("gone", 1)])?;
        consumer.locate(&[("gone", 0), ("gone", 1)]);
        let found = self.located(consumer.as_mut(), 2)?;
        let located =
            |partition, oldest| Located { topic: "gone".into(), partition, id: Some(id), oldest, end: 10 };
        let expected = [located(0, 6), located(1, 0)];
        ensure(found == expected, || format!("{found:?}, expected {expected:?}"))?;
        consumer.assign(&[("gone", 0, 6), ("gone", 1, 10)])?;
        self.write("gone", 1, [record(10, "y")])?;
        let mut offsets: Vec<_> =
            self.fetch(consumer.as_mut(), 5)?.iter().map(|got| (got.partition, got.offset)).collect();
        offsets.sort_unstable();
        let expected = [(0, 6), (0, 7), (0, 8), (0, 9), (1, 10)];
        ensure(offsets == expected, || format!("{offsets:?}, expected {expected:?}"))
    }

    fn an_outage(&self) -> Result<()> {
        self.make("outage", 1)?;
        self.write("outage", 0, [record(0, "before")])?;
        let mut metadata = self.metadata()?;
        let id = self.id_of(metadata.as_mut(), "outage", 1)?;
        let mut consumer = self.consumer(&Waker::new(|| ()), false)?;
        consumer.assign(&[("outage", 0, 0)])?;
        self.fetch(consumer.as_mut(), 1)?;
        self.world.happens(Happening::Goes)?;
        let mut got = Vec::new();
        self.until("the consumer to notice", || {
            got.extend(self.fetch_some(consumer.as_mut()));
            Ok(consumer.is_down().then_some(()))
        })?;
        ensure(metadata.topic("outage", QUESTION_BOUND).is_err(), || "a look reached nobody".to_string())?;
        consumer.locate(&[("outage", 0)]);
        self.write("outage", 0, [record(1, "meanwhile")])?;
        ensure(consumer.located().is_empty(), || "found in the outage".to_string())?;
        self.world.happens(Happening::Returns)?;
        self.until("the record that was written meanwhile", || {
            got.extend(self.fetch_some(consumer.as_mut()));
            let records = got.iter().filter(|got| got.kind == MessageKind::Record);
            Ok((records.count() > 0).then_some(()))
        })?;
        self.until("the consumer to notice the return", || Ok((!consumer.is_down()).then_some(())))?;
        let records: Vec<_> = got.iter().filter(|got| got.kind == MessageKind::Record).collect();
        ensure(records.len() == 1 && records[0].offset == 1, || format!("{records:?} after the outage"))?;
        let found = self.located(consumer.as_mut(), 1)?;
        ensure(found[0].end == 2, || format!("{found:?} after the outage"))?;
        let again = self.id_of(metadata.as_mut(), "outage", 1)?;
        consumer.retire();
        ensure(again == id, || "a topic has another id after an outage".to_string())
    }

    fn metadata(&self) -> Result<Box<dyn MetadataClient>> {
        self.client.metadata(&self.world.cluster())
    }

    fn consumer(&self, waker: &Waker, end_of_partition: bool) -> Result<Box<dyn ConsumerClient>> {
        let needs = ConsumerNeeds { queue_bytes: 8 << 20, brokers: 1, end_of_partition };
        self.client.consumer("suite", &self.world.cluster(), needs, waker)
    }

    fn make(&self, topic: &str, partitions: i32) -> Result<()> {
        self.world.happens(Happening::TopicMade { topic: topic.to_string(), partitions })
    }

    fn write(
        &self,
        topic: &str,
        partition: i32,
        records: impl IntoIterator<Item = SimulatedRecord>,
    ) -> Result<()> {
        let records = records.into_iter().collect();
        self.world.happens(Happening::Written { topic: topic.to_string(), partition, records })
    }

    /// The topic's id, when all of so many partitions are there.
    fn id_of(&self, metadata: &mut dyn MetadataClient, topic: &str, count: usize) -> Result<TopicId> {
        self.until("the topic's partitions", || match metadata.topic(topic, QUESTION_BOUND) {
            Ok(TopicMetadata::Present { id, partitions }) if partitions.len() == count => {
                let numbers: Vec<_> = partitions.iter().map(|partition| partition.number).collect();
                ensure(numbers == Vec::from_iter(0..count as i32), || format!("partitions {numbers:?}"))?;
                let led = partitions.iter().all(|partition| partition.leader.is_some());
                let id = id.ok_or_else(|| broken("a topic has no id"))?;
                Ok(led.then_some(id))
            }
            _ => Ok(None),
        })
    }

    /// So many messages, trouble apart.
    fn fetch(&self, consumer: &mut dyn ConsumerClient, count: usize) -> Result<Vec<Got>> {
        let mut all = Vec::new();
        self.until("messages", || {
            all.extend(self.fetch_some(consumer));
            Ok((all.len() >= count).then_some(()))
        })?;
        ensure(all.len() == count, || format!("{} messages, expected {count}: {all:?}", all.len()))?;
        Ok(all)
    }

    fn fetch_some(&self, consumer: &mut dyn ConsumerClient) -> Vec<Got> {
        let fetched = consumer.fetch(100);
        let messages = (0..fetched.len()).map(|index| fetched.message(index));
        let got = messages.filter(|message| message.kind != MessageKind::Trouble).map(|message| Got {
            kind: message.kind,
            topic: message.details.topic(),
            partition: message.partition,
            offset: message.offset,
            record: SimulatedRecord {
                key: message.key.map(<[u8]>::to_vec),
                value: message.value.map(<[u8]>::to_vec),
                timestamp_ms: message.details.timestamp_ms().unwrap_or_default(),
                headers: Vec::from_iter(message.details.header(c"h").map(|value| ("h".into(), value.into()))),
            },
        });
        got.collect()
    }

    fn located(&self, consumer: &mut dyn ConsumerClient, count: usize) -> Result<Vec<Located>> {
        let mut found = Vec::new();
        self.until("what became of partitions", || {
            found.extend(consumer.located());
            Ok((found.len() >= count).then_some(()))
        })?;
        found.sort_by_key(|located| located.partition);
        Ok(found)
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        for _ in 0..MOMENTS_MAX {
            if let Some(found) = look()? {
                return Ok(found);
            }
            self.world.moment();
        }
        Err(broken(format!("not within {MOMENTS_MAX} moments: {what}")))
    }
}

fn record(number: i64, value: &str) -> SimulatedRecord {
    SimulatedRecord {
        value: Some(value.into()),
        timestamp_ms: 1_000_000 + number * 1_000,
        ..SimulatedRecord::default()
    }
}

/// Of several headers of one name the last counts.
fn last_header_only(record: &SimulatedRecord) -> SimulatedRecord {
    SimulatedRecord { headers: record.headers.last().cloned().into_iter().collect(), ..record.clone() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn clusters_in_memory_keep_what_librdkafka_keeps() {
        super::check_simulated().unwrap();
    }
}
