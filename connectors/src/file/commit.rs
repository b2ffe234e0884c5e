//! Commits staged files by renaming them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thalweg_engine::checkpoint::CheckpointStorage;
use thalweg_engine::sink::{Committable, Committer};
use thalweg_engine::{Error, Result};

use super::staged::staged_path;
use super::{io_error, sync_directory};
use crate::position;

/// A file sink's committable.
#[derive(Serialize, Deserialize)]
pub(super) struct Prepared {
    pub(super) directory: PathBuf,
    pub(super) files: Vec<CommittedFile>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct CommittedFile {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// Renames files into their directory. One that is there already was committed before.
pub(super) struct FileCommitter;

impl Committer for FileCommitter {
    fn commit(
        &self,
        committables: &[Committable],
        _storage: &dyn CheckpointStorage,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        for committable in committables {
            if cancelled() {
                return Err(Error::external("the commit was cancelled"));
            }
            let prepared: Prepared = position::decode(&committable.payload, "the committable")?;
            for file in &prepared.files {
                commit(&prepared.directory, file)?;
            }
            sync_directory(&prepared.directory)?;
        }
        Ok(())
    }
}

fn commit(directory: &Path, file: &CommittedFile) -> Result<()> {
    let (staged, target) = (staged_path(directory, &file.name), directory.join(&file.name));
    if target.exists() {
        return check_length(&target, file.bytes);
    }
    if !staged.exists() {
        let (staged, target) = (staged.display(), target.display());
        return Err(
            Error::external(format!("neither {staged} nor {target} is there: the rows are lost")).permanent()
        );
    }
    check_length(&staged, file.bytes)?;
    std::fs::rename(&staged, &target).map_err(|error| io_error(&staged, "cannot commit", error))
}

fn check_length(path: &Path, bytes: u64) -> Result<()> {
    let found = path.metadata().map_err(|error| io_error(path, "cannot look at it", error))?.len();
    if found == bytes {
        return Ok(());
    }
    let path = path.display();
    Err(Error::external(format!("{path} has {found} bytes, {bytes} were prepared")).permanent())
}
