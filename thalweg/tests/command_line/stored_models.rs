//! A model and its references in an object store.

use std::path::Path;
use std::time::{Duration, Instant};

use thalweg::engine::Secret;
use thalweg::engine::checkpoint::azure::{AzureAuth, AzureBlobStorage, AzureConfig};
use thalweg::engine::checkpoint::{Cancellation, CheckpointStorage};
use thalweg::operators::tensor::ReferenceMatrix;
use thalweg::operators::tensor::thalweg_tensor::random_encoder::RandomEncoder;
use thalweg_testkit::Azurite;

use crate::running::{rows_of, start};

/// Texts without an end; a reload shows in the ids of the neighbours.
const JOB: &str = "
job: stored
checkpoint: {interval: 100ms, store: az://models/stored/checkpoints}
sources:
  texts: {kind: generator, rows_per_second: 2000, columns: {id: sequence, text: {text: {min_bytes: 1, max_bytes: 20}}}}
steps:
  embedded: {kind: embed, input: texts, column: text, model: az://models/stored/encoder, device: cpu, max_delay: 2ms}
  placed: {kind: nearest, input: embedded, embedding: embedding, references: az://models/stored/references.safetensors, reload_every: 100ms, k: 1, device: cpu}
  shown: {kind: project, input: placed, columns: [id, neighbours]}
sinks:
  files: {kind: file, input: shown, path: out, format: json}
";

const WIDTH: usize = 32;

/// Two vectors with these ids.
fn references(directory: &Path, ids: [i64; 2]) -> std::path::PathBuf {
    let vectors: Vec<f32> = (0..2 * WIDTH).map(|at| ((at * 7 % 13) as f32) - 6.0).collect();
    let matrix = ReferenceMatrix::new("references", WIDTH, vectors.into(), ids.to_vec().into()).unwrap();
    let path = directory.join(format!("references-{}.safetensors", ids[0]));
    matrix.write(&path).unwrap();
    path
}

/// Puts the files of a directory and those below it.
fn put_all(store: &dyn CheckpointStorage, directory: &Path, prefix: &str) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}/{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            put_all(store, &path, &name);
        } else {
            store.put_file(&name, &path, &Cancellation::default()).unwrap();
        }
    }
}

#[test]
fn a_model_is_read_from_a_store_and_new_references_in_it_are_taken_over_at_a_barrier() {
    let azurite = Azurite::shared().unwrap();
    let sas = azurite.account_sas().unwrap();
    let config = AzureConfig {
        endpoint: Some(azurite.endpoint().to_owned()),
        create_container: true,
        ..AzureConfig::new(AzureAuth::Sas(Secret::new(sas.clone())))
    };
    let store = AzureBlobStorage::open("models", "stored", &config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("encoder");
    std::fs::create_dir(&model).unwrap();
    RandomEncoder { hidden: WIDTH, ..RandomEncoder::default() }.write(&model).unwrap();
    put_all(&store, &model, "encoder");
    let put = |path: &Path| store.put_file("references.safetensors", path, &Cancellation::default()).unwrap();
    put(&references(directory.path(), [1, 2]));

    let cache = directory.path().join("cache").display().to_string();
    let running = start(
        directory.path(),
        JOB,
        &[
            ("AZURE_STORAGE_ENDPOINT", azurite.endpoint()),
            ("AZURE_STORAGE_SAS_TOKEN", &sas),
            ("THALWEG_MODEL_CACHE", &cache),
        ],
    );
    running.wait_for("checkpoints_completed_total", 2);
    // As long as the one before it.
    put(&references(directory.path(), [1001, 1002]));
    let out = directory.path().join("out");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !rows_of(&out).iter().any(is_new) {
        assert!(Instant::now() < deadline, "the new references are not taken over");
        std::thread::sleep(Duration::from_millis(50));
    }
    running.signal(libc::SIGTERM);
    let (exit, log) = running.end();
    assert_eq!(exit, Some(143), "{log}");
    assert!(!log.contains(&sas) && !log.contains("sig="), "the log says a secret: {log}");

    let mut rows = rows_of(&out);
    rows.sort_by_key(|row| row["id"].as_u64());
    assert!(rows.iter().enumerate().all(|(index, row)| row["id"] == index as u64), "gaps or copies");
    let switched = rows.iter().position(is_new).unwrap();
    assert!(switched > 0, "the first references were never used");
    assert!(rows[switched..].iter().all(is_new), "old references again behind row {switched}");
}

fn is_new(row: &serde_json::Value) -> bool {
    let neighbour = row["neighbours"][0].as_i64().unwrap();
    assert!([1, 2, 1001, 1002].contains(&neighbour), "{row}");
    neighbour > 1000
}
