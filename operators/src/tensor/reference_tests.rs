//! Reference matrices that change while the job runs.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use thalweg_engine::Result;
use thalweg_engine::harness::{HarnessInput, OperatorHarness};
use thalweg_engine::operator::{Operator, OperatorFactory};
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::time::{Micros, SECOND};
use thalweg_tensor::op::Metric;
use thalweg_tensor::{Element, Graph, GraphBuilder, ReferenceMatrix};

use super::compute::{Compute, Computed};
use super::pipeline::{Pipeline, Setup};
use super::*;

/// Answers with the first id of its reference.
struct FirstId {
    references: Arc<References>,
    rows: Vec<usize>,
}

impl Compute for FirstId {
    fn submit(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows.push(rows.num_rows());
        Ok(())
    }
    fn finish(&mut self) -> Result<Option<Computed>> {
        let Some(rows) = self.rows.pop() else { return Ok(None) };
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![self.references.matrices[0].ids()[0]; rows]));
        Ok(Some(Computed { columns: vec![ids], ..Computed::default() }))
    }
    fn set_references(&mut self, references: &Arc<References>) -> Result<()> {
        self.references = references.clone();
        Ok(())
    }
    fn device_bytes(&self) -> usize {
        0
    }
}

fn graph() -> Graph {
    let mut graph = GraphBuilder::new();
    let query = graph.tensor("query", Element::F32, [2]).unwrap();
    let topics = graph.reference("topics", 2).unwrap();
    let (ids, _) = graph.top_k(query, topics, Metric::Cosine, 1).unwrap();
    graph.output("topic", ids).unwrap();
    graph.build().unwrap()
}

fn write(path: &Path, id: i64) {
    let matrix = ReferenceMatrix::new("topics", 2, vec![1.0, id as f32].into(), vec![id].into()).unwrap();
    matrix.write(path).unwrap();
}

fn watched(path: &Path) -> ReferenceSource {
    ReferenceSource::Watched { file: Artifact::new(path.display().to_string()), every: Some(SECOND) }
}

struct Nearest(Arc<ReferenceWatch>);

impl OperatorFactory for Nearest {
    fn name(&self) -> String {
        "nearest".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Pipeline::new(Setup {
            batching: Arc::new(Batching { rows_max: 1, ..Batching::default() }),
            on_bad_row: OnBadRow::Fail,
            output: self.outputs(&[])?[0].schema.clone(),
            dead_letters: None,
            bucketed_by: None,
            inline: true,
            provenance: Provenance::new(Fingerprint::default(), false, self.0.clone(), true),
            compute: Box::new(|_, provenance| {
                Ok(Box::new(FirstId { references: provenance.references().clone(), rows: Vec::new() }))
            }),
        })))
    }
    fn outputs(&self, _: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let fields = ["n", "topic"].map(|name| Field::new(name, DataType::Int64, false));
        Ok(vec![EdgeSchema::new(Arc::new(Schema::new(fields.to_vec())))])
    }
}

fn row() -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap()
}

fn builder(path: &Path) -> thalweg_engine::harness::HarnessBuilder {
    let watch = ReferenceWatch::open(&graph(), &[("topics".into(), watched(path))]).unwrap();
    OperatorHarness::builder(Nearest(watch), vec![HarnessInput::new(EdgeSchema::new(row().schema()))])
}

fn answer(harness: &mut OperatorHarness) -> i64 {
    harness.push_batch(0, row()).unwrap();
    harness.take_batches(0)[0].column(1).as_primitive::<Int64Type>().value(0)
}

const LOOKED: Micros = 2 * SECOND;

#[test]
fn a_new_version_is_taken_over_at_the_next_barrier_and_a_restore_goes_on_with_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.safetensors");
    write(&path, 7);
    let mut harness = builder(&path).open().unwrap();
    assert_eq!(answer(&mut harness), 7);
    let before = harness.snapshot().unwrap();
    write(&path, 8);
    assert_eq!(answer(&mut harness), 7, "nobody has looked");
    harness.advance_to(LOOKED).unwrap();
    assert_eq!(answer(&mut harness), 7, "no barrier has come");
    let after = harness.snapshot().unwrap();
    assert_eq!(answer(&mut harness), 8);

    // What was computed with a version is computed with it again, also when the file is newer.
    let mut restored = builder(&path).restore(&before).unwrap();
    assert_eq!(answer(&mut restored), 7);
    let next = restored.snapshot().unwrap();
    assert_eq!(answer(&mut restored), 8, "the version that there is by now");
    drop(next);
    write(&path, 9);
    let mut restored = builder(&path).parallelism(2).restore(&after).unwrap();
    assert_eq!(answer(&mut restored), 8);
}

#[test]
fn a_file_that_cannot_be_read_or_does_not_fit_leaves_the_version_that_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.safetensors");
    write(&path, 17);
    let mut harness = builder(&path).open().unwrap();
    std::fs::write(&path, b"half a file").unwrap();
    harness.advance_to(LOOKED).unwrap();
    harness.snapshot().unwrap();
    assert_eq!(answer(&mut harness), 17);
    ReferenceMatrix::new("topics", 3, vec![0.0; 3].into(), vec![1].into()).unwrap().write(&path).unwrap();
    harness.advance_to(2 * LOOKED).unwrap();
    harness.snapshot().unwrap();
    assert_eq!(answer(&mut harness), 17);
    write(&path, 18);
    harness.advance_to(3 * LOOKED).unwrap();
    harness.snapshot().unwrap();
    assert_eq!(answer(&mut harness), 18);
}

#[test]
fn what_is_missing_or_has_another_width_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.safetensors");
    let error = |given: &[(String, ReferenceSource)]| {
        ReferenceWatch::open(&graph(), given).map(drop).unwrap_err().to_string()
    };
    assert!(error(&[]).contains("the graph needs the reference matrix `topics`"));
    assert!(error(&[("topics".into(), watched(&path))]).contains("cannot read"));
    let wide = ReferenceMatrix::new("topics", 3, vec![0.0; 3].into(), vec![1].into()).unwrap();
    let wide = error(&[("topics".into(), wide.into())]);
    assert!(wide.contains("its vectors have 3 elements, the graph wants 2"), "{wide}");
}

#[test]
fn of_a_directory_the_last_name_counts_and_objects_are_fetched_once() {
    let directory = tempfile::tempdir().unwrap();
    let in_directory = Artifact::new(format!("{}/", directory.path().display()));
    write(&directory.path().join("v1.safetensors"), 1);
    write(&directory.path().join("v2.safetensors"), 2);
    let (path, hash) = in_directory.kept().unwrap();
    assert_eq!(ReferenceMatrix::read("topics", &path).unwrap().ids(), [2]);
    assert_eq!(in_directory.hash().unwrap(), hash);

    // The cache outlives the test: a name that no earlier run had.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let name = format!("memory:artifact-{}-{}", std::process::id(), now.as_nanos());
    let options = thalweg_engine::checkpoint::StoreOptions::from_environment();
    let store = thalweg_engine::checkpoint::open(&name, &options).unwrap();
    store.put("model.bin", "one".into()).unwrap();
    let object = Artifact::new(name.as_str()).file("model.bin");
    let path = object.path().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one");
    store.put("model.bin", "two".into()).unwrap();
    assert_eq!(object.path().unwrap(), path, "one of this name and length is in the cache");
    assert_eq!(std::fs::read(object.kept().unwrap().0).unwrap(), b"two", "what is watched is fetched anew");
    let missing = Artifact::new(name.as_str()).file("no.bin").path().unwrap_err().to_string();
    assert!(missing.contains(&format!("there is no object {name}/no.bin")), "{missing}");
}
