//! What `explain` prints of each example job: `tests/explained/NAME.txt`. `UPDATE_EXPECTED=1`
//! writes what is printed now; read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use thalweg::config::Environment;
use thalweg::job::{explain, load_text};

/// An environment that is the same everywhere.
struct Fixed;

impl Environment for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "OUT").then(|| "/out".to_string())
    }

    fn file(&self, _path: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

#[test]
fn every_example_is_explained_the_same_every_time() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let jobs = root.join("../examples/jobs");
    let mut names: Vec<String> = std::fs::read_dir(&jobs)
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().to_str().unwrap().strip_suffix(".yaml").map(String::from)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 5, "{} examples", names.len());
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    for name in names {
        let text = std::fs::read_to_string(jobs.join(format!("{name}.yaml"))).unwrap();
        let load = || {
            load_text(&text, &format!("{name}.yaml"), Path::new("/jobs"), &Fixed).map_err(|m| m.to_string())
        };
        let printed = explain(&load().unwrap());
        assert_eq!(printed, explain(&load().unwrap()), "{name}");
        let expected = root.join("tests/explained").join(format!("{name}.txt"));
        if update {
            std::fs::write(expected, printed).unwrap();
        } else {
            assert_eq!(std::fs::read_to_string(expected).unwrap_or_default(), printed, "{name}");
        }
    }
}

/// A model and topics of random weights, in a directory.
struct Given(tempfile::TempDir);

impl Environment for Given {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "OUT" => Some("/out".to_string()),
            "MODEL" => Some(self.0.path().display().to_string()),
            "REFERENCES" => Some(self.0.path().join("topics.safetensors").display().to_string()),
            _ => None,
        }
    }

    fn file(&self, _path: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

#[test]
fn a_transform_is_explained_with_device_graph_weights_and_memory() {
    use thalweg::operators::tensor::thalweg_tensor::random_encoder::RandomEncoder;
    use thalweg::operators::tensor::{Element, ReferenceMatrix, SentenceEncoder};

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = Given(tempfile::tempdir().unwrap());
    RandomEncoder::default().write(given.0.path()).unwrap();
    let width = SentenceEncoder::open(given.0.path(), Element::F32).unwrap().width();
    let topics = ReferenceMatrix::new("references", width, vec![0.5; 2 * width].into(), vec![0, 1].into());
    topics.unwrap().write(&given.0.path().join("topics.safetensors")).unwrap();
    let text = std::fs::read_to_string(root.join("../examples/tensor/notices.yaml")).unwrap();
    let job = load_text(&text, "notices.yaml", Path::new("/jobs"), &given);
    let printed = explain(&job.unwrap_or_else(|mistakes| panic!("{mistakes}")));
    let printed = printed.replace(&given.0.path().display().to_string(), "/model");
    let expected = root.join("tests/explained/tensor_notices.expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(expected, printed).unwrap();
    } else {
        assert_eq!(std::fs::read_to_string(expected).unwrap_or_default(), printed);
    }
}
