//! The jobs, and the environment that they are loaded in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use thalweg::config::{Environment, Mistakes};
use thalweg::job::{LoadedJob, load_text};
use thalweg::operators::tensor::thalweg_tensor::random_encoder::RandomEncoder;
use thalweg::operators::tensor::{Element, ReferenceMatrix, SentenceEncoder};

/// The jobs that hold every key.
pub const JOBS: [(&str, &str); 2] =
    [("streams.yaml", include_str!("streams.yaml")), ("tensors.yaml", include_str!("tensors.yaml"))];

/// An environment that is the same everywhere.
pub struct Given {
    pub variables: BTreeMap<&'static str, String>,
}

impl Environment for Given {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn file(&self, _path: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// A model of random weights and a reference matrix, made once.
fn model() -> &'static Path {
    static MODEL: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = MODEL.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        RandomEncoder::default().write(directory.path()).unwrap();
        let width = SentenceEncoder::open(directory.path(), Element::F32).unwrap().width();
        let topics =
            ReferenceMatrix::new("references", width, vec![0.5; 2 * width].into(), vec![0, 1].into());
        topics.unwrap().write(&directory.path().join("topics.safetensors")).unwrap();
        directory
    });
    directory.path()
}

/// The environment, with a canary when there is to be one.
pub fn given(canary: Option<&str>) -> Given {
    let file = |name: &str| model().join(name).display().to_string();
    let mut variables = BTreeMap::from([
        ("MODEL", model().display().to_string()),
        ("REFERENCES", file("topics.safetensors")),
        ("WEIGHTS", file("topics.safetensors")),
        ("TOKENIZER", file("tokenizer.json")),
    ]);
    variables.extend(canary.map(|canary| ("ELSEWHERE", canary.to_string())));
    Given { variables }
}

/// Loads a job.
pub fn load(name: &str, text: &str, given: &Given) -> Result<LoadedJob, Mistakes> {
    load_text(text, name, &PathBuf::from("/jobs"), given)
}
