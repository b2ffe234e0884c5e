//! A reference matrix with what is known of its vectors beforehand.
//!
//! What depends on the matrix alone is computed once, where it is loaded or first looked in, and
//! shared by all plans through the matrix: a plan takes it over without a look at the vectors.

use std::sync::{Arc, OnceLock};

use super::copies::Copies;
use super::exact::norm;
use super::terms::Terms;
use crate::ReferenceMatrix;
use crate::op::Metric;

/// What look-ups know of a matrix; each part is computed when it is first asked for.
#[derive(Debug, Default)]
pub(crate) struct ReferenceTerms {
    vectors: OnceLock<Vectors>,
    cosine: OnceLock<Terms>,
    l2: OnceLock<Terms>,
    dot: OnceLock<Terms>,
    /// Held once by each plan that looks in the matrix, so that they can be counted.
    holders: Arc<()>,
}

/// What all metrics need of the vectors.
#[derive(Debug)]
struct Vectors {
    norms: Vec<f64>,
    copies: Copies,
}

impl ReferenceTerms {
    /// Computes what the metrics need.
    pub(crate) fn prepare(&self, matrix: &ReferenceMatrix, metrics: &[Metric]) {
        for metric in metrics {
            self.of(*metric).get_or_init(|| {
                let Vectors { norms, copies } = self.vectors(matrix);
                Terms::new(matrix, norms, copies, *metric)
            });
        }
    }

    fn vectors(&self, matrix: &ReferenceMatrix) -> &Vectors {
        self.vectors.get_or_init(|| {
            let norms: Vec<f64> = matrix.vectors().chunks_exact(matrix.width()).map(norm).collect();
            let copies = Copies::find(matrix, &norms);
            Vectors { norms, copies }
        })
    }

    fn of(&self, metric: Metric) -> &OnceLock<Terms> {
        match metric {
            Metric::Dot => &self.dot,
            Metric::Cosine => &self.cosine,
            Metric::L2 => &self.l2,
        }
    }

    fn bytes(&self) -> usize {
        let terms = [&self.cosine, &self.l2, &self.dot];
        let terms = terms.into_iter().filter_map(OnceLock::get).map(Terms::bytes).sum::<usize>();
        let vectors = self.vectors.get();
        terms + vectors.map_or(0, |vectors| size_of_val(&vectors.norms[..]) + vectors.copies.bytes())
    }
}

/// A matrix that a plan looks in.
pub(in crate::cpu) struct Reference {
    matrix: Arc<ReferenceMatrix>,
    holder: Arc<()>,
}

impl Reference {
    /// Ready for the metrics that the graph compares its vectors by.
    pub(in crate::cpu) fn new(matrix: Arc<ReferenceMatrix>, metrics: &[Metric]) -> Reference {
        matrix.terms().prepare(&matrix, metrics);
        let holder = matrix.terms().holders.clone();
        Reference { matrix, holder }
    }

    pub(in crate::cpu) fn matrix(&self) -> &ReferenceMatrix {
        &self.matrix
    }

    pub(super) fn vector(&self, row: usize) -> &[f32] {
        &self.matrix.vectors()[row * self.matrix.width()..][..self.matrix.width()]
    }

    /// What a scan by this metric needs.
    pub(super) fn terms(&self, metric: Metric) -> &Terms {
        let terms = self.matrix.terms();
        terms.prepare(&self.matrix, &[metric]);
        terms.of(metric).get_or_init(Terms::default)
    }

    pub(super) fn norms(&self) -> &[f64] {
        &self.matrix.terms().vectors(&self.matrix).norms
    }

    pub(super) fn copies(&self) -> &Copies {
        &self.matrix.terms().vectors(&self.matrix).copies
    }

    /// This plan's part of the bytes of matrix and terms, which all plans that look in it share.
    pub(in crate::cpu) fn bytes(&self) -> usize {
        let vectors = size_of_val(self.matrix.vectors()) + size_of_val(self.matrix.ids());
        let plans = (Arc::strong_count(&self.holder) - 1).max(1);
        (vectors + self.matrix.terms().bytes()).div_ceil(plans)
    }
}
