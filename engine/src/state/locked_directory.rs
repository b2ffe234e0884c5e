//! Local directories of living owners, and what dead ones left behind.
//!
//! The rule: an owner holds a lock on the file `<name>.lock` beside its directory for as long as it
//! lives, and the kernel lets it go with the process, however that ends. A lock that can be had
//! belongs to nobody, and its directory goes. (Process ids would not do: containers that share a
//! volume do not see each other's.) On a file system without locks nobody sweeps.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const LOCK_SUFFIX: &str = ".lock";

/// A local directory that is locked while its owner lives, and goes with it.
#[derive(Debug)]
pub struct LockedDirectory {
    path: PathBuf,
    lock_path: PathBuf,
    lock: File,
    keeps_files: bool,
}

impl LockedDirectory {
    /// Makes `parent/name`, empty, and removes those beside it that are `akin` by their names and whose
    /// owners are dead.
    ///
    /// # Errors
    /// An external error that names the directory; a permanent one when a living owner has it.
    pub fn create(parent: &Path, name: &str, akin: impl Fn(&str) -> bool) -> Result<LockedDirectory> {
        let path = parent.join(name);
        let lock_path = parent.join(format!("{name}{LOCK_SUFFIX}"));
        let failed = |error: std::io::Error| {
            Error::external(format!("cannot make the directory {}", path.display())).caused_by(error)
        };
        fs::create_dir_all(parent).map_err(failed)?;
        sweep(parent, akin);
        let is_held = |lock: File| matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
        if File::open(&lock_path).is_ok_and(is_held) {
            return Err(Error::external(format!("{} is in use", path.display())).permanent());
        }
        // Nobody ever sees it under its name and not locked: they would take its owner for dead.
        let unnamed = parent.join(format!(".{name}.new"));
        let lock = File::options().create(true).append(true).open(&unnamed).map_err(failed)?;
        match lock.lock() {
            Err(error) if error.kind() != ErrorKind::Unsupported => return Err(failed(error)),
            _ => fs::rename(&unnamed, &lock_path).map_err(failed)?,
        }
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => fs::create_dir(&path).map_err(failed)?,
        }
        Ok(LockedDirectory { path, lock_path, lock, keeps_files: false })
    }

    /// Files that are in it when the owner goes stay, for somebody may still read them; the next
    /// owner of one beside it removes them.
    #[must_use]
    pub fn keeping_files(mut self) -> LockedDirectory {
        self.keeps_files = true;
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LockedDirectory {
    fn drop(&mut self) {
        let removed =
            if self.keeps_files { fs::remove_dir(&self.path) } else { fs::remove_dir_all(&self.path) };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!(directory = %self.path.display(), %error, "left to the next owner's sweep");
            }
            // Whoever holds the lock of a removed file holds nothing.
            _ => drop(fs::remove_file(&self.lock_path)),
        }
        let _ = self.lock.unlock();
    }
}

/// Removes the directories of dead owners. What cannot be removed costs nothing but space.
fn sweep(parent: &Path, akin: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let lock_path = entry.path();
        let name = lock_path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let Some(name) = name.strip_suffix(LOCK_SUFFIX).filter(|name| akin(name)) else {
            continue;
        };
        let Ok(lock) = File::open(&lock_path) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        let directory = parent.join(name);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!(directory = %directory.display(), %error, "cannot be swept");
            }
            _ => {
                tracing::info!(directory = %directory.display(), "removed what a dead process left");
                let _ = fs::remove_file(&lock_path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(parent: &Path, name: &str) -> Result<LockedDirectory> {
        LockedDirectory::create(parent, name, |name| name.starts_with("job-"))
    }

    /// What a killed process leaves: a directory, and a lock that nobody holds.
    fn left(parent: &Path, name: &str) {
        fs::create_dir_all(parent.join(name)).unwrap();
        fs::write(parent.join(name).join("segment-0"), "rows").unwrap();
        fs::write(parent.join(format!("{name}{LOCK_SUFFIX}")), "").unwrap();
    }

    #[test]
    fn what_dead_owners_left_is_swept_and_what_living_ones_have_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let living = create(parent.path(), "job-1").unwrap();
        fs::write(living.path().join("x"), "x").unwrap();
        left(parent.path(), "job-2");
        left(parent.path(), "other-3");
        let second = create(parent.path(), "job-4").unwrap();
        assert!(living.path().join("x").exists(), "a living owner's was swept");
        assert!(!parent.path().join("job-2").exists() && !parent.path().join("job-2.lock").exists());
        assert!(parent.path().join("other-3").exists(), "another job's was swept");
        drop((living, second));
        let names: Vec<_> =
            fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_directory_has_one_owner_and_begins_empty() {
        let parent = tempfile::tempdir().unwrap();
        left(parent.path(), "job-1");
        let first = create(parent.path(), "job-1").unwrap();
        assert_eq!(fs::read_dir(first.path()).unwrap().count(), 0);
        assert!(create(parent.path(), "job-1").unwrap_err().to_string().contains("in use"));
        drop(first);
        create(parent.path(), "job-1").unwrap();
    }

    #[test]
    fn files_that_somebody_may_still_read_stay_until_the_next_owner_comes() {
        let parent = tempfile::tempdir().unwrap();
        let first = create(parent.path(), "job-1").unwrap().keeping_files();
        let file = first.path().join("segment-0");
        fs::write(&file, "rows").unwrap();
        drop(first);
        assert!(file.exists());
        create(parent.path(), "job-2").unwrap();
        assert!(!file.exists());
    }
}
