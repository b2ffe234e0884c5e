//! The local directory that holds model files by content: `blobs/<hash>`, beside an index of which
//! object was which content. Processes share it, so whatever appears in it appears whole.
//!
//! It holds at most so many bytes: what was not used for longest goes first. A file that goes stays
//! readable to whoever has mapped it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use thalweg_engine::checkpoint::log::fresh_nonce;
use thalweg_engine::{Error, Result};

/// Bytes of the cache's files, unless `THALWEG_MODEL_CACHE_BYTES` says otherwise.
const BYTES_MAX_DEFAULT: u64 = 32 << 30;
/// A file that was used so lately may be about to be opened.
const USED_LATELY: Duration = Duration::from_secs(3_600);
/// A copy that nobody has finished for so long is nobody's.
const COPY_TIME_MAX: Duration = Duration::from_secs(24 * 3_600);
/// What the names of unfinished copies begin with.
const UNFINISHED: &str = "fetching-";

pub(super) struct ModelCache {
    root: PathBuf,
}

/// What an object was when it was last fetched.
pub(super) struct Entry {
    /// Of its content.
    pub hash: String,
    /// Its length.
    pub bytes: u64,
    /// What the store knew it by.
    pub version: String,
}

/// A file that is being written; goes unless it is kept.
pub(super) struct Unfinished(PathBuf);

impl Unfinished {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when it was kept.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl ModelCache {
    /// The cache in `given`, or in `THALWEG_MODEL_CACHE`, or in `~/.cache/thalweg/models`.
    ///
    /// # Errors
    /// An external error when its directories cannot be made.
    pub(super) fn open(given: Option<&Path>) -> Result<ModelCache> {
        let given = given.map(Path::to_path_buf);
        let set = || std::env::var_os("THALWEG_MODEL_CACHE").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/thalweg/models"));
        let root =
            given.or_else(set).or_else(home).unwrap_or_else(|| std::env::temp_dir().join("thalweg-models"));
        for directory in ["blobs", "index"] {
            std::fs::create_dir_all(root.join(directory)).map_err(|error| {
                Error::external(format!("cannot make {}", root.display())).caused_by(error)
            })?;
        }
        Ok(ModelCache { root })
    }

    /// A place for a copy that is not finished.
    pub(super) fn begin(&self) -> Unfinished {
        // Processes of several containers may share the cache, and all have the same number.
        Unfinished(self.root.join(format!("{UNFINISHED}{}", fresh_nonce())))
    }

    /// Puts a finished copy under its content's name, which it answers with.
    ///
    /// # Errors
    /// An external error when the cache cannot be written.
    pub(super) fn keep(&self, copy: &Unfinished) -> Result<(PathBuf, String)> {
        let hash = hash_file(copy.path()).map_err(unwritable)?;
        let path = self.blob(&hash);
        let is_new = !path.is_file();
        std::fs::rename(copy.path(), &path).map_err(unwritable)?;
        touch(&path);
        if is_new {
            self.sweep(bytes_max(), USED_LATELY);
        }
        Ok((path, hash))
    }

    /// The file of this content, if it is here in its full length: a power cut may have left less.
    pub(super) fn held(&self, hash: &str, bytes: u64) -> Option<PathBuf> {
        let path = self.blob(hash);
        path.metadata().is_ok_and(|found| found.is_file() && found.len() == bytes).then(|| {
            touch(&path);
            path
        })
    }

    /// The file of this content, if that is still what its name says.
    pub(super) fn intact(&self, hash: &str) -> Option<PathBuf> {
        let path = self.blob(hash);
        hash_file(&path).is_ok_and(|found| found == hash).then(|| {
            touch(&path);
            path
        })
    }

    /// What an object was when it was last fetched.
    pub(super) fn entry(&self, object: &str) -> Option<Entry> {
        let line = std::fs::read_to_string(self.entry_path(object)).ok()?;
        let mut parts = line.splitn(3, ' ');
        let (hash, bytes, version) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Entry { hash: hash.to_string(), bytes: bytes.parse().ok()?, version: version.to_string() })
    }

    /// Notes what an object was.
    ///
    /// # Errors
    /// An external error when the cache cannot be written.
    pub(super) fn note(&self, object: &str, entry: &Entry) -> Result<()> {
        let copy = self.begin();
        let Entry { hash, bytes, version } = entry;
        std::fs::write(copy.path(), format!("{hash} {bytes} {version}")).map_err(unwritable)?;
        std::fs::rename(copy.path(), self.entry_path(object)).map_err(unwritable)
    }

    /// A directory of these files under their names. It is called after what is in it, so two models
    /// never share one.
    ///
    /// # Errors
    /// An external error when the cache cannot be written.
    pub(super) fn directory(&self, files: &[(&str, PathBuf, String)]) -> Result<PathBuf> {
        let mut hasher = blake3::Hasher::new();
        for (name, _, hash) in files {
            hasher.update(name.as_bytes()).update(hash.as_bytes());
        }
        let directory = self.root.join("directories").join(hasher.finalize().to_hex().as_str());
        for (name, blob, _) in files {
            self.link(blob, &directory.join(name))?;
        }
        Ok(directory)
    }

    /// Has `link` be the same file as `blob`; another process may be doing the same.
    fn link(&self, blob: &Path, link: &Path) -> Result<()> {
        if link.exists() {
            return Ok(());
        }
        if let Some(parent) = link.parent() {
            std::fs::create_dir_all(parent).map_err(unwritable)?;
        }
        match std::fs::hard_link(blob, link) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            // Not every file system has links.
            Err(_) => {
                let copy = self.begin();
                std::fs::copy(blob, copy.path()).map_err(unwritable)?;
                std::fs::rename(copy.path(), link).map_err(unwritable)
            }
        }
    }

    /// Deletes what was not used for longest until `bytes_max` are left, but nothing that was used
    /// within `lately`; and copies that were never finished. What cannot be deleted stays.
    fn sweep(&self, bytes_max: u64, lately: Duration) {
        let unused_for = |path: &Path| {
            let used = path.metadata().and_then(|metadata| metadata.modified()).ok()?;
            SystemTime::now().duration_since(used).ok()
        };
        for path in files_in(&self.root) {
            let is_unfinished =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED));
            if is_unfinished && unused_for(&path).is_some_and(|time| time >= COPY_TIME_MAX) {
                let _ = std::fs::remove_file(&path);
            }
        }
        let mut blobs: Vec<(Duration, u64, PathBuf)> = files_in(&self.root.join("blobs"))
            .filter_map(|path| Some((unused_for(&path)?, path.metadata().ok()?.len(), path)))
            .collect();
        blobs.sort();
        let mut bytes: u64 = blobs.iter().map(|(_, bytes, _)| bytes).sum();
        while bytes > bytes_max
            && let Some((unused, size, path)) = blobs.pop()
            && unused >= lately
        {
            if std::fs::remove_file(&path).is_ok() {
                tracing::info!(file = %path.display(), "the model cache is full: not used for longest");
            }
            bytes -= size;
        }
    }

    fn blob(&self, hash: &str) -> PathBuf {
        self.root.join("blobs").join(hash)
    }

    fn entry_path(&self, object: &str) -> PathBuf {
        self.root.join("index").join(blake3::hash(object.as_bytes()).to_hex().as_str())
    }
}

fn bytes_max() -> u64 {
    let given = std::env::var("THALWEG_MODEL_CACHE_BYTES").ok();
    given.and_then(|bytes| bytes.parse().ok()).unwrap_or(BYTES_MAX_DEFAULT)
}

fn files_in(directory: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Says that a file was used now; one that cannot be touched is only swept sooner.
fn touch(path: &Path) {
    let _ = std::fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

fn unwritable(error: std::io::Error) -> Error {
    Error::external("cannot write the model cache").caused_by(error)
}

/// The BLAKE3 of a file, in lower-case hex.
fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(cache: &ModelCache, content: &[u8]) -> PathBuf {
        let copy = cache.begin();
        std::fs::write(copy.path(), content).unwrap();
        cache.keep(&copy).unwrap().0
    }

    fn age(path: &Path, seconds: u64) {
        let file = std::fs::File::open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn a_link_that_is_there_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let cache = ModelCache::open(Some(root.path())).unwrap();
        let blob = kept(&cache, b"weights");
        let link = root.path().join("directories/model/model.bin");
        // Two processes, both of which saw no link: a copy over it would empty the blob itself.
        cache.link(&blob, &link).unwrap();
        let both = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|n| {
                    let (cache, blob, link) = (&cache, &blob, root.path().join(format!("d/{}", n / 4)));
                    scope.spawn(move || cache.link(blob, &link))
                })
                .collect();
            all.into_iter().all(|thread| thread.join().unwrap().is_ok())
        });
        assert!(both);
        assert_eq!(std::fs::read(&blob).unwrap(), b"weights");
        assert_eq!(std::fs::read(&link).unwrap(), b"weights");
    }

    #[test]
    fn a_copy_that_is_not_kept_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let cache = ModelCache::open(Some(root.path())).unwrap();
        let copy = cache.begin();
        std::fs::write(copy.path(), b"half").unwrap();
        drop(copy);
        assert_eq!(files_in(root.path()).filter(|path| path.is_file()).count(), 0);
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let root = tempfile::tempdir().unwrap();
        let cache = ModelCache::open(Some(root.path())).unwrap();
        let blobs = [b"aaaa", b"bbbb", b"cccc", b"dddd"].map(|content| kept(&cache, content));
        for (blob, hours) in blobs.iter().zip([9, 8, 7, 0]) {
            age(blob, hours * 3_600);
        }
        let used = hash_file(&blobs[0]).unwrap();
        assert_eq!(cache.held(&used, 3), None, "of another length");
        assert!(cache.held(&used, 4).is_some(), "used again");
        let unfinished = root.path().join("fetching-1-1");
        std::fs::write(&unfinished, b"half").unwrap();
        age(&unfinished, 25 * 3_600);
        cache.sweep(8, USED_LATELY);
        assert_eq!(blobs.each_ref().map(|blob| blob.is_file()), [true, false, false, true]);
        assert!(!unfinished.exists());
        cache.sweep(0, USED_LATELY);
        assert_eq!(blobs.each_ref().map(|blob| blob.is_file()), [true, false, false, true], "used lately");
    }

    #[test]
    fn content_that_is_not_what_its_name_says_is_not_intact() {
        let root = tempfile::tempdir().unwrap();
        let cache = ModelCache::open(Some(root.path())).unwrap();
        let blob = kept(&cache, b"vectors");
        let hash = hash_file(&blob).unwrap();
        assert_eq!(cache.intact(&hash).as_ref(), Some(&blob));
        std::fs::write(&blob, b"").unwrap();
        assert_eq!(cache.intact(&hash), None);
    }
}
