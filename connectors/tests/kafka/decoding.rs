//! Records that cannot be decoded, in each of three modes, and columns about records.

use arrow::array::cast::AsArray;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType, UInt64Type};
use thalweg_connectors::format::{Csv, Format, Json, OnDecodeError, Raw};
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

/// What the brokers hold: bad records first, last, beside each other, and good ones between.
fn spoiled(cluster: &KafkaCluster, name: &str, payloads: &[&[u8]]) {
    cluster.create_topic(name, 2).unwrap();
    let records = payloads.iter().map(|payload| NewRecord::from(payload.to_vec()).partition(1));
    cluster.produce(name, records).unwrap();
}

/// A format's three modes over `payloads` on a real broker; `bad` are the offsets of bad records
/// with what the reason must say, `good` the values of the others.
fn three_modes(
    format: impl Format + Clone + 'static,
    payloads: &[&[u8]],
    bad: &[(i64, &str)],
    good: &[&str],
) {
    let east = KafkaCluster::shared("east").unwrap();
    let name = topic("spoiled");
    spoiled(east, &name, payloads);
    let world = topology(&name, &[("east", east)]);
    let source = || world.source_of(format.clone());
    let expected: Vec<_> = good.iter().map(|value| value.to_string()).collect();

    if let Some((offset, reason)) = bad.first() {
        let error = Driver::start(&source(), 1).try_until("an error", |_| false).unwrap_err().to_string();
        let place = format!("east/{name}/1 offset {offset}: the record cannot be decoded: ");
        assert!(error.starts_with(&place) && error.contains(reason), "{error}");
    }

    let mut dropping = Driver::start(&source().on_decode_error(OnDecodeError::Drop), 1);
    dropping.until("the good ones", |driver| driver.rows.len() >= good.len());
    assert_each_once(&dropping, expected.clone());
    let in_order: Vec<_> = dropping.rows.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(in_order, good, "neighbours keep their places");
    dropping.until("the count", |driver| {
        driver.metric("kafka_bad_records_total", "east") == Some(bad.len() as i64)
    });
    let offset = dropping.checkpoint().offset(&format!("east/{name}/1"));
    assert_eq!(offset, Some(payloads.len() as i64), "bad records are behind us too");

    let mut lettering = Driver::start(&source().on_decode_error(OnDecodeError::DeadLetter), 1);
    let letters = |driver: &Driver| driver.letters.iter().map(|batch| batch.num_rows()).sum::<usize>();
    lettering
        .until("rows and letters", |driver| driver.rows.len() >= good.len() && letters(driver) >= bad.len());
    assert_each_once(&lettering, expected);
    let mut told = Vec::new();
    for batch in &lettering.letters {
        let text =
            |column: &str, row| batch.column_by_name(column).unwrap().as_string_view().value(row).to_string();
        for row in 0..batch.num_rows() {
            assert_eq!((text("cluster", row), text("topic", row)), ("east".to_string(), name.clone()));
            let partition = batch.column_by_name("partition").unwrap().as_primitive::<Int32Type>();
            assert_eq!(partition.value(row), 1);
            let offset = batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>().value(row);
            let payload = batch.column_by_name("payload").unwrap().as_binary_view().value(row);
            assert_eq!(payload, payloads[offset as usize], "the letter holds the record as it came");
            told.push((offset, text("reason", row)));
        }
    }
    assert_eq!(told.len(), bad.len());
    for ((offset, reason), (wanted_offset, wanted)) in told.iter().zip(bad) {
        assert!(offset == wanted_offset && reason.contains(wanted), "{told:?}");
    }
}

fn value_and_number() -> Schema {
    Schema::new(vec![Field::new("value", DataType::Utf8View, false), Field::new("n", DataType::Int64, true)])
}

#[test]
fn json_records_that_are_bad_spoil_no_neighbour_in_any_mode() {
    let payloads: [&[u8]; 9] = [
        b"{\"value\": \"cut off",
        b"{\"value\": \"a\", \"n\": 1}",
        b"{\"value\": \"b\", \"n\": \"one\"}",
        b"",
        b"\xff\xfe",
        b"{\"n\": 2}",
        b"{\"value\": \"c\"} {\"value\": \"d\"}",
        b"{\"value\": \"e\", \"n\": null, \"more\": [1, {}]}",
        b"[]",
    ];
    let bad = [
        (0, "at byte"),
        (2, "\"n\""),
        (3, "an object"),
        (4, "not UTF-8"),
        (5, "\"value\""),
        (6, "at byte"),
        (8, "an object"),
    ];
    three_modes(Json::new(&value_and_number()), &payloads, &bad, &["a", "e"]);
}

#[test]
fn csv_records_that_are_bad_spoil_no_neighbour_in_any_mode() {
    let payloads: [&[u8]; 8] =
        [b"\"open,1", b"a,1", b"b,one", b"", b"\xff,1", b"c,2,3", b"\"d, \"\"quoted\"\"\",4\r\n", b",5"];
    let bad = [
        (0, "closing quote"),
        (2, "\"n\""),
        (3, "expected 2 fields"),
        (4, "not UTF-8"),
        (5, "expected 2 fields"),
        (7, "\"value\""),
    ];
    three_modes(Csv::new(&value_and_number()), &payloads, &bad, &["a", "d, \"quoted\""]);
}

#[test]
fn raw_records_are_never_bad() {
    let payloads: [&[u8]; 4] = [b"", b"a\nb", b"\x00\x01", b"plain"];
    three_modes(Raw::new(), &payloads, &[], &["", "a\nb", "\u{0}\u{1}", "plain"]);
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
