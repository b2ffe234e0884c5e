//! What a checkpoint remembers of a transform, so that a restore with other weights is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Graph, Weights};

/// BLAKE3 over a graph, its weights and its tokenizers. Reference matrices are no part of it: a job
/// may replace them while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a graph with its weights and with the hashes of its tokenizers, by name; their order does
    /// not matter.
    pub fn new<'a>(
        graph: &Graph,
        weights: &Weights,
        tokenizers: impl IntoIterator<Item = (&'a str, [u8; 32])>,
    ) -> Fingerprint {
        let mut tokenizers: Vec<_> = tokenizers.into_iter().collect();
        tokenizers.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(graph.describe().as_bytes());
        part(&weights.hash());
        for (name, hash) in tokenizers {
            part(name.as_bytes());
            part(&hash);
        }
        Fingerprint(*hasher.finalize().as_bytes())
    }
}

/// In hexadecimal.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
