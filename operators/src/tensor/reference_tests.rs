//! Reference matrices that change while the job runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use thalweg_engine::harness::{HarnessInput, OperatorHarness};
use thalweg_engine::operator::{Operator, OperatorFactory};
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::state::StateIdentity;
use thalweg_engine::time::{Micros, SECOND};
use thalweg_engine::{Error, Result};
use thalweg_tensor::op::Metric;
use thalweg_tensor::{Element, Graph, GraphBuilder, ReferenceMatrix};

use super::compute::{Compute, Computed};
use super::pipeline::{Pipeline, Setup};
use super::*;

/// The id of a reference for which there is no room.
const TOO_LARGE: i64 = 99;

/// Answers with the first id of its reference.
struct FirstId {
    references: Arc<References>,
    expected: Vec<i64>,
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
    fn expect_references(&mut self, references: &References) -> Result<()> {
        let id = references.matrices[0].ids()[0];
        assert!(!self.expected.contains(&id), "told twice");
        self.expected.push(id);
        if id == TOO_LARGE { Err(Error::external("it does not fit")) } else { Ok(()) }
    }
    fn set_references(&mut self, references: &Arc<References>) -> Result<()> {
        let id = references.matrices[0].ids()[0];
        assert!(id != TOO_LARGE && self.expected.last() == Some(&id), "it was told beforehand, and fits");
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

fn cache_beside(path: &Path) -> PathBuf {
    path.parent().unwrap().join("cache")
}

fn watched(path: &Path) -> ReferenceSource {
    let file = Artifact::new(path.display().to_string()).cached_in(cache_beside(path));
    ReferenceSource::Watched { file, every: Some(SECOND) }
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
                Ok(Box::new(FirstId {
                    references: provenance.references().clone(),
                    expected: Vec::new(),
                    rows: Vec::new(),
                }))
            }),
        })))
    }
    fn outputs(&self, _: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let fields = ["n", "topic"].map(|name| Field::new(name, DataType::Int64, false));
        Ok(vec![EdgeSchema::new(Arc::new(Schema::new(fields.to_vec())))])
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        Some(StateIdentity::of("nearest"))
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
fn references_for_which_there_is_no_room_are_not_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.safetensors");
    write(&path, 7);
    let mut harness = builder(&path).open().unwrap();
    write(&path, TOO_LARGE);
    harness.advance_to(LOOKED).unwrap();
    let snapshot = harness.snapshot().unwrap();
    assert_eq!(answer(&mut harness), 7);
    write(&path, 8);
    harness.advance_to(2 * LOOKED).unwrap();
    harness.snapshot().unwrap();
    assert_eq!(answer(&mut harness), 8, "the next one fits");
    // Nor does the checkpoint name what never was in use.
    let mut restored = builder(&path).restore(&snapshot).unwrap();
    assert_eq!(answer(&mut restored), 7);
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
    let cache = tempfile::tempdir().unwrap();
    let in_directory = Artifact::new(format!("{}/", directory.path().display())).cached_in(cache.path());
    std::fs::create_dir(directory.path().join("v3")).unwrap();
    write(&directory.path().join("v1.safetensors"), 1);
    write(&directory.path().join("v2.safetensors"), 2);
    let (path, hash) = in_directory.kept().unwrap();
    assert_eq!(ReferenceMatrix::open("topics", &path).unwrap().ids(), [2]);
    write(&directory.path().join("v3.safetensors"), 3);
    assert_ne!(in_directory.kept().unwrap().1, hash);

    let name = "memory:artifact".to_string();
    let options = thalweg_engine::checkpoint::StoreOptions::from_environment();
    let store = thalweg_engine::checkpoint::open(&name, &options).unwrap();
    store.put("model.bin", "one".into()).unwrap();
    let object = Artifact::new(name.as_str()).cached_in(cache.path()).file("model.bin");
    let path = object.path().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one");
    // What stands in the cache now comes from nowhere else.
    std::fs::write(&path, b"eno").unwrap();
    assert_eq!(std::fs::read(object.kept().unwrap().0).unwrap(), b"eno", "fetched again");
    store.put("model.bin", "two".into()).unwrap();
    assert_eq!(std::fs::read(object.path().unwrap()).unwrap(), b"two", "as long, and another");
    let missing = Artifact::new(name.as_str()).file("no.bin").path().unwrap_err().to_string();
    assert!(missing.contains(&format!("there is no object {name}/no.bin")), "{missing}");
}

#[test]
fn a_file_is_read_again_when_its_time_or_length_is_another_or_it_is_new() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.safetensors");
    let aged = |seconds: u64| {
        let file = std::fs::File::open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    write(&path, 7);
    aged(1_000);
    let watch = ReferenceWatch::open(&graph(), &[("topics".into(), watched(&path))]).unwrap();
    let mut now = 0;
    let mut seen = || {
        now += LOOKED;
        watch.look(now, true).unwrap();
        watch.latest().matrices[0].ids()[0]
    };
    write(&path, 8);
    aged(1_000);
    assert_eq!(seen(), 7, "of the same time and length: it was read");
    aged(1_001);
    assert_eq!(seen(), 8);
    // Written just now: it may be written again without a change that shows.
    write(&path, 9);
    assert_eq!(seen(), 9);
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    write(&path, 10);
    std::fs::File::open(&path).unwrap().set_modified(written).unwrap();
    assert_eq!(seen(), 10);
}

#[test]
fn a_file_is_looked_at_when_the_clock_was_set_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.safetensors");
    write(&path, 7);
    let watch = ReferenceWatch::open(&graph(), &[("topics".into(), watched(&path))]).unwrap();
    watch.look(1_000 * LOOKED, true).unwrap();
    write(&path, 8);
    watch.look(LOOKED, true).unwrap();
    assert_eq!(watch.latest().matrices[0].ids()[0], 8);
}

#[test]
fn a_file_of_a_model_that_need_not_be_there_may_be_missing_but_not_unreachable() {
    let cache = tempfile::tempdir().unwrap();
    let options = thalweg_engine::checkpoint::StoreOptions::from_environment();
    let store = thalweg_engine::checkpoint::open("memory:optional-files", &options).unwrap();
    store.put("config.json", "{}".into()).unwrap();
    let model = Artifact::new("memory:optional-files").cached_in(cache.path());
    let directory = model.directory([("config.json", true), ("modules.json", false)]).unwrap();
    assert!(directory.join("config.json").is_file() && !directory.join("modules.json").exists());
    let error = model.directory([("model.safetensors", true)]).unwrap_err().to_string();
    assert!(error.contains("there is no object memory:optional-files/model.safetensors"), "{error}");
    // Else the model would quietly be another one.
    let unreachable = Artifact::new("nowhere://models/small").cached_in(cache.path());
    assert!(unreachable.directory([("modules.json", false)]).is_err());
}

#[test]
fn a_copy_in_the_cache_that_is_damaged_is_as_one_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.safetensors");
    write(&path, 7);
    let mut harness = builder(&path).open().unwrap();
    let snapshot = harness.snapshot().unwrap();
    write(&path, 8);
    for blob in std::fs::read_dir(cache_beside(&path).join("blobs")).unwrap().flatten() {
        std::fs::write(blob.path(), b"").unwrap();
    }
    let mut restored = builder(&path).restore(&snapshot).unwrap();
    assert_eq!(answer(&mut restored), 8);
}

#[test]
fn what_is_read_for_one_instance_is_there_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.safetensors");
    let open = || ReferenceWatch::open(&graph(), &[("topics".into(), watched(&path))]).unwrap();
    write(&path, 7);
    let before = open().latest();
    write(&path, 8);
    let watch = open();
    let [one, other] = [(), ()].map(|()| watch.restore(1, &before.versions).unwrap());
    assert_eq!(one.matrices[0].ids(), [7]);
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!((one.sequence, watch.latest().sequence), (1, 2), "the newer one comes at the next barrier");
    assert_eq!(watch.bytes(), 2 * 2 * size_of::<f32>(), "old and new are there at once");
}

#[test]
fn a_file_that_is_cut_short_while_it_is_in_use_is_still_there_for_who_uses_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.safetensors");
    // Large enough to lie on pages of its own, which are gone when the file is cut.
    let many = 4_096;
    let vectors: Vec<f32> = (0..many).flat_map(|n| [n as f32, 1.0]).collect();
    let ids: Vec<i64> = (0..many).collect();
    ReferenceMatrix::new("topics", 2, vectors.into(), ids.into()).unwrap().write(&path).unwrap();
    let watch = ReferenceWatch::open(&graph(), &[("topics".into(), watched(&path))]).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    let sum: f32 = watch.latest().matrices[0].vectors().iter().skip(1).step_by(2).sum();
    assert_eq!(sum, many as f32);
}
