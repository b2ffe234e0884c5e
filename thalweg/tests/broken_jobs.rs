//! Every broken job file under `tests/broken` gives exactly its message: `NAME.yaml` gives
//! `NAME.expected`. `UPDATE_EXPECTED=1` writes what is said now; read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use thalweg::config::Environment;
use thalweg::job::load_text;

/// An environment that is the same everywhere.
struct Fixed;

impl Environment for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "PASSWORD").then(|| "hunter2".to_string())
    }

    fn file(&self, _path: &str) -> std::io::Result<String> {
        Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no such file"))
    }
}

#[test]
fn every_broken_job_gives_its_message() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut names: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().to_str().unwrap().strip_suffix(".yaml").map(String::from)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{} broken jobs", names.len());
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut different = Vec::new();
    for name in names {
        let text = std::fs::read_to_string(directory.join(format!("{name}.yaml"))).unwrap();
        let said = match load_text(&text, &format!("{name}.yaml"), Path::new("/jobs"), &Fixed) {
            Ok(_) => "no mistakes\n".to_string(),
            Err(mistakes) => format!("{mistakes}\n"),
        };
        assert!(!said.contains("hunter2"), "{name} shows a secret:\n{said}");
        assert!(said != "no mistakes\n", "{name} is not broken");
        let expected = directory.join(format!("{name}.expected"));
        if update {
            std::fs::write(expected, said).unwrap();
        } else if std::fs::read_to_string(expected).unwrap_or_default() != said {
            different.push(format!("{name}.yaml says\n{said}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
