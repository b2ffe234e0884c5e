//! The federated source as a node of the graph: its options, and what makes its enumerator,
//! discovery and readers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use thalweg_engine::record::{EdgeSchema, Mode};
use thalweg_engine::source::{Discovery, Enumerator, ReaderOpenContext, Source, SourceReader};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};

use super::bounds::{OnOffsetGone, OnTopicRecreated, Start, Starts, Until};
use super::client::KafkaClient;
use super::discovery::FederatedDiscovery;
use super::enumerator::{Bounds, FederatedEnumerator};
use super::gathering::Gathering;
use super::librdkafka::Librdkafka;
use super::metadata_columns::{MetadataBuilders, MetadataColumn};
use super::probe::Pace;
use super::reader::{FederatedReader, OnOutage, ReaderConfig};
use super::simulated::SimulatedKafka;
use super::tombstones::{OnTombstone, Tombstones, Upsert};
use super::topology_file::TopologyFile;
use crate::format::{Format, OnDecodeError, dead_letter_schema};

/// Bytes that librdkafka may hold for one task, unless the job says otherwise.
const QUEUE_BYTES: usize = 64 << 20;

/// Reads one logical topic from every cluster that the topology lists for it.
///
/// A split is (cluster, topic, partition). A cluster that is away costs its own records only;
/// clusters, topics and partitions come and go with the topology file, without a restart.
#[derive(Clone)]
pub struct KafkaSource {
    client: Arc<dyn KafkaClient>,
    topic: String,
    file: TopologyFile,
    format: Arc<dyn Format>,
    bounds: Bounds,
    on_outage: OnOutage,
    on_offset_gone: OnOffsetGone,
    on_decode_error: OnDecodeError,
    metadata: Vec<MetadataColumn>,
    upsert: Upsert,
    queue_bytes: usize,
    rows_per_second: Option<u32>,
    pace: Pace,
}

/// A source that lacks its format yet.
pub struct KafkaSourceBuilder {
    topic: String,
    topology: PathBuf,
}

impl KafkaSourceBuilder {
    /// Says how records become rows.
    pub fn format(self, format: impl Format + 'static) -> KafkaSource {
        self.format_dyn(Arc::new(format))
    }

    /// Says how records become rows, with a format that is shared already.
    pub fn format_dyn(self, format: Arc<dyn Format>) -> KafkaSource {
        KafkaSource {
            client: Arc::new(Librdkafka),
            topic: self.topic,
            file: TopologyFile::new(self.topology),
            format,
            bounds: Bounds::default(),
            on_outage: OnOutage::default(),
            on_offset_gone: OnOffsetGone::default(),
            on_decode_error: OnDecodeError::default(),
            metadata: Vec::new(),
            upsert: Upsert::default(),
            queue_bytes: QUEUE_BYTES,
            rows_per_second: None,
            pace: Pace { interval: Duration::from_secs(2), timeout: Duration::from_secs(3) },
        }
    }
}

impl KafkaSource {
    /// A source of a logical topic, held by the clusters that the topology file (YAML or JSON)
    /// lists for it.
    pub fn federated(topic: impl Into<String>, topology: impl Into<PathBuf>) -> KafkaSourceBuilder {
        KafkaSourceBuilder { topic: topic.into(), topology: topology.into() }
    }

    /// Where reading starts in clusters that nothing else is said of. Default: earliest.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.bounds.starts.default = start;
        self
    }

    /// Where reading starts in one cluster.
    #[must_use]
    pub fn start_in(mut self, cluster: impl Into<String>, start: Start) -> Self {
        self.bounds.starts.clusters.insert(cluster.into(), start);
        self
    }

    /// Ends the reading: the source is bounded.
    #[must_use]
    pub fn until(mut self, until: Until) -> Self {
        self.bounds.until = Some(until);
        self
    }

    /// What the watermark does when a cluster is away.
    #[must_use]
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.on_outage = on_outage;
        self
    }

    /// What to do when the offset to read next is gone.
    #[must_use]
    pub fn on_offset_gone(mut self, on_offset_gone: OnOffsetGone) -> Self {
        self.on_offset_gone = on_offset_gone;
        self
    }

    /// What to do when a topic was deleted and made anew.
    #[must_use]
    pub fn on_topic_recreated(mut self, on_topic_recreated: OnTopicRecreated) -> Self {
        self.bounds.on_topic_recreated = on_topic_recreated;
        self
    }

    /// What to do with a record that cannot be decoded.
    #[must_use]
    pub fn on_decode_error(mut self, on_decode_error: OnDecodeError) -> Self {
        self.on_decode_error = on_decode_error;
        self
    }

    /// Appends columns about the records, behind the format's.
    #[must_use]
    pub fn metadata(mut self, columns: impl IntoIterator<Item = MetadataColumn>) -> Self {
        self.metadata.extend(columns);
        self
    }

    /// The stream is an upsert: a row replaces the earlier one with the same values in these columns,
    /// which are the format's or [`MetadataColumn::Key`]'s. Records of a key stand in one partition, or
    /// their order is lost.
    #[must_use]
    pub fn upsert_by(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.upsert.key = columns.into_iter().map(Into::into).collect();
        self
    }

    /// What becomes of a record without a value. Default: an upsert deletes, other sources drop it.
    #[must_use]
    pub fn on_tombstone(mut self, on_tombstone: OnTombstone) -> Self {
        self.upsert.on_tombstone = Some(on_tombstone);
        self
    }

    /// Bytes that librdkafka may hold for one task. Default: 64 MiB.
    ///
    /// They are divided by two, four, eight clusters and so on; when so many have joined that the
    /// shares become smaller, the consumers of the others are made anew, once, at their positions.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Reads at most so many rows a second in each reader.
    #[must_use]
    pub fn rows_per_second(mut self, limit: u32) -> Self {
        self.rows_per_second = Some(limit);
        self
    }

    /// How often each cluster is looked at, and how long a look may take. Default: 2 s and 3 s.
    #[must_use]
    pub fn discovery(mut self, interval: Duration, timeout: Duration) -> Self {
        self.pace = Pace { interval, timeout };
        self
    }

    /// Reads clusters in memory instead of real ones: those at the topology's bootstrap addresses.
    #[must_use]
    pub fn simulated(mut self, kafka: &SimulatedKafka) -> Self {
        self.client = Arc::new(kafka.clone());
        self
    }

    fn schema(&self) -> Result<SchemaRef> {
        let format = self.format.schema();
        let deletes = self.upsert.on_tombstone() == OnTombstone::Delete;
        if self.metadata.is_empty() && !deletes {
            return Ok(format);
        }
        let mut fields: Vec<_> = format.fields().iter().cloned().collect();
        for field in self.metadata.iter().flat_map(MetadataColumn::fields).map(Arc::new) {
            if fields.iter().any(|known| known.name() == field.name()) {
                let name = field.name();
                return Err(Error::user(format!("column {name:?} is asked for twice")));
            }
            fields.push(field);
        }
        fields.extend(deletes.then(|| Arc::new(Tombstones::mark_field())));
        Ok(Arc::new(Schema::new(fields)))
    }
}

impl Source for KafkaSource {
    fn name(&self) -> String {
        format!("kafka {}", self.topic)
    }

    fn output(&self) -> Result<EdgeSchema> {
        let metadata: Vec<_> = self.metadata.iter().flat_map(MetadataColumn::fields).collect();
        self.upsert.check(&self.format.schema(), &metadata)?;
        let edge = EdgeSchema::new(self.schema()?);
        Ok(match self.upsert.key.as_slice() {
            [] => edge,
            key => edge.with_mode(Mode::Upsert(key.to_vec())),
        })
    }

    fn side_outputs(&self) -> Result<Vec<EdgeSchema>> {
        Ok(vec![EdgeSchema::new(dead_letter_schema())])
    }

    fn identity(&self) -> StateIdentity {
        StateIdentity::of("kafka source").with("topic", &self.topic)
    }

    fn enumerator(&self, restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        Ok(Box::new(FederatedEnumerator::new(self.bounds.clone(), restored)?))
    }

    fn discovery(&self) -> Result<Option<Box<dyn Discovery>>> {
        self.file.require()?;
        let starts: Starts = self.bounds.starts.clone();
        let (client, file) = (self.client.clone(), self.file.clone());
        let discovery = FederatedDiscovery::new(client, &self.topic, file, starts, self.pace);
        Ok(Some(Box::new(discovery)))
    }

    fn reader(&self, cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        let metadata = match self.metadata.as_slice() {
            [] => None,
            columns => Some(MetadataBuilders::new(columns)?),
        };
        let tombstones = self.upsert.gatherer(&self.format.schema());
        let (decoder, schema) = (self.format.decoder()?, self.schema()?);
        let gathering = Gathering::new(decoder, metadata, schema, self.on_decode_error, tombstones);
        let config = ReaderConfig {
            client: self.client.clone(),
            file: self.file.clone(),
            refresh: self.pace.interval,
            logical_topic: self.topic.clone(),
            queue_bytes: self.queue_bytes,
            on_outage: self.on_outage,
            on_offset_gone: self.on_offset_gone,
            bounded: self.bounds.until.is_some(),
            rows_per_second: self.rows_per_second,
        };
        Ok(Box::new(FederatedReader::new(config, gathering, cx.waker, cx.metrics)))
    }

    fn describe(&self) -> String {
        let fields = self.metadata.iter().flat_map(MetadataColumn::fields);
        let columns: Vec<String> = fields.map(|field| field.name().clone()).collect();
        let bounded = self.bounds.until.is_some();
        let (key, tombstones) = (&self.upsert.key, self.upsert.on_tombstone());
        let upsert = format!("upsert={key:?} tombstones={tombstones:?}");
        format!("kafka {} {} {columns:?} bounded={bounded} {upsert}", self.topic, self.format.describe())
    }
}
