//! A split: one partition of one topic in one cluster (F1), and how far it has been read.
//!
//! Pure. The encoding of a position is pinned by a test: checkpoints hold it.

use thalweg_engine::source::{SplitId, SplitState};
use thalweg_engine::{Error, Result};

use super::client::TopicId;

/// First byte of every encoded position.
const POSITION_VERSION: u8 = 2;
const ENCODED_BYTES: usize = 41;
/// Stands for "no end" in an encoded position.
const NO_END: i64 = i64::MIN;
/// Stands for "not known" in an encoded position.
const NO_TOPIC: [u8; 16] = [0; 16];

/// Which partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition {
    /// The cluster's name in the topology.
    pub cluster: String,
    /// The physical topic.
    pub topic: String,
    /// The partition's number.
    pub number: i32,
}

impl Partition {
    /// The split's stable name: `cluster/topic/partition`. Neither names hold a `/`.
    pub fn id(&self) -> SplitId {
        SplitId(format!("{}/{}/{}", self.cluster, self.topic, self.number).into())
    }

    /// The partition that a split's name says.
    ///
    /// # Errors
    /// An internal error for a name that this source did not make.
    pub fn parse(id: &SplitId) -> Result<Self> {
        let mut parts = id.0.split('/');
        let parsed = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(cluster), Some(topic), Some(number), None) => number.parse().ok().map(|number| Partition {
                cluster: cluster.into(),
                topic: topic.into(),
                number,
            }),
            _ => None,
        };
        parsed.ok_or_else(|| Error::internal(format!("{id} is not the name of a Kafka split")))
    }
}

/// How far a partition has been read, and where a bounded job stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The offset that is read next.
    pub next: i64,
    /// Reading ends before this offset; `None`: never.
    pub end: Option<i64>,
    /// How often the split was given to a reader or sent elsewhere, when this became known. Of two
    /// positions the one with the higher number is newer, whichever offset is larger.
    pub assignment: u64,
    /// Which making of the topic the offsets are of; `None` when that is not known.
    pub topic_id: Option<TopicId>,
}

impl Position {
    /// Whether everything up to the end was read.
    pub fn is_at_end(self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }

    /// The position as checkpoints hold it: version, next, end, assignment, topic id; big-endian.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENCODED_BYTES);
        bytes.push(POSITION_VERSION);
        bytes.extend_from_slice(&self.next.to_be_bytes());
        bytes.extend_from_slice(&self.end.unwrap_or(NO_END).to_be_bytes());
        bytes.extend_from_slice(&self.assignment.to_be_bytes());
        bytes.extend_from_slice(&self.topic_id.map_or(NO_TOPIC, |id| id.0));
        bytes
    }

    /// Reads what [`Position::encode`] wrote, also in version 1, which ended after the end.
    ///
    /// # Errors
    /// An external error when the bytes are of another version or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = || {
            Error::external(format!("a Kafka position of {} bytes cannot be read", bytes.len())).permanent()
        };
        let number = |from: usize| -> Result<[u8; 8]> {
            bytes.get(from..from + 8).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)
        };
        let next = i64::from_be_bytes(number(1)?);
        let end = Some(i64::from_be_bytes(number(9)?)).filter(|&end| end != NO_END);
        match (bytes[0], bytes.len()) {
            (1, 17) => Ok(Position { next, end, assignment: 0, topic_id: None }),
            (POSITION_VERSION, ENCODED_BYTES) => {
                let id = bytes[25..].try_into().map_err(|_| damaged())?;
                let topic_id = (id != NO_TOPIC).then_some(TopicId(id));
                Ok(Position { next, end, assignment: u64::from_be_bytes(number(17)?), topic_id })
            }
            _ => Err(damaged()),
        }
    }
}

/// A split with its position, as the engine carries it.
pub(crate) fn split_state(id: &SplitId, position: Position) -> SplitState {
    SplitState { id: id.clone(), position: position.encode() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn f1_equal_partition_numbers_of_two_clusters_are_different_splits() {
        let east = Partition { cluster: "east".into(), topic: "flights".into(), number: 3 };
        let west = Partition { cluster: "west".into(), ..east.clone() };
        assert_eq!(east.id().to_string(), "east/flights/3");
        assert_ne!(east.id(), west.id());
        assert_eq!(Partition::parse(&west.id()).unwrap(), west);
        assert!(Partition::parse(&SplitId("a/b".into())).is_err());
    }

    #[test]
    fn the_encoding_is_pinned_and_damage_is_refused() {
        let id = *b"0123456789abcdef";
        let position = Position { next: 258, end: Some(3), assignment: 7, topic_id: Some(TopicId(id)) };
        let numbers = [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7];
        let bytes = [&[2][..], &numbers, &id].concat();
        assert_eq!(position.encode(), bytes);
        assert!(Position::decode(&bytes[..40]).is_err());
        assert!(Position::decode(&[]).is_err());
        let mut newer = bytes;
        newer[0] = 3;
        assert!(Position::decode(&newer).is_err());
    }

    #[test]
    fn h5_a_position_of_version_1_is_read() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3];
        let position = Position { next: 258, end: Some(3), assignment: 0, topic_id: None };
        assert_eq!(Position::decode(&bytes).unwrap(), position);
        assert!(Position::decode(&bytes[..16]).is_err());
    }

    proptest! {
        #[test]
        fn positions_survive_encoding(
            next in 0i64.., end in proptest::option::of(0i64..), assignment: u64, id in 1u8..,
        ) {
            let topic_id = (id % 2 == 0).then_some(TopicId([id; 16]));
            let position = Position { next, end, assignment, topic_id };
            prop_assert_eq!(Position::decode(&position.encode()).unwrap(), position);
        }
    }
}
