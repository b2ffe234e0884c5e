//! The layout of the store: the one place that builds and reads paths.
//!
//! ```text
//! <job>/log/<seq>                                       dense; each entry is made by put-if-absent
//! <job>/shared/<generation>-<number>-<hash>.sst         immutable, named by manifests
//! <job>/checkpoints/<generation>-<number>/manifest      immutable
//! <job>/checkpoints/<generation>-<number>/operators/<uid>/<subtask>/<name>
//! <job>/checkpoints/<generation>-0/operators/<uid>/<subtask>/<name>    sinks' segments
//! <job>/savepoints/<name>/...
//! ```
//!
//! The rule: a name is written during one checkpoint only. A shared file carries the number of the
//! checkpoint that uploaded it, so a name whose last manifest retired can be deleted without
//! asking whether a checkpoint that runs now is about to upload the same bytes under it. All these
//! names are of one store, whose log gives out each generation once. A name that leaves the store
//! needs more: see [`SubtaskInfo::instance_name`](crate::operator::SubtaskInfo::instance_name).

use super::CheckpointId;
use crate::graph::Uid;
use crate::{Error, Result};

/// Longest path, in bytes: Azure's limit for a blob's name.
pub const PATH_BYTES_MAX: usize = 1024;

/// Digits of a log entry's name: all of a `u64`, so that names sort as numbers.
const SEQ_DIGITS: usize = 20;

/// Checks a path of the store: relative, `/`-separated, no empty, `.` or `..` part, no control
/// character, at most [`PATH_BYTES_MAX`] bytes.
///
/// # Errors
/// An internal error that shows the path.
pub fn check_path(path: &str) -> Result<()> {
    let bad_part = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.len() > PATH_BYTES_MAX || path.chars().any(char::is_control) || path.split('/').any(bad_part) {
        return Err(Error::internal(format!("{path:?} is not a path of the checkpoint store")));
    }
    Ok(())
}

/// Checks a prefix for a listing: empty, or a path that ends in `/`.
///
/// # Errors
/// An internal error that shows the prefix.
pub fn check_prefix(prefix: &str) -> Result<()> {
    match prefix.strip_suffix('/') {
        None if prefix.is_empty() => Ok(()),
        None => Err(Error::internal(format!("{prefix:?} is not a directory of the checkpoint store"))),
        Some(directory) => check_path(directory),
    }
}

/// Builds and reads the paths of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLayout {
    root: String,
}

impl JobLayout {
    /// The layout below a job's directory (without a trailing slash).
    ///
    /// # Errors
    /// A user error when the directory's name cannot stand in a path.
    pub fn new(job_path: &str) -> Result<JobLayout> {
        check_path(job_path).map_err(|_| {
            Error::user(format!("{job_path:?} cannot be a job's directory in the checkpoint store"))
        })?;
        Ok(JobLayout { root: job_path.to_owned() })
    }

    /// The job's directory, without a trailing slash.
    pub fn job_path(&self) -> &str {
        &self.root
    }

    /// The directory of the log, with a trailing slash.
    pub fn log_directory(&self) -> String {
        format!("{}/log/", self.root)
    }

    /// The log's entry `seq`.
    pub fn log_entry(&self, seq: u64) -> String {
        format!("{}/log/{seq:0width$}", self.root, width = SEQ_DIGITS)
    }

    /// Which entry of the log a path is; `None` for any other object.
    pub fn log_sequence(&self, path: &str) -> Option<u64> {
        let name = path.strip_prefix(&self.log_directory())?;
        (name.len() == SEQ_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| name.parse().ok())
            .flatten()
    }

    /// The directory of shared files, with a trailing slash.
    pub fn shared_directory(&self) -> String {
        format!("{}/shared/", self.root)
    }

    /// A shared file, uploaded during `checkpoint`, named by its content's hash.
    pub fn shared(&self, checkpoint: CheckpointId, hash: &str) -> String {
        format!("{}/shared/{checkpoint}-{hash}.sst", self.root)
    }

    /// The directory of all checkpoints, with a trailing slash.
    pub fn checkpoints_directory(&self) -> String {
        format!("{}/checkpoints/", self.root)
    }

    /// A checkpoint's own directory, with a trailing slash.
    pub fn checkpoint_directory(&self, checkpoint: CheckpointId) -> String {
        format!("{}/checkpoints/{checkpoint}/", self.root)
    }

    /// A checkpoint's manifest.
    pub fn manifest(&self, checkpoint: CheckpointId) -> String {
        format!("{}/checkpoints/{checkpoint}/manifest", self.root)
    }

    /// A file of one instance of an operator in a checkpoint's own directory. `name` may have
    /// several parts.
    ///
    /// # Errors
    /// An internal error when the name cannot stand in a path.
    pub fn private(&self, checkpoint: CheckpointId, uid: &Uid, subtask: u32, name: &str) -> Result<String> {
        let path = format!("{}/checkpoints/{checkpoint}/operators/{uid}/{subtask}/{name}", self.root);
        check_path(&path)?;
        Ok(path)
    }

    /// A file of one instance of a sink that travels while its epoch still runs, before it is known
    /// which checkpoint will name it; `name` is unique in the generation. It stands beside the
    /// checkpoints under number 0, which no checkpoint has, so a sweep of orphans knows its
    /// generation.
    ///
    /// # Errors
    /// An internal error when the name cannot stand in a path.
    pub fn staged(&self, generation: u64, uid: &Uid, subtask: u32, name: &str) -> Result<String> {
        self.private(CheckpointId { generation, number: 0 }, uid, subtask, name)
    }

    /// A savepoint's directory, with a trailing slash.
    ///
    /// # Errors
    /// A user error when the name cannot stand in a path.
    pub fn savepoint_directory(&self, name: &str) -> Result<String> {
        let path = format!("{}/savepoints/{name}/", self.root);
        check_prefix(&path).map_err(|_| Error::user(format!("{name:?} cannot be a savepoint's name")))?;
        Ok(path)
    }

    /// The checkpoint that wrote a shared or private file or a manifest; `None` for any other
    /// object.
    pub fn written_by(&self, path: &str) -> Option<CheckpointId> {
        let below = path.strip_prefix(&self.root)?.strip_prefix('/')?;
        let id = match below.strip_prefix("shared/") {
            Some(name) => name.strip_suffix(".sst")?.rsplit_once('-')?.0,
            None => below.strip_prefix("checkpoints/")?.split_once('/')?.0,
        };
        let (generation, number) = id.split_once('-')?;
        Some(CheckpointId { generation: generation.parse().ok()?, number: number.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CheckpointId = CheckpointId { generation: 3, number: 41 };

    #[test]
    fn paths_are_as_documented() {
        let layout = JobLayout::new("jobs/flights").unwrap();
        let uid = Uid::new("windows").unwrap();
        assert_eq!(layout.log_entry(7), "jobs/flights/log/00000000000000000007");
        assert_eq!(layout.shared(ID, "ab12"), "jobs/flights/shared/3-41-ab12.sst");
        assert_eq!(layout.manifest(ID), "jobs/flights/checkpoints/3-41/manifest");
        assert_eq!(
            layout.private(ID, &uid, 2, "CURRENT").unwrap(),
            "jobs/flights/checkpoints/3-41/operators/windows/2/CURRENT"
        );
        assert_eq!(
            layout.staged(3, &uid, 2, "s").unwrap(),
            "jobs/flights/checkpoints/3-0/operators/windows/2/s"
        );
        assert_eq!(layout.savepoint_directory("before").unwrap(), "jobs/flights/savepoints/before/");
    }

    #[test]
    fn paths_are_read_back() {
        let layout = JobLayout::new("job-1").unwrap();
        let uid = Uid::new("a-b.c").unwrap();
        assert_eq!(layout.log_sequence(&layout.log_entry(u64::MAX)), Some(u64::MAX));
        assert_eq!(layout.log_sequence(&layout.log_entry(0)), Some(0));
        assert_eq!(layout.log_sequence("job-1/log/7"), None);
        assert_eq!(layout.log_sequence("job-2/log/00000000000000000007"), None);
        for path in [
            layout.shared(ID, "ff00"),
            layout.manifest(ID),
            layout.private(ID, &uid, 0, "OPTIONS-000007").unwrap(),
        ] {
            assert_eq!(layout.written_by(&path), Some(ID), "{path}");
        }
        for other in ["job-1/log/00000000000000000001", "job-1/shared/x", "job-12/checkpoints/3-41/manifest"]
        {
            assert_eq!(layout.written_by(other), None, "{other}");
        }
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for bad in ["", "/", "a//b", "../a", "a/./b", "a/", "/a", "a\nb"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
            assert!(JobLayout::new(bad).is_err(), "{bad:?}");
        }
        assert!(check_path(&"a".repeat(PATH_BYTES_MAX + 1)).is_err());
        let layout = JobLayout::new("job").unwrap();
        assert!(layout.private(ID, &Uid::new("u").unwrap(), 0, "../../x").is_err());
        assert!(layout.savepoint_directory("..").is_err());
        assert!(check_prefix("").is_ok() && check_prefix("a/b/").is_ok() && check_prefix("a").is_err());
    }
}
