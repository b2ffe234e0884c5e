//! What is known of a reference's vectors beforehand.
//!
//! It depends on the matrix alone, is computed once, where the matrix is loaded or first looked in,
//! and shared by all plans through the matrix: a plan takes it over without a look at the vectors.

mod copies;
mod products;
mod terms;

pub(crate) use copies::Copies;
pub(crate) use products::{dot, norm, square_distance};
pub(crate) use terms::{EXACT, Extent, Terms, grain, is_regular};

use std::sync::{Arc, OnceLock};

use crate::op::Metric;

/// Vectors of one width, row after row.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<'a> {
    pub(crate) elements: &'a [f32],
    pub(crate) width: usize,
}

impl<'a> Vectors<'a> {
    pub(crate) fn row(self, row: usize) -> &'a [f32] {
        &self.elements[row * self.width..][..self.width]
    }

    fn rows(self) -> impl Iterator<Item = &'a [f32]> {
        self.elements.chunks_exact(self.width)
    }
}

/// What look-ups know of a matrix; each part is computed when it is first asked for.
#[derive(Debug, Default)]
pub(crate) struct ReferenceTerms {
    common: OnceLock<Common>,
    cosine: OnceLock<Terms>,
    l2: OnceLock<Terms>,
    dot: OnceLock<Terms>,
    /// Held once by each plan that looks in the matrix, so that they can be counted.
    holders: Arc<()>,
}

/// What all metrics need of the vectors.
#[derive(Debug)]
struct Common {
    norms: Vec<f64>,
    copies: Copies,
}

impl ReferenceTerms {
    /// What a scan by a metric needs.
    pub(crate) fn of(&self, vectors: Vectors<'_>, metric: Metric) -> &Terms {
        let terms = match metric {
            Metric::Dot => &self.dot,
            Metric::Cosine => &self.cosine,
            Metric::L2 => &self.l2,
        };
        terms.get_or_init(|| {
            let Common { norms, copies } = self.common(vectors);
            Terms::new(vectors, norms, copies, metric)
        })
    }

    /// The vectors' norms.
    pub(crate) fn norms(&self, vectors: Vectors<'_>) -> &[f64] {
        &self.common(vectors).norms
    }

    /// Which vectors stand there several times.
    pub(crate) fn copies(&self, vectors: Vectors<'_>) -> &Copies {
        &self.common(vectors).copies
    }

    fn common(&self, vectors: Vectors<'_>) -> &Common {
        self.common.get_or_init(|| {
            let norms: Vec<f64> = vectors.rows().map(norm).collect();
            let copies = Copies::find(vectors, &norms);
            Common { norms, copies }
        })
    }

    /// A plan's hold.
    pub(crate) fn holder(&self) -> Arc<()> {
        self.holders.clone()
    }

    /// Bytes of what has been computed.
    pub(crate) fn bytes(&self) -> usize {
        let terms = [&self.cosine, &self.l2, &self.dot];
        let terms = terms.into_iter().filter_map(OnceLock::get).map(Terms::bytes).sum::<usize>();
        let common = self.common.get();
        terms + common.map_or(0, |common| size_of_val(&common.norms[..]) + common.copies.bytes())
    }
}
