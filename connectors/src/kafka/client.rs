//! What the federated source needs of Kafka, and no more: looks at a cluster, and one consumer that
//! reads what it is assigned. Everything that decides stands above this cut and is the same code
//! whatever is behind it: librdkafka in production.
//!
//! The rules: only a look may wait, and it says for how long; a cluster that is away is an error of
//! a look and a state of a consumer, never a panic and never the end of either; a consumer goes on
//! by itself when its cluster is back.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thalweg_engine::Result;
use thalweg_engine::operator::Waker;

use super::settings::ConsumerNeeds;
use super::topology::Cluster;

/// A way to Kafka clusters.
pub(crate) trait KafkaClient: Send + Sync {
    /// Makes the client that looks at a cluster; connects with the first look.
    ///
    /// # Errors
    /// A user error when a setting is refused or a secret cannot be resolved.
    fn metadata(&self, cluster: &Cluster) -> Result<Box<dyn MetadataClient>>;

    /// Makes a consumer; connects in the background. `name` is the cluster's in the topology;
    /// `waker` is used when records arrive, and when the cluster goes or comes back.
    ///
    /// # Errors
    /// A user error when a setting is refused or a secret cannot be resolved.
    fn consumer(
        &self,
        name: &str,
        cluster: &Cluster,
        needs: ConsumerNeeds,
        waker: &Waker,
    ) -> Result<Box<dyn ConsumerClient>>;

    /// Looks again and again until the watch is dropped, `interval` after the end of the last look,
    /// where a look that waits keeps nobody.
    ///
    /// # Errors
    /// An external error when no thread can be had.
    fn watch(&self, name: &str, interval: Duration, look: Box<dyn FnMut() + Send>) -> Result<Box<dyn Watch>>;
}

/// Looks that go on until this is dropped (the one under way a bounded while longer).
pub(crate) trait Watch: Send {
    /// Looks here and now when it is time and no thread does it.
    fn turn(&mut self);
}

/// Asks one cluster about topics.
pub(crate) trait MetadataClient: Send {
    /// A topic as the cluster has it now. Waits for `timeout` at most.
    ///
    /// # Errors
    /// An external error when no broker answers.
    fn topic(&mut self, topic: &str, timeout: Duration) -> Result<TopicMetadata>;

    /// The offsets of a place in each of these partitions, asked for at once; a partition that
    /// nobody answers for, or that has no such place, is not among them. Waits for `timeout` at most.
    ///
    /// # Errors
    /// An external error when no broker answers.
    fn offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        place: Place,
        timeout: Duration,
    ) -> Result<BTreeMap<i32, i64>>;
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The oldest record that is there.
    Oldest,
    /// Behind the newest record that a reader may see.
    End,
    /// The first record whose timestamp is at or after this one; milliseconds since 1970.
    Timestamp(i64),
}

/// Which making of a topic (KIP-516): one that was deleted and made anew has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TopicId(pub [u8; 16]);

/// As Kafka's own tools print it: base64 for URLs, without padding.
impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let number = u128::from_be_bytes(self.0);
        // 21 digits of six bits, and the last two bits in front of four that are not there.
        let shifted = (0..21).map(|digit| number >> (122 - 6 * digit)).chain([number << 4]);
        let text: String = shifted.map(|bits| char::from(DIGITS[(bits & 63) as usize])).collect();
        f.write_str(&text)
    }
}

/// What a cluster says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicMetadata {
    /// It has none of this name, or does not show it; why.
    Absent(String),
    /// It is there.
    Present {
        /// `None` from a broker that is older than topic ids (before 2.8).
        id: Option<TopicId>,
        /// All of its partitions.
        partitions: Vec<PartitionMetadata>,
    },
}

/// What a cluster says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionMetadata {
    pub number: i32,
    /// The number of the broker that leads it; without one it cannot be read.
    pub leader: Option<i32>,
}

/// What became of a partition whose offset is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub topic: String,
    pub partition: i32,
    /// The topic as it is now; `None` as in [`TopicMetadata::Present`].
    pub id: Option<TopicId>,
    /// The offset of the oldest record.
    pub oldest: i64,
    /// The offset behind the newest record that a reader may see.
    pub end: i64,
}

/// Reads partitions of one cluster. Nothing here waits for it.
pub(crate) trait ConsumerClient: Send {
    /// Starts reading partitions at these offsets, beside those that are read already.
    ///
    /// # Errors
    /// An error of the client's, after which it is of no use.
    fn assign(&mut self, partitions: &[(&str, i32, i64)]) -> Result<()>;

    /// Stops reading partitions. What was fetched of them may be dropped or may still come.
    ///
    /// # Errors
    /// An error of the client's, after which it is of no use.
    fn unassign(&mut self, partitions: &[(&str, i32)]) -> Result<()>;

    /// Takes at most so many messages that were fetched.
    fn fetch(&mut self, messages_max: usize) -> Box<dyn Fetched + '_>;

    /// Begins to find out what became of partitions: which making of the topic it is and what is left
    /// of it. The answers come with [`ConsumerClient::located`], as soon as the cluster gives them.
    fn locate(&mut self, partitions: &[(&str, i32)]);

    /// The answers since the last call.
    fn located(&mut self) -> Vec<Located>;

    /// The offset behind the newest record of a partition, as the last fetch saw it.
    fn high_watermark(&self, topic: &str, partition: i32) -> Option<i64>;

    /// Whether every broker is lost and none has answered since.
    fn is_down(&mut self) -> bool;

    /// Errors of the transport since the last call.
    fn take_transport_errors(&mut self) -> u64;

    /// Ends it without keeping the caller: closing connections to a cluster that is away takes long.
    fn retire(self: Box<Self>);
}

/// Messages of one fetch; gone with it.
pub(crate) trait Fetched {
    /// Number of messages, errors among them.
    fn len(&self) -> usize;

    /// Whether all is taken that lay there when the last turn ended: partitions of which nothing
    /// came since then had nothing.
    fn ends_a_turn(&self) -> bool;

    /// One of them; by partition they stand in the order of their offsets.
    fn message(&self, index: usize) -> Message<'_>;
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// A record.
    Record,
    /// The partition is read to its end as it is now; the offset is the next one.
    EndOfPartition,
    /// The offset to read next is not there: deleted, or never written. Said once; nothing more comes
    /// of the partition until it is assigned anew.
    OffsetGone,
    /// Something else about a partition, or about none.
    Trouble,
}

/// One message of a fetch.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub kind: MessageKind,
    /// Tells topics of one consumer apart, quicker than their names.
    pub topic_key: usize,
    pub partition: i32,
    pub offset: i64,
    /// The record's value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// What is asked for seldom.
    pub details: &'a dyn MessageDetails,
}

/// What is asked of a message only when somebody wants it.
pub(crate) trait MessageDetails {
    /// The topic's name; empty for trouble about no topic.
    fn topic(&self) -> String;

    /// What is the matter, when this is no record.
    fn reason(&self) -> String;

    /// The record's timestamp in milliseconds since 1970.
    fn timestamp_ms(&self) -> Option<i64>;

    /// The value of the last header of this name.
    fn header(&self, name: &CStr) -> Option<&[u8]>;
}

#[cfg(test)]
mod tests {
    use super::TopicId;

    #[test]
    fn a_topic_id_is_printed_as_kafkas_tools_do() {
        assert_eq!(TopicId([0; 16]).to_string(), "A".repeat(22));
        assert_eq!(TopicId([0xff; 16]).to_string(), "_".repeat(21) + "w");
        let bytes =
            [0x4c, 0x7a, 0x2e, 0x9f, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbc];
        assert_eq!(TopicId(bytes).to_string(), "THounwARIjNEVWZ3iJmqvA");
    }
}
