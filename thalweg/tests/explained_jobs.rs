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
