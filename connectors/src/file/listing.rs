//! Which files a path names. The first listing that an enumerator hears fixes its splits.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thalweg_engine::source::{Discovery, SplitId, SplitState};
use thalweg_engine::time::{HOUR, Micros};
use thalweg_engine::{Error, Result};

use super::{FilePosition, io_error};
use crate::position;

/// What a look has found.
#[derive(Serialize, Deserialize)]
enum Found {
    /// Paths and their lengths in bytes, sorted by path.
    Files(Vec<(String, u64)>),
    /// Why there is nothing to read: it fails the job, which would otherwise wait for ever.
    Nothing(String),
}

pub(super) struct FileListing {
    path: PathBuf,
}

impl FileListing {
    pub(super) fn new(path: PathBuf) -> FileListing {
        FileListing { path }
    }
}

impl Discovery for FileListing {
    fn look(&mut self) -> Result<Option<Vec<u8>>> {
        let found = match list(&self.path) {
            Ok(files) => Found::Files(files),
            Err(error) => Found::Nothing(error.to_string()),
        };
        position::encode(&found).map(Some)
    }

    fn interval(&self) -> Micros {
        HOUR
    }
}

/// The splits of a look.
pub(super) fn read(found: &[u8]) -> Result<Vec<SplitState>> {
    match position::decode(found, "the list of files")? {
        Found::Nothing(reason) => Err(Error::user(reason)),
        Found::Files(files) => files
            .into_iter()
            .map(|(path, bytes)| {
                let position = FilePosition { bytes, next: 0, line: 1 };
                position.state(SplitId(path.into()))
            })
            .collect(),
    }
}

fn list(path: &Path) -> Result<Vec<(String, u64)>> {
    let text = path.to_str().ok_or_else(|| Error::user(format!("{path:?} is not UTF-8")))?;
    let mut files = Vec::new();
    if path.is_file() {
        add(path, &mut files)?;
        return Ok(files);
    }
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|error| io_error(path, "cannot list", error))?;
        for entry in entries {
            let entry = entry.map_err(|error| io_error(path, "cannot list", error))?.path();
            add_visible(&entry, &mut files)?;
        }
    } else {
        let matches = glob::glob(text)
            .map_err(|error| Error::user(format!("{text}: not a path or glob")).caused_by(error))?;
        for entry in matches {
            let entry = entry.map_err(|error| io_error(path, "cannot list", error.into()))?;
            add_visible(&entry, &mut files)?;
        }
    }
    if files.is_empty() {
        return Err(Error::user(format!(
            "{text}: there is no such file, nor a directory or glob with files"
        )));
    }
    files.sort();
    Ok(files)
}

fn add_visible(path: &Path, files: &mut Vec<(String, u64)>) -> Result<()> {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with(['.', '_']));
    if hidden || !path.is_file() { Ok(()) } else { add(path, files) }
}

fn add(path: &Path, files: &mut Vec<(String, u64)>) -> Result<()> {
    let bytes = path.metadata().map_err(|error| io_error(path, "cannot look at it", error))?.len();
    let text = path.to_str().ok_or_else(|| Error::user(format!("{path:?} is not UTF-8")))?;
    files.push((text.to_string(), bytes));
    Ok(())
}
