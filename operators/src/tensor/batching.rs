//! How rows are gathered to a batch, and how many batches are under way.

use std::time::Duration;

use thalweg_engine::time::Micros;
use thalweg_engine::{Error, Result};

/// How rows are gathered to batches. A batch is sent when it has [`rows_max`](Batching::rows_max)
/// rows or [`bytes_max`](Batching::bytes_max) bytes, when its first row has waited for
/// [`delay_max`](Batching::delay_max), and when a barrier or the end of data is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows of a batch, at most; 256 by default.
    pub rows_max: usize,
    /// Bytes of a batch's rows, at most, in Arrow's memory; one row may have more. 16 MiB by default.
    pub bytes_max: usize,
    /// How long the first row of a batch waits for others; 5 ms by default.
    pub delay_max: Duration,
    /// Rows of a batch are as long as each other within these bounds (in tokens, rising; longer rows
    /// are together). None by default. Batches are packed, so nothing is ever computed for padding:
    /// what buckets bound is the spread of work within a batch, and with that the scratch memory of
    /// attention over long rows and how evenly a device's blocks are filled. Each bucket gathers for
    /// itself, so a stream that is thin waits longer; but once rows of eight batches are done and
    /// wait for one that is still gathered, its bucket is sent as it is.
    pub buckets: Vec<usize>,
    /// Whether rows leave in the order in which they came; if not, a batch leaves as soon as it is
    /// done. They differ only with buckets, for a device does batches in order. True by default.
    pub ordered: bool,
    /// Batches that may be under way on the device at once; 2 by default. One more is made ready
    /// meanwhile.
    pub in_flight_max: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Batching {
            rows_max: 256,
            bytes_max: 16 << 20,
            delay_max: Duration::from_millis(5),
            buckets: Vec::new(),
            ordered: true,
            in_flight_max: 2,
        }
    }
}

impl Batching {
    /// Whether it can be followed.
    ///
    /// # Errors
    /// A user error that names the bound.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::user(what));
        match self {
            Batching { rows_max: 0, .. } => wrong("a batch must have room for a row"),
            Batching { bytes_max: 0, .. } => wrong("a batch must have room for a byte"),
            Batching { in_flight_max: 0, .. } => wrong("at least one batch must be under way"),
            Batching { buckets, .. } if buckets.first() == Some(&0) => {
                wrong("a bucket holds rows of at least one token")
            }
            Batching { buckets, .. } if !buckets.is_sorted_by(|a, b| a < b) => {
                wrong("the bounds of the buckets must rise")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn delay_micros(&self) -> Micros {
        Micros::try_from(self.delay_max.as_micros()).unwrap_or(Micros::MAX / 2)
    }
}
