//! What the discovery tells the enumerator, and what the enumerator tells the readers. Plain data
//! as JSON with a version; no addresses and no secrets travel in it (each process reads those from
//! the topology itself).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thalweg_engine::{Error, Result};

use super::client::TopicId;

/// Version of the encodings of this module. Version 1 knew no ids of topics.
pub(crate) const ENCODING_VERSION: u8 = 2;

/// All that is known of the world: every listed holding, each with the last look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub version: u8,
    /// The topology's version, for people.
    pub topology: u64,
    /// What the topology lists for the source's topic. What is not here is removed.
    pub holdings: Vec<HoldingFact>,
}

/// A physical topic in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldingFact {
    pub cluster: String,
    pub topic: String,
    /// Whether the last look reached the cluster; `None` before the first look is over.
    pub reachable: Option<bool>,
    /// Which making of the topic `partitions` are of; `None` when that is not known.
    pub topic_id: Option<TopicId>,
    /// The most brokers that led partitions of it at one time; 0 when that is not known.
    pub brokers: usize,
    /// Whether `partitions` are all there are, each with its offsets.
    pub complete: bool,
    pub partitions: Vec<PartitionFact>,
}

/// A partition as it was when it was first seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionFact {
    pub topic: String,
    pub partition: i32,
    /// Offset of the oldest record.
    pub low: i64,
    /// Offset behind the newest record that a reader may see.
    pub high: i64,
    /// Offset of the first record at or after the start's timestamp, when there is one.
    pub at_timestamp: Option<i64>,
}

/// What readers must know of the world: who is listed, who is away, who was never seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub version: u8,
    /// Listed (cluster, topic) pairs.
    pub listed: Vec<(String, String)>,
    /// Listed clusters that the last look did not reach.
    pub away: Vec<String>,
    /// Listed clusters whose partitions are not all known.
    pub undiscovered: Vec<String>,
    /// Listed clusters at which nobody has looked in this attempt.
    pub unlooked: Vec<String>,
    /// (cluster, topic, which making of it): positions of another one are worth nothing.
    pub topic_ids: Vec<(String, String, TopicId)>,
    /// How many brokers of a cluster a consumer may fetch from at a time; 0 when that is not known.
    pub brokers: Vec<(String, usize)>,
}

/// Encodes one of this crate's messages.
///
/// # Errors
/// An internal error; plain data has none.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(|error| Error::internal("cannot encode a message").caused_by(error))
}

/// Reads what [`encode`] wrote; `what` names it in the error.
///
/// # Errors
/// An external error when the bytes are damaged or of a version that is not known.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u8,
    }
    let unreadable = |error| Error::external(format!("cannot read {what}")).permanent().caused_by(error);
    let Versioned { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if !(1..=ENCODING_VERSION).contains(&version) {
        return Err(Error::external(format!(
            "{what} is of version {version}, known are 1 to {ENCODING_VERSION}"
        ))
        .permanent());
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}
