//! A plain Kafka sink, at least once: every record that came before a barrier is acknowledged by
//! the brokers before the barrier's checkpoint is complete; after a crash some are written again.
//!
//! The rules: a full queue holds the task's input back and loses nothing; the barrier does not
//! stop the task (waiting is the snapshot's work, on its helper thread); a record that the brokers
//! refuse for good fails the task, with cluster, topic and partition.

use std::sync::Arc;

use arrow::array::RecordBatch;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use thalweg_engine::checkpoint::{CheckpointId, SnapshotSite};
use thalweg_engine::metrics::{Counter, Gauge};
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step, single_input,
};
use thalweg_engine::record::{Batch, EdgeSchema, Mode};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Context, Error, Result};

use super::client_settings::RedactedLog;
use super::deliveries::{Deliveries, DeliveryContext, Epoch};
use super::record_keys::RecordKeys;
use super::settings::producer_config;
use super::topology::Cluster;
use crate::deletes::encode_changes;
use crate::format::{EncodedRows, Encoder};

/// Bytes of records that may wait for the brokers, unless the job says otherwise.
const QUEUE_BYTES: usize = 32 << 20;

type MakeEncoder = Arc<dyn Fn() -> Result<Box<dyn Encoder>> + Send + Sync>;

/// Writes a stream to one topic of one cluster, at least once.
#[derive(Clone)]
pub struct KafkaSink {
    name: String,
    cluster: Cluster,
    topic: String,
    key: Vec<String>,
    queue_bytes: usize,
    encoder: MakeEncoder,
}

impl KafkaSink {
    /// A sink that writes to `topic` of `cluster`; `name` is what errors and metrics call the
    /// cluster. `encoder` makes one encoder for each task.
    pub fn new(
        name: impl Into<String>,
        cluster: Cluster,
        topic: impl Into<String>,
        encoder: impl Fn() -> Result<Box<dyn Encoder>> + Send + Sync + 'static,
    ) -> Self {
        KafkaSink {
            name: name.into(),
            cluster,
            topic: topic.into(),
            key: Vec::new(),
            queue_bytes: QUEUE_BYTES,
            encoder: Arc::new(encoder),
        }
    }

    /// The columns that make the records' key: one column as its text or bytes, several as a JSON
    /// array of texts. Without them records have no key.
    #[must_use]
    pub fn key(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.key = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Bytes of records that may wait for the brokers. Default: 32 MiB.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }
}

impl OperatorFactory for KafkaSink {
    fn name(&self) -> String {
        format!("kafka sink {}/{}", self.name, self.topic)
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Writer {
            encoder: (self.encoder)()?,
            sink: self.clone(),
            open: None,
            rows: EncodedRows::new(),
            keys: None,
            next: 0,
        }))
    }

    /// Rows that are added, replaced or deleted by key, not taken back.
    fn takes(&self, _input: usize, mode: &Mode) -> bool {
        *mode != Mode::Retract
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        RecordKeys::new(&input.schema, &self.key)?.check(input)?;
        Ok(Vec::new())
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }

    fn describe(&self) -> String {
        format!("kafka sink {}/{} key={:?}", self.name, self.topic, self.key)
    }
}

struct Writer {
    sink: KafkaSink,
    encoder: Box<dyn Encoder>,
    open: Option<Open>,
    /// The batch that is being sent, and its next row.
    rows: EncodedRows,
    keys: Option<EncodedRows>,
    next: usize,
}

struct Open {
    producer: ThreadedProducer<DeliveryContext>,
    deliveries: Arc<Deliveries>,
    /// What was sent since the last barrier.
    epoch: Arc<Epoch>,
    /// Epochs before it that may still be under way.
    earlier: Vec<Arc<Epoch>>,
    records: Counter,
    bytes: Counter,
    stalls: Counter,
    in_flight: Gauge,
}

impl Writer {
    fn take(&mut self, records: &RecordBatch) -> Result<()> {
        self.rows.clear();
        self.next = 0;
        encode_changes(&mut *self.encoder, records, &mut self.rows)?;
        self.keys = RecordKeys::new(&records.schema(), &self.sink.key)?.encode(records)?;
        Ok(())
    }

    /// Hands rows to the client until it has no room.
    fn send(&mut self) -> Result<Step> {
        let Some(open) = &self.open else {
            return Err(Error::internal("the Kafka sink was not opened"));
        };
        open.deliveries.check()?;
        while self.next < self.rows.len() {
            let payload = self.rows.value(self.next);
            let mut record = BaseRecord::with_opaque_to(&self.sink.topic, open.epoch.clone());
            record.payload = payload;
            if let Some(keys) = &self.keys {
                record = record.key(keys.row(self.next));
            }
            open.epoch.sent();
            match open.producer.send(record) {
                Ok(()) => {
                    self.next += 1;
                    open.records.add(1);
                    open.bytes.add(payload.map_or(0, <[u8]>::len) as u64);
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    open.epoch.not_sent();
                    open.stalls.add(1);
                    open.deliveries.wait_for_room();
                    return Ok(Step::More);
                }
                Err((error, _)) => {
                    open.epoch.not_sent();
                    let message = format!("{}/{}: the record is refused", self.sink.name, self.sink.topic);
                    return Err(Error::external(message).caused_by(error));
                }
            }
        }
        open.in_flight.set(i64::from(open.producer.in_flight_count()));
        Ok(Step::Done)
    }
}

impl Operator for Writer {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let deliveries = Arc::new(Deliveries::new(cx.waker));
        let name = || format!("cluster {}", self.sink.name);
        let settings = producer_config(&self.sink.cluster, self.sink.queue_bytes).context(name)?;
        let log = RedactedLog { redaction: settings.redaction() };
        let context =
            DeliveryContext { cluster: self.sink.name.clone(), log, deliveries: deliveries.clone() };
        let producer = settings.create(context).context(name)?;
        let metrics = cx.metrics.with("cluster", &self.sink.name);
        self.open = Some(Open {
            producer,
            deliveries,
            epoch: Arc::default(),
            earlier: Vec::new(),
            records: metrics.counter("kafka_records_written_total", "Records handed to the client."),
            bytes: metrics.counter("kafka_bytes_written_total", "Bytes of the values written."),
            stalls: metrics.counter("kafka_producer_stalls_total", "Times that the queue was full."),
            in_flight: metrics.gauge("kafka_records_in_flight", "Records not yet acknowledged."),
        });
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.take(batch.records())?;
        self.send()
    }

    fn resume(&mut self, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.send()
    }

    fn wake(&mut self, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.send()
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let unsent = self.rows.len() - self.next.min(self.rows.len());
        let Some(open) = &mut self.open else {
            return Err(Error::internal("the Kafka sink was not opened"));
        };
        open.deliveries.check()?;
        if unsent > 0 {
            return Err(Error::external(format!("{unsent} rows wait for room in the producer's queue")));
        }
        open.earlier.push(std::mem::take(&mut open.epoch));
        open.earlier.retain(|epoch| !epoch.is_delivered());
        let (epochs, deliveries) = (open.earlier.clone(), open.deliveries.clone());
        let wait = move |site: &SnapshotSite| {
            deliveries.wait(&epochs, &site.cancelled)?;
            Ok(Vec::new())
        };
        Ok(OperatorSnapshot { tasks: vec![Box::new(wait)], ..OperatorSnapshot::default() })
    }
}

impl crate::sink::Sink for KafkaSink {
    fn into_parts(self) -> crate::sink::SinkParts {
        crate::sink::SinkParts { factory: Arc::new(self), committer: None }
    }
}
