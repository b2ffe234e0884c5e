//! What the testkit writes to Kafka and reads from it: records by value, for tests that compare.

/// A record to be written: a payload, or `(key, payload)`, and what else a test wants to say about it.
///
/// ```
/// use thalweg_testkit::NewRecord;
///
/// let record = NewRecord::from(("N14228", "{}")).partition(2).timestamp_ms(1_357_034_400_000).header("id", "7");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl NewRecord {
    /// Says the partition; without one, the key's hash decides, or chance.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Says the record's time, in milliseconds; without one it is now.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A record with a key and no payload: what deletes the key from a compacted topic.
    #[must_use]
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        NewRecord { key: Some(key.into()), ..Self::default() }
    }
}

macro_rules! from_payload {
    ($($payload:ty),*) => {$(
        impl From<$payload> for NewRecord {
            fn from(payload: $payload) -> Self {
                NewRecord { payload: Some(payload.into()), ..NewRecord::default() }
            }
        }
    )*};
}
from_payload!(&str, String, &[u8], Vec<u8>);

impl<K: Into<Vec<u8>>, P: Into<Vec<u8>>> From<(K, P)> for NewRecord {
    fn from((key, payload): (K, P)) -> Self {
        NewRecord { key: Some(key.into()), payload: Some(payload.into()), ..NewRecord::default() }
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The partition that it stands in.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its time in milliseconds, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload; none for a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The payload as text, empty for a tombstone.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.payload.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value of the first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }
}
