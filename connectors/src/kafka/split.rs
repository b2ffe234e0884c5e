//! A split: one partition of one topic in one cluster (F1), and how far it has been read.
//!
//! Pure. The encoding of a position is pinned by a test: checkpoints hold it.

use thalweg_engine::source::{SplitId, SplitState};
use thalweg_engine::{Error, Result};

/// First byte of every encoded position.
const POSITION_VERSION: u8 = 1;
/// Stands for "no end" in an encoded position.
const NO_END: i64 = i64::MIN;

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
}

impl Position {
    /// Whether everything up to the end was read.
    pub fn is_at_end(self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }

    /// The position as checkpoints hold it: version, next, end; big-endian.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(17);
        bytes.push(POSITION_VERSION);
        bytes.extend_from_slice(&self.next.to_be_bytes());
        bytes.extend_from_slice(&self.end.unwrap_or(NO_END).to_be_bytes());
        bytes
    }

    /// Reads what [`Position::encode`] wrote.
    ///
    /// # Errors
    /// An external error when the bytes are of another version or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let number = |range| -> Option<i64> {
            let bytes: &[u8] = bytes.get::<std::ops::Range<usize>>(range)?;
            bytes.try_into().ok().map(i64::from_be_bytes)
        };
        match (bytes.len(), bytes.first(), number(1..9), number(9..17)) {
            (17, Some(&POSITION_VERSION), Some(next), Some(end)) => {
                Ok(Position { next, end: (end != NO_END).then_some(end) })
            }
            _ => Err(Error::external(format!("a Kafka position of {} bytes cannot be read", bytes.len()))
                .permanent()),
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
        let position = Position { next: 258, end: Some(3) };
        let bytes = [1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!(position.encode(), bytes);
        assert!(Position::decode(&bytes[..16]).is_err());
        let mut newer = bytes;
        newer[0] = 2;
        assert!(Position::decode(&newer).is_err());
    }

    proptest! {
        #[test]
        fn positions_survive_encoding(next in 0i64.., end in proptest::option::of(0i64..)) {
            let position = Position { next, end };
            prop_assert_eq!(Position::decode(&position.encode()).unwrap(), position);
        }
    }
}
