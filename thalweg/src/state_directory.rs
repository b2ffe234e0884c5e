//! Where the job's RocksDB keeps its files. They are worth nothing once the job is over, and are
//! removed then; what a killed process left is removed by the next one that runs the job there.
//!
//! The rules: a name is never used twice, whoever shares the disk (containers number their processes
//! alike); a directory belongs to whoever holds the lock in it, and one that nobody holds is swept.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thalweg_engine::checkpoint::log::fresh_nonce;
use thalweg_engine::{Error, Result};

/// The file in a directory that its owner has locked.
const LOCK: &str = "lock";
/// So often the directory that was just made is swept by another process before it is locked.
const TRIES: usize = 8;

/// A directory of one running job; goes with it.
pub(crate) struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// A directory for a run of `job`, below `given` or the system's directory for temporary files.
    ///
    /// # Errors
    /// An external error that names the directory.
    pub(crate) fn of(job: &str, given: Option<PathBuf>) -> Result<StateDirectory> {
        let below = given.unwrap_or_else(|| std::env::temp_dir().join("thalweg-state"));
        sweep(&below, job);
        let mut made = Err(io::Error::other("others keep removing it"));
        for _ in 0..TRIES {
            let path = below.join(format!("{job}-{}", fresh_nonce()));
            made = make(&path);
            match made {
                Ok(Some(lock)) => return Ok(StateDirectory { path, _lock: lock }),
                Ok(None) => made = Err(io::Error::other("others keep removing it")),
                Err(_) => break,
            }
        }
        let failed = |error| Error::external(format!("cannot make {}", below.display())).caused_by(error);
        Err(failed(made.err().unwrap_or_else(|| io::Error::other("it is gone"))))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes and locks a directory; `None` when a sweep of another process came between.
fn make(path: &Path) -> io::Result<Option<File>> {
    std::fs::create_dir_all(path)?;
    let lock = File::create(path.join(LOCK))?;
    match lock.lock() {
        // A file system without locks: nobody sweeps there either.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        locked => locked?,
    }
    Ok(path.join(LOCK).exists().then_some(lock))
}

/// Removes the directories of `job` that no process holds. What cannot be looked at or removed
/// stays: it costs nothing but space.
fn sweep(below: &Path, job: &str) {
    let Ok(entries) = std::fs::read_dir(below) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().and_then(|name| name.strip_prefix(job)).is_some_and(is_nonce_of);
        let Some(lock) = is_ours.then(|| File::open(entry.path().join(LOCK)).ok()).flatten() else {
            continue;
        };
        match lock.try_lock() {
            Ok(()) => {
                if std::fs::remove_dir_all(entry.path()).is_ok() {
                    tracing::info!(directory = %entry.path().display(), "removed what a killed process left");
                }
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

/// Whether `rest` of a name is what follows the job's own: `-` and a nonce.
fn is_nonce_of(rest: &str) -> bool {
    let nonce = rest.strip_prefix('-').unwrap_or_default();
    nonce.len() == 32 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %self.path.display(), %error, "cannot remove the state's directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_runs_own_and_what_a_killed_one_left_is_swept_by_the_next() {
        let below = tempfile::tempdir().unwrap();
        let of = |job: &str| StateDirectory::of(job, Some(below.path().to_path_buf())).unwrap();
        let (first, second) = (of("usage"), of("usage"));
        assert!(first.path() != second.path() && first.path().is_dir() && second.path().is_dir());
        // A killed process removes nothing, and its locks are gone.
        let left = below.path().join(format!("usage-{}", fresh_nonce()));
        let of_another = below.path().join(format!("usage-2-{}", fresh_nonce()));
        for directory in [&left, &of_another] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.join(LOCK), b"").unwrap();
        }
        let third = of("usage");
        assert!(!left.exists() && of_another.exists(), "swept is what is this job's");
        assert!([&first, &second, &third].iter().all(|held| held.path().is_dir()), "what is held stays");
        let path = first.path().to_path_buf();
        drop(first);
        assert!(!path.exists());
    }
}
