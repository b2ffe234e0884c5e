//! Records that cannot be decoded, in each of three modes, and columns about records.

use arrow::array::cast::AsArray;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use thalweg_connectors::format::OnDecodeError;
use thalweg_connectors::kafka::MetadataColumn;
use thalweg_testkit::{KafkaCluster, NewRecord};

use crate::driver::{Driver, assert_each_once};
use crate::world::{topic, topology};

#[test]
fn a_bad_record_fails_is_dropped_or_becomes_a_dead_letter() {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("bad");
    east.create_topic(&name, 2).unwrap();
    let records = ["a", "!b", "c", "d"].map(|value| NewRecord::from(value).partition(1));
    east.produce(&name, records).unwrap();
    let world = topology(&name, &[("east", east)]);
    let split = format!("east/{name}/1");

    let error = Driver::start(&world.source(), 1).try_until("an error", |_| false).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{split} offset 1: the record cannot be decoded: it begins with !")
    );

    let mut dropping = Driver::start(&world.source().on_decode_error(OnDecodeError::Drop), 1);
    dropping.until("the rows", |driver| driver.rows.len() == 3);
    assert_eq!(dropping.metric("kafka_bad_records_total", "east"), Some(1));

    let lettering = world.source().on_decode_error(OnDecodeError::DeadLetter);
    let mut lettering = Driver::start(&lettering, 1);
    lettering.until("rows and a letter", |driver| driver.rows.len() == 3 && driver.letters.len() == 1);
    assert_each_once(&lettering, ["a", "c", "d"].map(String::from).to_vec());
    let letter = &lettering.letters[0];
    let text = |column: &str| letter.column_by_name(column).unwrap().as_string_view().value(0).to_string();
    assert_eq!((text("cluster"), text("topic")), ("east".to_string(), name));
    assert_eq!(letter.column_by_name("partition").unwrap().as_primitive::<Int32Type>().value(0), 1);
    assert_eq!(letter.column_by_name("offset").unwrap().as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(letter.column_by_name("payload").unwrap().as_binary_view().value(0), b"!b");
}

#[test]
fn columns_about_records_stay_beside_their_rows() {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("metadata");
    east.create_topic(&name, 1).unwrap();
    let records = [
        NewRecord::from(("k0", "v0")).timestamp_ms(1_000).header("thalweg-id", "1:7:42:job/sink:0"),
        NewRecord::from(("k1", "!bad")).timestamp_ms(2_000).header("thalweg-id", "h1"),
        NewRecord::from("v2").timestamp_ms(3_000),
    ];
    east.produce(&name, records.map(|record| record.partition(0))).unwrap();
    let world = topology(&name, &[("east", east)]);
    let columns = [
        MetadataColumn::Key,
        MetadataColumn::Timestamp,
        MetadataColumn::Cluster,
        MetadataColumn::Offset,
        MetadataColumn::Header("thalweg-id".into()),
        MetadataColumn::RecordId,
    ];
    let source = world.source().metadata(columns).on_decode_error(OnDecodeError::Drop);
    let mut driver = Driver::start(&source, 1);
    driver.until("the rows", |driver| driver.rows.len() == 2);
    let schema = driver.batches[0].schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let expected = [
        "value",
        "kafka_key",
        "kafka_timestamp",
        "kafka_cluster",
        "kafka_offset",
        "kafka_header_thalweg_id",
        "kafka_producer",
        "kafka_epoch",
        "kafka_sequence",
    ];
    assert_eq!(names, expected);
    let rows = arrow::compute::concat_batches(&schema, &driver.batches).unwrap();
    let keys: Vec<_> = rows.column(1).as_binary_view().iter().collect();
    assert_eq!(keys, [Some(b"k0".as_slice()), None]);
    assert_eq!(rows.column(2).as_primitive::<TimestampMicrosecondType>().values(), &[1_000_000, 3_000_000]);
    assert_eq!(rows.column(3).as_string_view().value(1), "east");
    assert_eq!(rows.column(4).as_primitive::<Int64Type>().values(), &[0, 2]);
    let ids: Vec<_> = rows.column(5).as_binary_view().iter().collect();
    assert_eq!(ids, [Some(b"1:7:42:job/sink:0".as_slice()), None]);
    let producers: Vec<_> = rows.column(6).as_string_view().iter().collect();
    assert_eq!(producers, [Some("job/sink:0"), None]);
    assert_eq!(rows.column(7).as_primitive::<UInt64Type>().iter().collect::<Vec<_>>(), [Some(7), None]);
    assert_eq!(rows.column(8).as_primitive::<UInt64Type>().iter().collect::<Vec<_>>(), [Some(42), None]);
}
