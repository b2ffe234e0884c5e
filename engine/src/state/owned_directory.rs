//! Local directories that belong to one owner and go with it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A local directory that is removed with its owner.
pub(super) struct OwnedDirectory(pub(super) PathBuf);

impl Drop for OwnedDirectory {
    fn drop(&mut self) {
        // What stays behind costs nothing but space; the next process clears its directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A fresh directory of this name below `parent`; one that is there is cleared.
///
/// # Errors
/// An external error that names the directory.
pub(super) fn fresh_directory(parent: &Path, name: &str) -> Result<PathBuf> {
    let path = parent.join(name);
    let made = fs::create_dir_all(parent).and_then(|()| match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir(&path),
    });
    match made {
        Ok(()) => Ok(path),
        Err(error) => {
            Err(Error::external(format!("cannot make the directory {}", path.display())).caused_by(error))
        }
    }
}
