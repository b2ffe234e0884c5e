//! Where the job's RocksDB keeps its files. They are worth nothing once the job is over, and are
//! removed then; what a killed process left is removed by the next one that runs the job there.
//!
//! The rule: a name is never used twice, whoever shares the disk (containers number their processes
//! alike). Whose a directory is says its lock.

use std::path::PathBuf;

use thalweg_engine::Result;
use thalweg_engine::checkpoint::log::fresh_nonce;
use thalweg_engine::state::LockedDirectory;

/// A directory for a run of `job`, below `given` or the system's directory for temporary files.
///
/// # Errors
/// An external error that names the directory.
pub(crate) fn state_directory(job: &str, given: Option<PathBuf>) -> Result<LockedDirectory> {
    let below = given.unwrap_or_else(|| std::env::temp_dir().join("thalweg-state"));
    let is_of_job = |name: &str| name.strip_prefix(job).is_some_and(is_nonce);
    LockedDirectory::create(&below, &format!("{job}-{}", fresh_nonce()), is_of_job)
}

/// Whether `rest` of a name is what follows the job's own: `-` and a nonce.
fn is_nonce(rest: &str) -> bool {
    let nonce = rest.strip_prefix('-').unwrap_or_default();
    nonce.len() == 32 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_runs_own_and_what_a_killed_one_left_is_swept_by_the_next() {
        let below = tempfile::tempdir().unwrap();
        let of = |job: &str| state_directory(job, Some(below.path().to_path_buf())).unwrap();
        let (first, second) = (of("usage"), of("usage"));
        assert!(first.path() != second.path() && first.path().is_dir() && second.path().is_dir());
        // A killed process removes nothing, and its locks are gone.
        let left = below.path().join(format!("usage-{}", fresh_nonce()));
        let of_another = below.path().join(format!("usage-2-{}", fresh_nonce()));
        for directory in [&left, &of_another] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.with_extension("lock"), b"").unwrap();
        }
        let third = of("usage");
        assert!(!left.exists() && of_another.exists(), "swept is what is this job's");
        assert!([&first, &second, &third].iter().all(|held| held.path().is_dir()), "what is held stays");
        let path = first.path().to_path_buf();
        drop(first);
        assert!(!path.exists());
    }
}
