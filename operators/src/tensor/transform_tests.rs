//! Transforms with real graphs on the CPU: text to vectors, neighbours, what is refused and when.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch, StringViewArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema};
use thalweg_engine::harness::{HarnessInput, OperatorHarness};
use thalweg_engine::operator::OperatorFactory;
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::time::MILLI;
use thalweg_tensor::op::Metric;
use thalweg_tensor::random_encoder::RandomEncoder;
use thalweg_tensor::{CpuBackend, Element, GraphBuilder, ReferenceMatrix, SentenceEncoder, Weights};

use super::*;

fn encoder(seed: u64) -> SentenceEncoder {
    let directory = tempfile::tempdir().unwrap();
    RandomEncoder { seed, ..RandomEncoder::default() }.write(directory.path()).unwrap();
    SentenceEncoder::open(directory.path(), Element::F32).unwrap()
}

fn embed(seed: u64) -> Transform {
    let transform = Transform::embed("title", &encoder(seed)).unwrap();
    transform.backend(Arc::new(CpuBackend::new())).batch(4).inline()
}

fn titles(titles: &[Option<&str>]) -> RecordBatch {
    let offsets: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(0..titles.len() as i64));
    let titles: ArrayRef = Arc::new(StringViewArray::from_iter(titles.iter().copied()));
    RecordBatch::try_from_iter_with_nullable([("kafka_offset", offsets, false), ("title", titles, true)])
        .unwrap()
}

fn input() -> Vec<HarnessInput> {
    vec![HarnessInput::new(EdgeSchema::new(titles(&[]).schema()))]
}

fn vectors(batches: &[RecordBatch]) -> Vec<Vec<f32>> {
    let all = batches.iter().flat_map(|batch| {
        let column = batch.column(2).as_fixed_size_list();
        let width = column.value_length() as usize;
        column
            .values()
            .as_primitive::<Float32Type>()
            .values()
            .chunks(width)
            .map(<[f32]>::to_vec)
            .collect::<Vec<_>>()
    });
    all.collect()
}

#[test]
fn texts_become_unit_vectors_whatever_batch_they_are_in() {
    let texts = ["the cat", "the red dog near the river", "the cat", "", "water"].map(Some);
    let mut harness = OperatorHarness::new(embed(1), input()).unwrap();
    harness.push_batch(0, titles(&texts)).unwrap();
    harness.advance_to(5 * MILLI).unwrap();
    let together = vectors(&harness.take_batches(0));
    assert_eq!(together.len(), 5);
    for vector in &together {
        assert_eq!(vector.len(), 32);
        assert!((vector.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-4);
    }
    assert_eq!(together[0], together[2]);
    assert_ne!(together[0], together[1]);
    for (text, wanted) in texts.iter().zip(&together) {
        harness.push_batch(0, titles(&[*text])).unwrap();
        harness.snapshot().unwrap();
        let alone = vectors(&harness.take_batches(0)).remove(0);
        assert!(alone.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{text:?}");
    }
    assert_eq!(harness.metrics().total("tensor_rows_total"), 10);
    assert!(harness.metrics().total("tensor_device_bytes") > 0);
}

#[test]
fn a_null_text_says_its_column_and_where_it_came_from() {
    let mut harness = OperatorHarness::new(embed(1).batch(2), input()).unwrap();
    let error = harness.push_batch(0, titles(&[Some("cat"), None])).unwrap_err().to_string();
    assert!(error.contains("column \"title\"") && error.contains("(from offset 1)"), "{error}");
    assert!(error.contains("null"), "{error}");
    let dropping = embed(1).batch(2).on_bad_row(OnBadRow::Drop);
    let mut harness = OperatorHarness::new(dropping, input()).unwrap();
    harness.push_batch(0, titles(&[Some("cat"), None, None, None])).unwrap();
    assert_eq!(vectors(&harness.take_batches(0)).len(), 1);
    assert_eq!(harness.metrics().total("tensor_rejected_rows_total"), 3);
}

#[test]
fn a_checkpoint_remembers_weights_and_tokenizer() {
    let mut harness = OperatorHarness::builder(embed(1), input()).open().unwrap();
    let snapshot = harness.snapshot().unwrap();
    OperatorHarness::builder(embed(1), input()).restore(&snapshot).map(drop).unwrap();
    let error =
        OperatorHarness::builder(embed(2), input()).restore(&snapshot).map(drop).unwrap_err().to_string();
    let hashes =
        [embed(1), embed(2)].map(|transform| transform.fingerprint().unwrap().weights[..16].to_string());
    assert!(error.contains(&format!("it has weights {}, not {}", hashes[0], hashes[1])), "{error}");
    let allowed = embed(2).allow_changed_weights(true);
    OperatorHarness::builder(allowed, input()).restore(&snapshot).map(drop).unwrap();
}

#[test]
fn what_does_not_fit_is_refused_when_the_job_is_built() {
    let edge = EdgeSchema::new(titles(&[]).schema());
    let refused = |transform: Transform, edge: &EdgeSchema| {
        transform.outputs(std::slice::from_ref(edge)).unwrap_err().to_string()
    };
    let error = refused(Transform::embed("text", &encoder(1)).unwrap(), &edge);
    assert_eq!(error, "there is no column \"text\"; the columns are kafka_offset, title");
    let error = refused(Transform::embed("kafka_offset", &encoder(1)).unwrap(), &edge);
    assert!(error.contains("Int64") && error.contains("Utf8"), "{error}");
    let error = refused(embed(1).output("embedding", "title"), &edge);
    assert_eq!(error, "column \"title\" is there already");
    let error = refused(embed(1).batch(0), &edge);
    assert_eq!(error, "a batch must have room for a row");
    let error = refused(embed(1).reference("topics", nearest_topics()), &edge);
    assert_eq!(error, "the graph has no reference matrix `topics`");
    let error = Transform::embed_cut("title", &encoder(1), 1_000).map(drop).unwrap_err().to_string();
    assert_eq!(error, "the model takes texts of 64 tokens, not of 1000");
}

#[test]
fn rows_that_replace_or_take_back_others_want_order_and_a_reference_that_stays() {
    use thalweg_engine::record::Mode;
    let upsert = Mode::Upsert(vec!["id".into()]);
    let takes =
        |transform: &Transform| [&Mode::Append, &upsert, &Mode::Retract].map(|mode| transform.takes(0, mode));
    assert_eq!(takes(&embed(1)), [true; 3]);
    assert_eq!(takes(&embed(1).on_bad_row(OnBadRow::Drop)), [true, false, false]);
    let buckets = Batching { buckets: vec![8], ordered: false, ..Batching::default() };
    assert_eq!(takes(&embed(1).batching(buckets.clone())), [true, false, false]);
    assert_eq!(takes(&embed(1).batching(Batching { ordered: true, ..buckets })), [true; 3]);
    let watched = |every| ReferenceSource::Watched { file: Artifact::new("topics"), every };
    assert_eq!(takes(&embed(1).reference("topics", watched(Some(1)))), [true, true, false]);
    assert_eq!(takes(&embed(1).reference("topics", watched(None))), [true; 3]);
}

fn nearest_topics() -> ReferenceMatrix {
    ReferenceMatrix::new("topics", 2, vec![1.0, 0.0, 0.0, 1.0].into(), vec![70, 71].into()).unwrap()
}

#[test]
fn rows_find_their_nearest_and_keep_their_other_columns() {
    let mut graph = GraphBuilder::new();
    let query = graph.tensor("embedding", Element::F32, [2]).unwrap();
    let topics = graph.reference("topics", 2).unwrap();
    let (ids, scores) = graph.top_k(query, topics, Metric::Cosine, 2).unwrap();
    graph.output("topics", ids).unwrap();
    graph.output("scores", scores).unwrap();
    let graph = Arc::new(graph.build().unwrap());
    for inline in [true, false] {
        let transform = Transform::new(graph.clone(), Arc::new(Weights::default()))
            .backend(Arc::new(CpuBackend::new()))
            .reference("topics", nearest_topics());
        let transform = if inline { transform.inline() } else { transform };
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let values = Float32Array::from(vec![3.0, 4.0, 0.0, -1.0]);
        let column: ArrayRef = Arc::new(FixedSizeListArray::new(item, 2, Arc::new(values), None));
        let names: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b"]));
        let fields = vec![
            Field::new("name", DataType::Utf8View, false),
            Field::new("embedding", column.data_type().clone(), false),
        ];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![names, column]).unwrap();
        let input = vec![HarnessInput::new(EdgeSchema::new(rows.schema()))];
        let mut harness = OperatorHarness::new(transform, input).unwrap();
        harness.push_batch(0, rows).unwrap();
        harness.snapshot().unwrap();
        let out = harness.take_batches(0).remove(0);
        assert_eq!(out.column(0).as_string_view().value(1), "b");
        let ids = out.column(2).as_fixed_size_list().values().as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(ids, [71, 70, 70, 71]);
        let scores =
            out.column(3).as_fixed_size_list().values().as_primitive::<Float32Type>().values().to_vec();
        for (score, wanted) in scores.iter().zip([0.8, 0.6, 0.0, -1.0]) {
            assert!((score - wanted).abs() < 1e-5, "{scores:?}");
        }
    }
}
