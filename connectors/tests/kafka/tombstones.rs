//! A record without a value is not an empty one: it deletes by its key, is a row of nulls, or is left
//! out and counted. On clusters in memory.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use thalweg_connectors::collect::Collected;
use thalweg_connectors::format::{EncodedRows, Encoder, Json, JsonEncoder, OnDecodeError, Raw, RawEncoder};
use thalweg_connectors::kafka::topology::{Cluster, Setting};
use thalweg_connectors::kafka::{
    Happening, KafkaSink, KafkaSource, MetadataColumn, OnTombstone, SimulatedKafka, SimulatedRecord, Until,
};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::Result;
use thalweg_engine::checkpoint::MemoryStorage;
use thalweg_engine::cluster::{CrashAt, JobConfig, Outcome, Simulated, SimulationSetup, simulate, start};
use thalweg_engine::graph::Environment;
use thalweg_engine::metrics::Registry;
use thalweg_engine::record::Mode;
use thalweg_engine::runtime::{ChannelBounds, ManualClock};
use thalweg_engine::source::Source;
use thalweg_engine::state::MapBackend;
use thalweg_testkit::{KafkaCluster, NewRecord};

use crate::world::{TopologyOnDisk, topic, topology};

const TOPIC: &str = "versions";

fn schema(nullable: bool) -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Int64, nullable),
        Field::new("text", DataType::Utf8View, true),
    ])
}

/// One is written, two is written, one is deleted, two gets another text; then a tombstone whose key
/// is no number.
fn world(clock: &ManualClock) -> (SimulatedKafka, TopologyOnDisk) {
    let kafka = SimulatedKafka::new(Arc::new(clock.clone()), 7);
    kafka.happens("east:1", Happening::TopicMade { topic: TOPIC.into(), partitions: 1 });
    let record = |key: &str, value: Option<&str>| SimulatedRecord {
        key: Some(key.into()),
        value: value.map(Into::into),
        ..SimulatedRecord::default()
    };
    let records = vec![
        record("1", Some(r#"{"id": 1, "text": "a"}"#)),
        record("2", Some(r#"{"id": 2, "text": ""}"#)),
        record("1", None),
        record("2", Some(r#"{"id": 2, "text": "b"}"#)),
        record("two", None),
    ];
    kafka.happens("east:1", Happening::Written { topic: TOPIC.into(), partition: 0, records });
    (kafka, TopologyOnDisk::new(TOPIC, &[("east", "east:1")]))
}

/// The rows that a source gives, as JSON.
fn rows(nullable: bool, options: impl FnOnce(KafkaSource) -> KafkaSource) -> Vec<String> {
    let clock = ManualClock::new(0);
    let (kafka, topology) = world(&clock);
    let source = topology.simulated(Json::new(&schema(nullable)), &kafka);
    let source = options(source.until(Until::Latest).on_decode_error(OnDecodeError::Drop));
    let (env, collected) = (Environment::new(), Collected::new());
    env.source(source).sink(collected.exactly_once_sink()).uid("out");
    let local = tempfile::tempdir().unwrap();
    let setup = SimulationSetup {
        seed: 1,
        faults: Box::new(CrashAt(None)),
        steps_max: 1_000_000,
        clock,
        storage: Arc::new(MemoryStorage::default()),
        backend: Arc::new(MapBackend::new(local.path())),
        bounds: ChannelBounds::default(),
    };
    let ended = simulate(env.build().unwrap(), JobConfig::new("tombstones"), setup).unwrap();
    assert_eq!(ended, Simulated::Ended(Outcome::Completed));
    let batches = collected.batches();
    let all: RecordBatch = concat_batches(&batches[0].schema(), &batches).unwrap();
    let mut encoded = EncodedRows::new();
    JsonEncoder::new().encode(&all, &mut encoded).unwrap();
    encoded.iter().map(|row| String::from_utf8(row.to_vec()).unwrap()).collect()
}

#[test]
fn an_upsert_deletes_by_the_key_of_a_tombstone_and_an_empty_text_stays_one() {
    let found = rows(false, |source| source.upsert_by(["id"]));
    let expected = [
        r#"{"id":1,"text":"a","__op":1}"#,
        r#"{"id":2,"text":"","__op":1}"#,
        r#"{"id":1,"text":null,"__op":-1}"#,
        r#"{"id":2,"text":"b","__op":1}"#,
    ];
    assert_eq!(found, expected, "the tombstone whose key is no number is no row");
}

#[test]
fn a_tombstone_is_left_out_where_nothing_can_be_deleted_or_is_a_row_of_nulls_on_request() {
    let found = rows(true, |source| source);
    assert_eq!(found.len(), 3, "{found:?}");
    let found = rows(true, |source| source.on_tombstone(OnTombstone::Row));
    assert_eq!(found.len(), 5);
    assert_eq!(found[2], r#"{"id":null,"text":null}"#);
    // The record's own key is a key to upsert by, too.
    let by_key = |source: KafkaSource| source.metadata([MetadataColumn::Key]).upsert_by(["kafka_key"]);
    let found = rows(true, by_key);
    assert_eq!(found.iter().filter(|row| row.contains("\"__op\":-1")).count(), 2, "{found:?}");
}

#[test]
fn what_a_source_says_of_its_edge_is_what_it_gives() {
    let topology = TopologyOnDisk::new(TOPIC, &[("east", "east:1")]);
    let kafka = SimulatedKafka::new(Arc::new(ManualClock::new(0)), 1);
    let source = || topology.simulated(Json::new(&schema(false)), &kafka);
    let edge = source().upsert_by(["id"]).output().unwrap();
    assert_eq!(edge.mode, Mode::Upsert(vec!["id".into()]));
    assert!(edge.has_deletes());
    let dropping = source().upsert_by(["id"]).on_tombstone(OnTombstone::Drop).output().unwrap();
    assert!(!dropping.has_deletes());
    let error = source().on_tombstone(OnTombstone::Row).output().unwrap_err().to_string();
    assert!(error.contains("column \"id\" must not be null"), "{error}");
}

/// Reads what is there into another topic of a real cluster; key and value of each record there.
fn copied(
    source: KafkaSource,
    key: &[&str],
    encoder: fn() -> Result<Box<dyn Encoder>>,
) -> Vec<(Option<String>, Option<String>)> {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("tombstones-copied");
    east.create_topic(&name, 1).unwrap();
    let address = Cluster::at(east.bootstrap()).with("broker.address.family", Setting::given("v4"));
    let sink = KafkaSink::new("east", address, &name, encoder).key(key.iter().copied());
    let env = Environment::new();
    env.source(source.until(Until::Latest)).sink(sink).uid("out");
    let storage = Arc::new(MemoryStorage::default());
    let backend = Arc::new(MapBackend::default());
    let config = JobConfig::new("tombstones");
    let (registry, bounds) = (Registry::default(), ChannelBounds::default());
    let job = start(env.build().unwrap(), config, storage, backend, registry, bounds).unwrap();
    assert_eq!(job.wait().unwrap().outcome, Outcome::Completed);
    let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes).unwrap());
    let records = east.consume(&name).unwrap();
    records.into_iter().map(|record| (text(record.key), text(record.payload))).collect()
}

#[test]
fn tombstones_of_real_brokers_delete_and_a_delete_is_written_as_one() {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("tombstones");
    east.create_topic(&name, 1).unwrap();
    let written = [("1", Some(r#"{"id":1,"text":"a"}"#)), ("2", Some(r#"{"id":2,"text":""}"#)), ("1", None)];
    let record = |&(key, value): &(&str, Option<&str>)| match value {
        Some(value) => NewRecord::from((key, value)),
        None => NewRecord::tombstone(key),
    };
    east.produce(&name, written.iter().map(record)).unwrap();
    let owned = |key: Option<&str>, value: Option<&str>| (key.map(String::from), value.map(String::from));
    let expected = written.map(|(key, value)| owned(Some(key), value));
    let world = topology(&name, &[("east", east)]);

    let changes = world.source_of(Json::new(&schema(false))).upsert_by(["id"]);
    let json = || Ok(Box::new(JsonEncoder::new()) as Box<dyn Encoder>);
    assert_eq!(copied(changes, &["id"], json), expected);

    let raw = world.source_of(Raw::new()).on_tombstone(OnTombstone::Row);
    let as_it_is = || Ok(Box::new(RawEncoder) as Box<dyn Encoder>);
    assert_eq!(copied(raw, &[], as_it_is), expected.map(|(_, value)| (None, value)));

    let rest = copied(world.source_of(Raw::new()), &[], as_it_is);
    assert_eq!(rest.len(), 2, "{rest:?}");
}
