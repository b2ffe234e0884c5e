//! Watches a topology file (W6) by polling: its content is read anew when the file's time or length
//! changed, or after [`REREAD_MICROS`] in any case (a file can change within one tick of its
//! clock). What was read is decided upon by [`decide`]; the last good topology stays.
//!
//! The rule: a file that is gone, half written or wrong is a warning, never a change (W4). A file
//! that changed is taken when a second look finds it as the first one left it, so that one which is
//! being written is not; whoever writes it does best to write another one and to rename it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use thalweg_engine::{Error, Result};

use super::topology::{Topology, Verdict, decide};
use super::topology_document::parse_topology;

/// The content is read at least this often, even when the file looks unchanged.
const REREAD: Duration = Duration::from_secs(2);

/// The topology in a file, as last read. Clones watch together: one of them looks, all see.
#[derive(Clone, Debug)]
pub struct TopologyFile(Arc<Mutex<Watched>>);

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    current: Option<Arc<Topology>>,
    /// What was read.
    seen: Option<(SystemTime, u64)>,
    /// What the last look found.
    found: Option<(SystemTime, u64)>,
    looked: Option<Instant>,
    read: Option<Instant>,
    text: String,
    trouble: Option<String>,
}

impl TopologyFile {
    /// Watches `path`. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        TopologyFile(Arc::new(Mutex::new(Watched {
            path: path.into(),
            current: None,
            seen: None,
            found: None,
            looked: None,
            read: None,
            text: String::new(),
            trouble: None,
        })))
    }

    /// The file's path.
    pub fn path(&self) -> PathBuf {
        self.lock().path.clone()
    }

    /// The last good topology; looks at the file when the last look is `max_age` old.
    pub fn current(&self, max_age: Duration) -> Option<Arc<Topology>> {
        let mut watched = self.lock();
        if watched.looked.is_none_or(|looked| looked.elapsed() >= max_age) {
            watched.look();
        }
        watched.current.clone()
    }

    /// The topology, for the start of a job: what is wrong with the file is an error here.
    ///
    /// # Errors
    /// A user error that names the file, when no good topology was ever read.
    pub fn require(&self) -> Result<Arc<Topology>> {
        let current = self.current(Duration::ZERO);
        let watched = self.lock();
        current.ok_or_else(|| {
            let trouble = watched.trouble.clone().unwrap_or_default();
            Error::user(format!("no topology in {}: {trouble}", watched.path.display()))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn look(&mut self) {
        self.looked = Some(Instant::now());
        match self.read_if_changed() {
            Ok(()) => self.trouble = None,
            Err(error) => {
                let trouble = error.to_string();
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(%trouble, "the topology file cannot be used; the last good one stays");
                }
                self.trouble = Some(trouble);
            }
        }
    }

    fn read_if_changed(&mut self) -> Result<()> {
        let stamp = stamp(&self.path)?;
        let stale = self.read.is_none_or(|read| read.elapsed() >= REREAD);
        if self.seen == Some(stamp) && !stale {
            return match &self.trouble {
                Some(trouble) => Err(Error::user(trouble.clone())),
                None => Ok(()),
            };
        }
        let settled = self.found.replace(stamp) == Some(stamp);
        if self.current.is_some() && !settled {
            return Ok(());
        }
        let text = std::fs::read_to_string(&self.path).map_err(|error| unreadable(&self.path, error))?;
        if self.current.is_some() && self::stamp(&self.path)? != stamp {
            return Ok(());
        }
        self.seen = Some(stamp);
        self.read = Some(Instant::now());
        if text == self.text && self.trouble.is_none() {
            return Ok(());
        }
        let candidate = parse_topology(&text, &self.path.display().to_string())?;
        self.text = text;
        match decide(self.current.as_deref(), &candidate) {
            Verdict::Apply => {
                tracing::info!(version = candidate.version, "topology in effect");
                self.current = Some(Arc::new(candidate));
            }
            Verdict::Repeated => {}
            Verdict::Conflicting => tracing::warn!(
                version = candidate.version,
                "the topology changed but not its version: the change is not taken"
            ),
            Verdict::Older => tracing::warn!(
                version = candidate.version,
                "the topology is older than the one in effect: not taken"
            ),
        }
        Ok(())
    }
}

fn stamp(path: &Path) -> Result<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
    let modified = meta.modified().map_err(|error| unreadable(path, error))?;
    Ok((modified, meta.len()))
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::user(format!("cannot read {}", path.display())).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(version: u64, port: u16) -> String {
        format!("version: {version}\nclusters: {{ a: {{ bootstrap: 'h:{port}' }} }}\ntopics: {{ t: [a] }}\n")
    }

    /// What stands after two looks.
    fn settled(file: &TopologyFile) -> Arc<Topology> {
        file.current(Duration::ZERO);
        file.current(Duration::ZERO).unwrap()
    }

    #[test]
    fn w4_w5_w6_a_broken_missing_or_older_file_leaves_the_last_good_topology() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("topology.yaml");
        let file = TopologyFile::new(&path);
        assert!(file.require().unwrap_err().to_string().contains("topology.yaml"));
        std::fs::write(&path, document(2, 1)).unwrap();
        assert_eq!(file.require().unwrap().clusters["a"].bootstrap, "h:1");
        let no_topics = "version: 9\nclusters: { b: { bootstrap: 'h:9' } }\n".to_string();
        for text in ["clusters: [".to_string(), document(1, 10), document(2, 100), no_topics] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(settled(&file).clusters["a"].bootstrap, "h:1");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(settled(&file).version, 2);
        std::fs::write(&path, document(3, 1000)).unwrap();
        assert_eq!(settled(&file).version, 3);
    }

    #[test]
    fn w4_a_file_is_not_taken_while_it_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("topology.yaml");
        let whole = |version| {
            format!(
                "version: {version}\ntopics:\n  t:\n    - a\n    - b\nclusters:\n  a:\n    bootstrap: h:1\n  b:\n    bootstrap: h:2\n"
            )
        };
        std::fs::write(&path, whole(1)).unwrap();
        let file = TopologyFile::new(&path);
        let first = file.require().unwrap();
        // A writer that is seen at every byte: whatever it left so far may be a good topology.
        let text = whole(2);
        for end in 0..text.len() {
            std::fs::write(&path, &text[..end]).unwrap();
            assert_eq!(file.current(Duration::ZERO).unwrap(), first, "cut off after {end} bytes");
        }
        std::fs::write(&path, &text).unwrap();
        assert_eq!(settled(&file).version, 2);
        assert_eq!(settled(&file).topics["t"].clusters.len(), 2);
    }
}
