//! The id of a record, as it travels in the Kafka header [`RECORD_ID_HEADER`].
//!
//! The encoding is text, so that any Kafka tool shows it: `1:<epoch>:<sequence>:<producer>`. `1`
//! is the encoding's version; numbers are decimal, without leading zeros; the producer comes last
//! and may hold any character. Two different texts never mean the same id. Pure.

use std::fmt;

use thalweg_engine::{Error, Result};

/// The Kafka header that carries a record's id.
pub const RECORD_ID_HEADER: &str = "thalweg-id";
/// The encoding's version.
const VERSION: &str = "1";
/// Longest producer, in bytes.
pub const PRODUCER_BYTES_MAX: usize = 1024;

/// Names one record for ever; the same id never names two. `Display` is the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId<'a> {
    /// Who made it: an instance's name, new at every restore and in every store.
    pub producer: &'a str,
    /// What lay between two barriers.
    pub epoch: u64,
    /// Counts a producer's records, without gaps over its epochs.
    pub sequence: u64,
}

impl fmt::Display for RecordId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}:{}:{}:{}", self.epoch, self.sequence, self.producer)
    }
}

impl<'a> RecordId<'a> {
    /// The value of the header.
    pub fn encode(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Reads the value of the header.
    ///
    /// # Errors
    /// A user error for another version, or for what no version can mean.
    pub fn decode(bytes: &'a [u8]) -> Result<RecordId<'a>> {
        let text = std::str::from_utf8(bytes).map_err(|_| bad(bytes, "is not UTF-8"))?;
        let mut parts = text.splitn(4, ':');
        let version = parts.next().unwrap_or_default();
        if version != VERSION {
            return Err(bad(bytes, "is of a version that this build does not know"));
        }
        let epoch = parts.next().and_then(number).ok_or_else(|| bad(bytes, "has no epoch"))?;
        let sequence = parts.next().and_then(number).ok_or_else(|| bad(bytes, "has no sequence"))?;
        let producer = parts.next().filter(|producer| !producer.is_empty());
        let producer = producer.ok_or_else(|| bad(bytes, "has no producer"))?;
        if producer.len() > PRODUCER_BYTES_MAX {
            return Err(bad(bytes, "has too long a producer"));
        }
        Ok(RecordId { producer, epoch, sequence })
    }
}

/// A number in its one form.
fn number(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    canonical.then(|| text.parse().ok()).flatten()
}

fn bad(bytes: &[u8], what: &str) -> Error {
    let shown: String = String::from_utf8_lossy(bytes).chars().take(80).collect();
    Error::user(format!("record id {shown:?} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_encoding_is_pinned() {
        let id = RecordId { producer: "job/sink:a/3/1/0", epoch: 7, sequence: 0 };
        assert_eq!(id.encode(), b"1:7:0:job/sink:a/3/1/0");
        assert_eq!(RecordId::decode(b"1:7:0:job/sink:a/3/1/0").unwrap(), id);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for bad in
            ["", "1", "1:2", "1:2:3", "1:2:3:", "2:1:1:p", "1:01:1:p", "1:+1:1:p", "1:-1:1:p", "1::1:p"]
        {
            assert!(RecordId::decode(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(RecordId::decode(b"1:1:1:\xff").is_err());
        assert!(RecordId::decode(b"1:1:99999999999999999999:p").is_err());
        assert!(
            RecordId::decode(format!("1:1:1:{}", "p".repeat(PRODUCER_BYTES_MAX + 1)).as_bytes()).is_err()
        );
    }

    proptest! {
        #[test]
        fn ids_come_back(producer in ".{1,40}", epoch: u64, sequence: u64) {
            let id = RecordId { producer: &producer, epoch, sequence };
            let encoded = id.encode();
            prop_assert_eq!(RecordId::decode(&encoded).unwrap(), id);
        }

        #[test]
        fn what_is_read_is_written_back(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(id) = RecordId::decode(&bytes) {
                prop_assert_eq!(id.encode(), bytes);
            }
        }
    }
}
