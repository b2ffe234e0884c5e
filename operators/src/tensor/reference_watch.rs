//! The reference matrices of a transform, and new versions of them while the job runs.
//!
//! A file that is watched is looked at now and then; when it has changed it is loaded on a thread of
//! its own, and each instance takes it over at its next barrier. All instances of a process share
//! what was loaded.

use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use thalweg_engine::time::Micros;
use thalweg_engine::{Error, Result};
use thalweg_tensor::op::{Metric, ReferenceId};
use thalweg_tensor::{Graph, ReferenceMatrix};

use super::artifact::Artifact;
use super::provenance::{ReferenceVersion, short};

/// The reference matrices of a graph, in its order, in one version.
#[derive(Debug, Default)]
pub(super) struct References {
    pub matrices: Vec<Arc<ReferenceMatrix>>,
    pub versions: Vec<ReferenceVersion>,
    /// Rises with each reload.
    pub sequence: u64,
}

/// Where a reference matrix comes from.
#[derive(Clone, Debug)]
pub enum ReferenceSource {
    /// It stays as it is.
    Given(Arc<ReferenceMatrix>),
    /// A safetensors file, local or in an object store, that is looked at now and then. It is copied
    /// before it is read, so it may be replaced in any way; by renaming is best, for a file that is
    /// half written is refused only if it shows.
    Watched {
        /// The file.
        file: Artifact,
        /// How often it is looked at, in microseconds; `None`: never.
        every: Option<Micros>,
    },
}

impl ReferenceSource {
    /// A file, by its path or URL, that is looked at every so many microseconds.
    pub fn watched(location: impl Into<String>, every: Micros) -> ReferenceSource {
        ReferenceSource::Watched { file: Artifact::new(location), every: Some(every) }
    }
}

impl From<ReferenceMatrix> for ReferenceSource {
    fn from(matrix: ReferenceMatrix) -> ReferenceSource {
        ReferenceSource::Given(Arc::new(matrix))
    }
}

impl From<Arc<ReferenceMatrix>> for ReferenceSource {
    fn from(matrix: Arc<ReferenceMatrix>) -> ReferenceSource {
        ReferenceSource::Given(matrix)
    }
}

/// The references of all instances in this process.
pub(super) struct ReferenceWatch {
    wanted: Vec<Wanted>,
    state: Mutex<State>,
}

type Loaded = (Arc<ReferenceMatrix>, ReferenceVersion);

/// A matrix that the graph needs, and where it comes from.
struct Wanted {
    name: String,
    width: usize,
    metrics: Vec<Metric>,
    source: ReferenceSource,
}

/// A look at the files that goes on; ends when it is dropped.
struct Loading(Arc<ReferenceWatch>);

impl Drop for Loading {
    fn drop(&mut self) {
        self.0.state.lock().is_loading = false;
    }
}

struct State {
    latest: Arc<References>,
    /// The older ones that instances went back to: what is read for one is there for all.
    restored: Weak<References>,
    is_loading: bool,
    looked_at: Option<Micros>,
    /// What the files were, in the order of the matrices, when they were last looked at.
    seen: Vec<Option<String>>,
}

impl ReferenceWatch {
    /// Loads what the graph needs.
    ///
    /// # Errors
    /// A user error that names the matrix which is missing, or has another width; an external one
    /// when a file cannot be read.
    pub(super) fn open(graph: &Graph, given: &[(String, ReferenceSource)]) -> Result<Arc<ReferenceWatch>> {
        let wanted = graph.references().iter().enumerate().map(|(index, reference)| {
            let source = given.iter().find(|(name, _)| *name == reference.name);
            let (_, source) = source.ok_or_else(|| {
                Error::user(format!(
                    "the graph needs the reference matrix `{}`, and it is not given",
                    reference.name
                ))
            })?;
            let metrics = graph.metrics_of(ReferenceId(index as u32));
            let (name, width, source) = (reference.name.clone(), reference.width, source.clone());
            Ok(Wanted { name, width, metrics, source })
        });
        let wanted: Vec<_> = wanted.collect::<Result<_>>()?;
        for (name, _) in given {
            if !wanted.iter().any(|known| known.name == *name) {
                return Err(Error::user(format!("the graph has no reference matrix `{name}`")));
            }
        }
        let mut references = References { sequence: 1, ..References::default() };
        let mut seen = Vec::with_capacity(wanted.len());
        for one in &wanted {
            let (matrix, version) = match &one.source {
                ReferenceSource::Given(matrix) => one.ready(matrix.clone(), hash_of(matrix))?,
                ReferenceSource::Watched { file, .. } => {
                    seen.push(file.version()?);
                    let (path, hash) = file.kept()?;
                    one.read(&path, hash)?
                }
            };
            seen.resize(references.matrices.len() + 1, None);
            references.matrices.push(matrix);
            references.versions.push(version);
        }
        let latest = Arc::new(references);
        let state = State { latest, restored: Weak::new(), is_loading: false, looked_at: None, seen };
        Ok(Arc::new(ReferenceWatch { wanted, state: Mutex::new(state) }))
    }

    /// The newest version.
    pub(super) fn latest(&self) -> Arc<References> {
        self.state.lock().latest.clone()
    }

    /// How often the files are looked at.
    pub(super) fn interval(&self) -> Option<Micros> {
        let intervals = self.wanted.iter().filter_map(|one| match &one.source {
            ReferenceSource::Watched { every, .. } => *every,
            ReferenceSource::Given(_) => None,
        });
        intervals.min()
    }

    /// Goes back to the versions of a checkpoint, where they are still to be had.
    ///
    /// # Errors
    /// When a file that is to be had cannot be read.
    pub(super) fn restore(&self, sequence: u64, versions: &[ReferenceVersion]) -> Result<Arc<References>> {
        let mut state = self.state.lock();
        if let Some(restored) = state.restored.upgrade()
            && restored.sequence == sequence
            && restored.versions == versions
        {
            return Ok(restored);
        }
        let latest = state.latest.clone();
        let mut restored = References { sequence, ..References::default() };
        let mut is_same = true;
        for (one, (matrix, now)) in self.wanted.iter().zip(latest.matrices.iter().zip(&latest.versions)) {
            let saved = versions.iter().find(|version| version.name == one.name && version.hash != now.hash);
            let old = match (saved, &one.source) {
                (Some(saved), ReferenceSource::Watched { file, .. }) => {
                    let cached = file.cached(&saved.hash);
                    if cached.is_none() {
                        tracing::warn!(
                            reference = one.name,
                            "version {} of the checkpoint is no longer to be had: goes on with version {}",
                            short(&saved.hash),
                            short(&now.hash)
                        );
                    }
                    cached.map(|path| one.read(&path, saved.hash.clone())).transpose()?
                }
                _ => None,
            };
            is_same &= old.is_none();
            let (matrix, version) = old.unwrap_or_else(|| (matrix.clone(), now.clone()));
            restored.matrices.push(matrix);
            restored.versions.push(version);
        }
        if is_same {
            // What there is now is the checkpoint's.
            if latest.sequence < sequence {
                let References { matrices, versions, .. } = restored;
                state.latest = Arc::new(References { matrices, versions, sequence });
            }
            return Ok(state.latest.clone());
        }
        if latest.sequence <= sequence {
            let References { matrices, versions, .. } = &*latest;
            let (matrices, versions) = (matrices.clone(), versions.clone());
            state.latest = Arc::new(References { matrices, versions, sequence: sequence + 1 });
        }
        let restored = Arc::new(restored);
        state.restored = Arc::downgrade(&restored);
        Ok(restored)
    }

    /// Looks whether a file has changed, unless another instance has looked just now, and loads it:
    /// on a thread of its own, or (`inline`) here.
    ///
    /// # Errors
    /// An external error when there are no more threads.
    pub(super) fn look(self: &Arc<Self>, now: Micros, inline: bool) -> Result<()> {
        {
            let mut state = self.state.lock();
            let interval = self.interval().unwrap_or(Micros::MAX);
            // One that lies ahead was before the clock was set back.
            let is_fresh = state.looked_at.is_some_and(|at| (0..interval).contains(&(now - at)));
            if state.is_loading || is_fresh {
                return Ok(());
            }
            state.is_loading = true;
            state.looked_at = Some(now);
        }
        // Ends also when there is no thread to be had, or it panics.
        let loading = Loading(self.clone());
        if inline {
            self.reload();
            return Ok(());
        }
        let spawned =
            std::thread::Builder::new().name("reference reload".into()).spawn(move || loading.0.reload());
        spawned.map(drop).map_err(|error| Error::external("cannot start a thread").caused_by(error))
    }

    /// A file that cannot be read, or does not fit, leaves the version that there is.
    fn reload(&self) {
        let (latest, mut seen) = {
            let state = self.state.lock();
            (state.latest.clone(), state.seen.clone())
        };
        let mut references = References::default();
        let mut changed = false;
        let known = latest.matrices.iter().zip(&latest.versions).zip(&mut seen);
        for (one, ((matrix, version), seen)) in self.wanted.iter().zip(known) {
            let (mut matrix, mut version) = (matrix.clone(), version.clone());
            match one.look(&version, seen) {
                Ok(None) => {}
                Ok(Some(newer)) => {
                    (matrix, version) = newer;
                    tracing::info!(
                        reference = one.name,
                        hash = short(&version.hash),
                        rows = matrix.rows(),
                        "reloaded"
                    );
                    changed = true;
                }
                Err(error) => tracing::warn!(reference = one.name, %error, "stays as it is"),
            }
            references.matrices.push(matrix);
            references.versions.push(version);
        }
        let mut state = self.state.lock();
        state.seen = seen;
        if changed {
            references.sequence = state.latest.sequence + 1;
            state.latest = Arc::new(references);
        }
    }

    /// Bytes of the matrices, as all instances share them; twice those of one that may be replaced,
    /// for old and new are there at once.
    pub(super) fn bytes(&self) -> usize {
        let latest = self.latest();
        let all = self.wanted.iter().zip(&latest.matrices);
        let bytes = all.map(|(one, matrix)| match &one.source {
            ReferenceSource::Watched { every: Some(_), .. } => 2 * size_of_val(matrix.vectors()),
            _ => size_of_val(matrix.vectors()),
        });
        bytes.sum()
    }

    /// Hashes of the matrices that stay as they are, which are part of the fingerprint.
    pub(super) fn fixed(&self) -> Vec<ReferenceVersion> {
        let latest = self.latest();
        let all = self.wanted.iter().zip(&latest.versions);
        let fixed = all.filter(|(one, _)| matches!(one.source, ReferenceSource::Given(_)));
        fixed.map(|(_, version)| version.clone()).collect()
    }
}

impl Wanted {
    /// What the file holds now, if that is not the `known` version; `seen` is what it was when it was
    /// last looked at.
    fn look(&self, known: &ReferenceVersion, seen: &mut Option<String>) -> Result<Option<Loaded>> {
        let ReferenceSource::Watched { every: Some(_), file } = &self.source else { return Ok(None) };
        let now = file.version()?;
        if now.is_some() && now == *seen {
            return Ok(None);
        }
        let (path, hash) = file.kept()?;
        // One that cannot be read as it is now is said to be so once.
        *seen = now;
        if hash == known.hash { Ok(None) } else { self.read(&path, hash).map(Some) }
    }

    /// Maps a file that does not change.
    fn read(&self, path: &Path, hash: String) -> Result<Loaded> {
        let matrix = ReferenceMatrix::open(&*self.name, path).map_err(super::tensor_error)?;
        self.ready(Arc::new(matrix), hash)
    }

    /// Checks a matrix and prepares it, so that no instance has to.
    fn ready(&self, matrix: Arc<ReferenceMatrix>, hash: String) -> Result<Loaded> {
        if matrix.width() != self.width {
            return Err(Error::user(format!(
                "reference matrix `{}`: its vectors have {} elements, the graph wants {}",
                self.name,
                matrix.width(),
                self.width
            )));
        }
        matrix.prepare(&self.metrics);
        Ok((matrix, ReferenceVersion { name: self.name.clone(), hash }))
    }
}

fn hash_of(matrix: &ReferenceMatrix) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(matrix.width() as u64).to_le_bytes());
    for id in matrix.ids() {
        hasher.update(&id.to_le_bytes());
    }
    for value in matrix.vectors() {
        hasher.update(&value.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
