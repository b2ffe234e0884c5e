//! What a transform's results depend on, as a checkpoint remembers it: graph, weights, tokenizers,
//! and the versions of its reference matrices.
//!
//! A restore with another graph or other weights would go on with results that do not fit those
//! before it (embeddings of two models cannot be compared), so it is refused unless it is allowed.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use thalweg_engine::checkpoint::SnapshotPart;
use thalweg_engine::operator::OpenContext;
use thalweg_engine::time::Micros;
use thalweg_engine::{Error, Result};

use super::{ReferenceWatch, References};

/// The name of the state in a checkpoint.
const STATE: &str = "transform";

/// Hashes of what a transform is made of, in lower-case hex.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Of the graph as text.
    pub graph: String,
    /// Of the weights' bytes.
    pub weights: String,
    /// Of the tokenizers, and of the reference matrices that stay as they are.
    pub tokenizers: String,
}

impl Fingerprint {
    /// What differs, with both hashes.
    fn differences(&self, other: &Fingerprint) -> Vec<String> {
        let parts = [
            ("graph", &self.graph, &other.graph),
            ("weights", &self.weights, &other.weights),
            ("tokenizers", &self.tokenizers, &other.tokenizers),
        ];
        let differ = parts.into_iter().filter(|(_, saved, given)| saved != given);
        differ.map(|(part, saved, given)| format!("{part} {}, not {}", short(saved), short(given))).collect()
    }
}

/// Enough of a hash to tell two apart.
pub(super) fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

/// A version of a reference matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReferenceVersion {
    pub name: String,
    /// BLAKE3 of its file.
    pub hash: String,
}

/// What the checkpoint holds.
#[derive(Serialize, Deserialize)]
struct Saved {
    fingerprint: Fingerprint,
    /// Rises with each reload.
    sequence: u64,
    references: Vec<ReferenceVersion>,
}

/// References that may be taken over, and whether the device can take them.
pub(super) struct Expected {
    references: Arc<References>,
    fit: OnceLock<bool>,
}

impl Expected {
    pub(super) fn references(&self) -> &References {
        &self.references
    }

    /// What the device says; it says so once.
    pub(super) fn tell(&self, told: Result<()>) {
        if let Err(error) = &told {
            tracing::warn!(%error, "the references stay as they are");
        }
        let _ = self.fit.set(told.is_ok());
    }
}

/// What one instance's results depend on.
pub(super) struct Provenance {
    fingerprint: Fingerprint,
    allow_changed_weights: bool,
    watch: Arc<ReferenceWatch>,
    current: Arc<References>,
    /// The newer ones that the device was told of.
    expected: Option<Arc<Expected>>,
    look_at: Option<Micros>,
    inline: bool,
}

impl Provenance {
    pub(super) fn new(
        fingerprint: Fingerprint,
        allow_changed_weights: bool,
        watch: Arc<ReferenceWatch>,
        inline: bool,
    ) -> Provenance {
        let current = watch.latest();
        Provenance {
            fingerprint,
            allow_changed_weights,
            watch,
            current,
            expected: None,
            look_at: None,
            inline,
        }
    }

    /// The reference matrices that are in use.
    pub(super) fn references(&self) -> &Arc<References> {
        &self.current
    }

    /// Compares with what the checkpoint holds, and goes back to its versions of the references.
    ///
    /// # Errors
    /// A user error with both hashes, when it was made with another graph or other weights.
    pub(super) fn open(&mut self, cx: &OpenContext<'_>) -> Result<()> {
        let mut newest: Option<Saved> = None;
        for item in cx.restored.items(STATE) {
            let saved: Saved = serde_json::from_slice(item)
                .map_err(|error| Error::internal("the transform's state cannot be read").caused_by(error))?;
            if newest.as_ref().is_none_or(|newest| newest.sequence < saved.sequence) {
                newest = Some(saved);
            }
        }
        if let Some(saved) = newest {
            let differences = saved.fingerprint.differences(&self.fingerprint);
            if !differences.is_empty() && !self.allow_changed_weights {
                return Err(Error::user(format!(
                    "the checkpoint was made by another transform: it has {}; to go on with what the job has \
                     now, set `allow_changed_weights: true`",
                    differences.join("; ")
                ))
                .permanent());
            }
            if !differences.is_empty() {
                tracing::warn!(
                    operator = %cx.info.uid,
                    "goes on from a checkpoint of another transform, as allowed: it had {}",
                    differences.join("; ")
                );
            }
            self.current = self.watch.restore(saved.sequence, &saved.references)?;
        }
        if let Some(interval) = self.watch.interval() {
            self.look_at = Some(cx.now + interval);
        }
        Ok(())
    }

    /// When it wants to look for new versions.
    pub(super) fn look_at(&self) -> Option<Micros> {
        self.look_at
    }

    /// Looks for new versions of the references when it is time; they are loaded elsewhere.
    ///
    /// # Errors
    /// An external error when there are no more threads.
    pub(super) fn look(&mut self, now: Micros) -> Result<()> {
        if let (Some(at), Some(interval)) = (self.look_at, self.watch.interval())
            // Further away only when the clock was set back.
            && (at <= now || at > now + interval)
        {
            self.look_at = Some(now + interval);
            self.watch.look(now, self.inline)?;
        }
        Ok(())
    }

    /// Newer references, which the device is to be told of; once.
    pub(super) fn expect(&mut self) -> Option<Arc<Expected>> {
        let latest = self.watch.latest();
        let known = self.expected.as_ref().map_or(0, |expected| expected.references.sequence);
        if latest.sequence <= self.current.sequence.max(known) {
            return None;
        }
        self.expected = Some(Arc::new(Expected { references: latest, fit: OnceLock::new() }));
        self.expected.clone()
    }

    /// At a barrier: the references from here on, when there are newer ones and the device has said
    /// that it can take them.
    pub(super) fn renew(&mut self) -> Option<Arc<References>> {
        let expected = self.expected.as_ref()?;
        let is_newer = self.current.sequence < expected.references.sequence;
        (is_newer && expected.fit.get() == Some(&true)).then(|| {
            self.current = expected.references.clone();
            expected.references.clone()
        })
    }

    /// What the snapshot holds.
    ///
    /// # Errors
    /// An internal error of the encoding.
    pub(super) fn snapshot(&self) -> Result<SnapshotPart> {
        let saved = Saved {
            fingerprint: self.fingerprint.clone(),
            sequence: self.current.sequence,
            references: self.current.versions.clone(),
        };
        let item = serde_json::to_vec(&saved)
            .map_err(|error| Error::internal("the transform's state cannot be written").caused_by(error))?;
        Ok(SnapshotPart::Union { name: STATE.to_string(), items: vec![item] })
    }
}
