//! The Prism sink, configured: what is written where, and how surely.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thalweg_engine::Result;
use thalweg_engine::operator::{Operator, OperatorFactory, single_input};
use thalweg_engine::record::{EdgeSchema, Mode};
use thalweg_engine::state::StateIdentity;

use super::at_least_once::AtLeastOnceWriter;
use super::committer::PrismCommitter;
use super::config::Limits;
use super::exactly_once::ExactlyOnceWriter;
use super::row_records::{RowRecords, check_columns};
use super::target::PrismTarget;
use crate::format::Encoder;
use crate::sink::{Sink, SinkParts};

/// Bytes of records that may be unacknowledged, unless the job says otherwise.
const IN_FLIGHT_BYTES: usize = 16 << 20;
/// Bytes that an instance may stage on disk, unless the job says otherwise.
const STAGING_BYTES: u64 = 4 << 30;
/// Bytes of a segment, unless the job says otherwise.
const SEGMENT_BYTES: u64 = 16 << 20;

/// How surely records arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Each record once, for a reader that drops copies by id: published when its checkpoint is
    /// complete.
    #[default]
    ExactlyOnce,
    /// Each record, some of them again after a crash: published at once.
    AtLeastOnce,
}

type MakeEncoder = Arc<dyn Fn() -> Result<Box<dyn Encoder>> + Send + Sync>;

/// Writes a stream to a logical topic through Prism.
#[derive(Clone)]
pub struct PrismSink {
    topic: String,
    target: PrismTarget,
    encoder: MakeEncoder,
    delivery: Delivery,
    key: Vec<String>,
    timestamp: Option<String>,
    in_flight_bytes: usize,
    staging: Option<PathBuf>,
    staging_bytes: u64,
    segment_bytes: u64,
}

impl PrismSink {
    /// A sink to `topic`, exactly once. `encoder` makes one encoder for each task.
    pub fn new(
        topic: impl Into<String>,
        target: PrismTarget,
        encoder: impl Fn() -> Result<Box<dyn Encoder>> + Send + Sync + 'static,
    ) -> Self {
        PrismSink {
            topic: topic.into(),
            target,
            encoder: Arc::new(encoder),
            delivery: Delivery::ExactlyOnce,
            key: Vec::new(),
            timestamp: None,
            in_flight_bytes: IN_FLIGHT_BYTES,
            staging: None,
            staging_bytes: STAGING_BYTES,
            segment_bytes: SEGMENT_BYTES,
        }
    }

    /// How surely records arrive. Default: exactly once.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// The columns that make the records' key: one column as its text or bytes, several as a JSON
    /// array of texts. Without them records have no key.
    #[must_use]
    pub fn key(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.key = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The column of the records' time. Without it the broker's client says when it is.
    #[must_use]
    pub fn timestamp(mut self, column: impl Into<String>) -> Self {
        self.timestamp = Some(column.into());
        self
    }

    /// Bytes of records that may be unacknowledged, for each task, and for the commit. Default:
    /// 16 MiB.
    #[must_use]
    pub fn in_flight_bytes(mut self, bytes: usize) -> Self {
        self.in_flight_bytes = bytes;
        self
    }

    /// Where an exactly-once sink stages records. Default: the state backend's directory.
    #[must_use]
    pub fn staging(mut self, directory: impl Into<PathBuf>) -> Self {
        self.staging = Some(directory.into());
        self
    }

    /// Bytes that each task may have staged on the local disk. There the sink holds its input back
    /// until the store has taken a segment; for each barrier that comes meanwhile, what is under
    /// way to the sink is taken all the same. Default: 4 GiB.
    #[must_use]
    pub fn staging_bytes(mut self, bytes: u64) -> Self {
        self.staging_bytes = bytes;
        self
    }

    /// Bytes of a segment, which is uploaded when it is full; a quarter of the staged bytes at
    /// most. Default: 16 MiB.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn target(&self) -> &PrismTarget {
        &self.target
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight_bytes
    }

    pub(super) fn staging_directory(&self) -> Option<&Path> {
        self.staging.as_deref()
    }

    pub(super) fn staging_limit(&self) -> u64 {
        self.staging_bytes
    }

    pub(super) fn segment_limit(&self) -> u64 {
        self.segment_bytes
    }

    fn record_bytes_max(&self) -> usize {
        match &self.target {
            PrismTarget::Gateway(_) => Limits::default().record_bytes,
            PrismTarget::Embedded(config) => config.limits.record_bytes,
        }
    }
}

impl Sink for PrismSink {
    fn into_parts(self) -> SinkParts {
        let committer = match self.delivery {
            Delivery::AtLeastOnce => None,
            Delivery::ExactlyOnce => Some(Arc::new(PrismCommitter::new(self.clone())) as Arc<_>),
        };
        SinkParts { factory: Arc::new(self), committer }
    }
}

impl OperatorFactory for PrismSink {
    fn name(&self) -> String {
        format!("prism sink {}", self.topic)
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        let (key, timestamp) = (self.key.clone(), self.timestamp.clone());
        let rows = RowRecords::new((self.encoder)()?, key, timestamp, self.record_bytes_max());
        Ok(match self.delivery {
            Delivery::AtLeastOnce => Box::new(AtLeastOnceWriter::new(self.clone(), rows)),
            Delivery::ExactlyOnce => Box::new(ExactlyOnceWriter::new(self.clone(), rows)),
        })
    }

    /// Rows that are added, replaced or deleted by key, not taken back.
    fn takes(&self, _input: usize, mode: &Mode) -> bool {
        *mode != Mode::Retract
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        check_columns(input, &self.key, self.timestamp.as_deref())?;
        Ok(Vec::new())
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        (self.delivery == Delivery::ExactlyOnce).then(|| StateIdentity::of("prism sink"))
    }

    fn describe(&self) -> String {
        format!("prism sink {} {:?} key={:?}", self.topic, self.delivery, self.key)
    }
}
