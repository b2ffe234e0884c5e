use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::MetricGroup;
use thalweg_engine::operator::{OperatorFactory, SubtaskInfo, Waker};
use thalweg_engine::record::Mode;
use thalweg_engine::sink::{Committable, Committer};
use thalweg_engine::source::{
    EnumeratorEvent, ReaderContext, ReaderEffect, ReaderOpenContext, ReaderStatus, Source,
};

use super::commit::{CommittedFile, FileCommitter, Prepared};
use super::{FileSink, FileSource, parquet_schema};
use crate::conformance::sink::{NoStorage, SinkSuite, suite_rows};
use crate::conformance::source::{SourceSuite, rows_of};
use crate::format::{Csv, CsvEncoder, EncodedRows, Encoder, Json, JsonEncoder, OnDecodeError, Raw};
use crate::position;
use crate::sink::Sink;

fn schema() -> Schema {
    Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("s", DataType::Utf8View, true)])
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn json_lines(rows: &RecordBatch) -> Vec<u8> {
    let mut encoded = EncodedRows::new();
    JsonEncoder::new().encode(rows, &mut encoded).unwrap();
    encoded.iter().flat_map(|row| [row, b"\n"].concat()).collect()
}

fn csv_lines(rows: &RecordBatch) -> Vec<u8> {
    let mut encoded = EncodedRows::new();
    CsvEncoder::new().encode(rows, &mut encoded).unwrap();
    let header = [CsvEncoder::new().header(&rows.schema()), b"\r\n".to_vec()].concat();
    header.into_iter().chain(encoded.iter().flat_map(|row| [row, b"\r\n"].concat())).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn parquet(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.into_inner().unwrap()
}

/// The same 18,000 rows in three files, two of them longer than a chunk.
fn spread(directory: &Path, extension: &str, bytes: impl Fn(&RecordBatch) -> Vec<u8>) {
    for (name, rows) in [("a", 0..9_000), ("b", 9_000..9_003), ("c", 9_003..18_000)] {
        write(&directory.join(format!("{name}.{extension}")), &bytes(&suite_rows(rows).unwrap()));
    }
}

#[test]
fn files_of_every_kind_hold_the_same_rows_and_are_sources() {
    let root = tempfile::tempdir().unwrap();
    let directory = |name: &str| root.path().join(name);
    spread(&directory("json"), "jsonl", json_lines);
    spread(&directory("gz"), "jsonl.gz", |rows| gzip(&json_lines(rows)));
    spread(&directory("csv"), "csv", csv_lines);
    spread(&directory("zst"), "csv.zst", |rows| zstd::encode_all(csv_lines(rows).as_slice(), 1).unwrap());
    spread(&directory("parquet"), "parquet", parquet);
    // What is being written, and what is somebody's mark, is not read.
    write(&directory("json").join(".staging/x.jsonl"), b"broken");
    write(&directory("json").join("_SUCCESS"), b"broken");
    let csv = Csv::new(&schema()).header(true);
    let sources = [
        FileSource::lines(directory("json"), Json::new(&schema())),
        FileSource::lines(directory("gz").join("*.jsonl.gz"), Json::new(&schema())),
        FileSource::csv(directory("csv"), csv.clone()),
        FileSource::csv(directory("zst"), csv),
        FileSource::parquet(directory("parquet"), &schema()),
    ];
    let expected = rows_of(&sources[0], 1).unwrap();
    assert_eq!(expected.len(), 18_000);
    for source in sources {
        assert!(rows_of(&source, 2).unwrap() == expected, "{}", source.name());
        SourceSuite::new(source).check().unwrap();
    }
}

#[test]
fn h8_long_rows_of_any_file_come_in_batches_of_bounded_bytes() {
    let root = tempfile::tempdir().unwrap();
    let directory = |name: &str| root.path().join(name);
    // Few texts many times, which Parquet keeps in a dictionary, and texts of their own.
    let texts = |row: usize| if row < 1_500 { "x".repeat(4_000 + row % 2) } else { format!("{row:0>4000}") };
    let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..3_000).map(texts)));
    let rows = RecordBatch::try_from_iter([("text", texts)]).unwrap();
    write(&directory("json").join("a.jsonl"), &json_lines(&rows));
    write(&directory("parquet").join("a.parquet"), &parquet(&rows));
    let json = FileSource::lines(directory("json"), Json::new(&rows.schema()));
    let columns = FileSource::parquet(directory("parquet"), &rows.schema());
    let expected = rows_of(&json, 1).unwrap();
    assert_eq!(expected.len(), 3_000);
    assert!(rows_of(&columns, 1).unwrap() == expected);
}

#[test]
fn parquet_columns_are_found_by_name_and_cast() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.parquet");
    write(&path, &parquet(&suite_rows(0..10).unwrap()));
    assert_eq!(parquet_schema(&path).unwrap().fields(), schema().fields());
    let narrow = Schema::new(vec![Field::new("n", DataType::Int16, false)]);
    assert_eq!(rows_of(&FileSource::parquet(&path, &narrow), 1).unwrap().len(), 10);
    let missing = Schema::new(vec![Field::new("m", DataType::Int16, true)]);
    let error = rows_of(&FileSource::parquet(&path, &missing), 1).unwrap_err().to_string();
    assert!(error.contains("a.parquet: there is no column \"m\""), "{error}");
    write(&path, &parquet(&suite_rows(0..100_000).unwrap()));
    let error = rows_of(&FileSource::parquet(&path, &narrow), 1).unwrap_err().to_string();
    assert!(error.contains("column \"n\": Int64 cannot be read as Int16"), "{error}");
}

#[test]
fn a_path_without_files_fails_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    for path in [root.path().join("missing"), root.path().to_path_buf(), root.path().join("*.x")] {
        let error = rows_of(&FileSource::lines(&path, Raw::new()), 1).unwrap_err().to_string();
        assert!(error.contains("there is no such file"), "{error}");
    }
}

/// Everything that one reader of one file does.
fn effects(source: &FileSource) -> Result<Vec<ReaderEffect>, String> {
    let info = SubtaskInfo {
        job: "test".into(),
        uid: Uid::new("s").unwrap(),
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
        generation: 1,
        attempt: 1,
        claim: "test".into(),
    };
    let (waker, metrics) = (Waker::new(|| ()), MetricGroup::default());
    let mut reader =
        source.reader(&ReaderOpenContext { info: &info, waker: &waker, metrics: &metrics }).unwrap();
    let found = source.discovery().unwrap().unwrap().look().unwrap().unwrap();
    let mut enumerator = source.enumerator(None).unwrap();
    let mut effects = Vec::new();
    let mut cx = ReaderContext::new(&mut effects, 0);
    enumerator.handle(EnumeratorEvent::Discovered(found)).unwrap();
    for action in enumerator.handle(EnumeratorEvent::Started { parallelism: 1, splits: vec![] }).unwrap() {
        match action {
            thalweg_engine::source::EnumeratorAction::Assign { splits, .. } => {
                reader.add_splits(splits, &mut cx).unwrap()
            }
            _ => reader.no_more_splits(),
        }
    }
    while reader.poll(&mut cx).map_err(|error| error.to_string())? != ReaderStatus::Finished {}
    Ok(effects)
}

#[test]
fn a_bad_record_fails_is_dropped_or_goes_to_the_side_with_file_and_line() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.jsonl");
    write(&path, b"{\"n\":1}\n\n{\"n\":2\n}\n{\"n\":\"x\"}\r\n{\"n\":3}");
    let source = FileSource::lines(&path, Json::new(&schema()));
    let error = effects(&source).unwrap_err();
    assert_eq!(
        error,
        format!(
            "{}:3: cannot decode a record: not JSON at byte 6: expected ',' or '}}', the record ends",
            path.display()
        )
    );

    let rows = |effects: &[ReaderEffect]| -> Vec<i64> {
        let batches = effects.iter().filter_map(|effect| match effect {
            ReaderEffect::Batch(batch, _) => {
                Some(batch.records().column(0).as_primitive::<Int64Type>().values().to_vec())
            }
            _ => None,
        });
        batches.flatten().collect()
    };
    let dropped = effects(&source.clone().on_decode_error(OnDecodeError::Drop)).unwrap();
    assert_eq!(rows(&dropped), [1, 3]);
    assert!(!dropped.iter().any(|effect| matches!(effect, ReaderEffect::Side(..))));

    let source = source.on_decode_error(OnDecodeError::DeadLetter);
    assert_eq!(source.side_outputs().unwrap().len(), 1);
    let side = effects(&source).unwrap();
    assert_eq!(rows(&side), [1, 3]);
    let letters = side.iter().find_map(|effect| match effect {
        ReaderEffect::Side(1, batch) => Some(batch.records().clone()),
        _ => None,
    });
    let letters = letters.unwrap();
    assert_eq!(letters.schema(), source.side_outputs().unwrap()[0].schema);
    assert_eq!(letters.column(1).as_string_view().value(0), path.to_str().unwrap());
    assert_eq!(letters.column(3).as_primitive::<Int64Type>().values(), &[3, 4, 5]);
    let payloads: Vec<_> = letters.column(5).as_binary_view().iter().flatten().collect();
    assert_eq!(payloads, [b"{\"n\":2".as_slice(), b"}", b"{\"n\":\"x\"}"]);
}

#[test]
fn csv_records_span_lines_within_quotes_and_a_byte_order_mark_is_no_name() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.csv");
    write(&path, b"\xef\xbb\xbfs,extra,n\n\"two\nlines\",x,1\n,\"\",2\n\"\",,3\nbad,4\n\"quo\"\"te\",,5\n");
    let source =
        FileSource::csv(&path, Csv::new(&schema()).header(true)).on_decode_error(OnDecodeError::DeadLetter);
    let effects = effects(&source).unwrap();
    let ReaderEffect::Batch(batch, _) = &effects[1] else { panic!("{effects:?}") };
    let strings: Vec<_> = batch.records().column(1).as_string_view().iter().collect();
    assert_eq!(strings, [Some("two\nlines"), None, Some(""), Some("quo\"te")]);
    assert_eq!(batch.records().column(0).as_primitive::<Int64Type>().values(), &[1, 2, 3, 5]);
    let ReaderEffect::Side(1, letters) = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(letters.records().column(3).as_primitive::<Int64Type>().values(), &[6]);
    assert_eq!(letters.records().column(4).as_string_view().value(0), "expected 3 fields, found 2");
}

#[test]
fn a_header_without_a_column_that_takes_no_null_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.csv");
    write(&path, b"s,m\nx,1\n");
    let error = effects(&FileSource::csv(&path, Csv::new(&schema()).header(true))).unwrap_err();
    assert!(error.contains("a.csv: CSV header: there is no field for column \"n\""), "{error}");
}

#[test]
fn a_truncated_gzip_file_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.jsonl.gz");
    let whole = gzip(&json_lines(&suite_rows(0..10_000).unwrap()));
    write(&path, &whole[..whole.len() / 2]);
    let error = effects(&FileSource::lines(&path, Json::new(&schema()))).unwrap_err();
    assert!(error.contains("a.jsonl.gz: cannot read"), "{error}");
}

/// The `n` of the rows of the committed files.
fn committed(source: FileSource) -> Vec<i64> {
    let batches = effects(&source).unwrap().into_iter().filter_map(|effect| match effect {
        ReaderEffect::Batch(batch, _) => {
            Some(batch.records().column(0).as_primitive::<Int64Type>().values().to_vec())
        }
        _ => None,
    });
    batches.flatten().collect()
}

#[test]
fn a_file_sink_writes_exactly_once() {
    type Make = fn(&Path) -> (FileSink, FileSource);
    let kinds: [Make; 3] = [
        |path| (FileSink::json(path), FileSource::lines(path, Json::new(&schema()))),
        |path| (FileSink::csv(path), FileSource::csv(path, Csv::new(&schema()).header(true))),
        |path| (FileSink::parquet(path), FileSource::parquet(path, &schema())),
    ];
    for kind in kinds {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("out");
        let files = || std::fs::read_dir(&path).map(|entries| entries.count() > 1).unwrap_or(false);
        let suite = SinkSuite {
            make: &|| kind(&path).0.into_parts(),
            visible: &|| Ok(if files() { committed(kind(&path).1) } else { Vec::new() }),
            storage: Arc::new(NoStorage),
            other_storage: Arc::new(NoStorage),
        };
        suite.check().unwrap();
    }
}

#[test]
fn a_second_run_with_the_same_names_adds_files_and_replaces_none() {
    let root = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    for run in 1..=2 {
        let suite = SinkSuite {
            make: &|| FileSink::json(root.path()).into_parts(),
            visible: &|| {
                let files =
                    std::fs::read_dir(root.path()).map(|entries| entries.count() > 1).unwrap_or(false);
                let source = FileSource::lines(root.path(), Json::new(&schema()));
                let all = if files { committed(source) } else { Vec::new() };
                // The first run's rows stay; the rest is what this run has added.
                let mut rows = all;
                rows.sort_unstable();
                count.set(rows.len());
                if run == 2 {
                    let mut earlier = (0..20_090).peekable();
                    rows.retain(|n| earlier.next_if_eq(n).is_none());
                }
                Ok(rows)
            },
            storage: Arc::new(NoStorage),
            other_storage: Arc::new(NoStorage),
        };
        suite.check().unwrap();
    }
    assert_eq!(count.get(), 2 * 20_090);
}

#[test]
fn a_staged_file_that_is_gone_or_changed_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let files = vec![CommittedFile { name: "x.jsonl".into(), bytes: 3 }];
    let payload = position::encode(&Prepared { directory: root.path().into(), files }).unwrap();
    let committable = Committable { uid: Uid::new("s").unwrap(), payload, objects: Vec::new() };
    let commit = || FileCommitter.commit(std::slice::from_ref(&committable), &NoStorage, &|| false);
    assert!(commit().unwrap_err().to_string().contains("the rows are lost"));
    write(&root.path().join(".staging/x.jsonl"), b"four");
    assert!(commit().unwrap_err().to_string().contains("has 4 bytes, 3 were prepared"));
    write(&root.path().join(".staging/x.jsonl"), b"{}\n");
    commit().unwrap();
    commit().unwrap();
    assert!(FileCommitter.commit(&[committable], &NoStorage, &|| true).unwrap_err().is_retryable());
}

#[test]
fn rows_that_are_taken_back_cannot_go_to_files() {
    assert!(FileSink::json("x").takes(0, &Mode::Append));
    assert!(!FileSink::json("x").takes(0, &Mode::Retract));
}
