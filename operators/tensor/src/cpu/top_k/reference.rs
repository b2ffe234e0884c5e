//! A reference matrix as a plan holds it.

use std::sync::Arc;

use crate::ReferenceMatrix;
use crate::op::Metric;
use crate::reference_terms::{Copies, Terms};

/// A matrix that a plan looks in.
pub(in crate::cpu) struct Reference {
    matrix: Arc<ReferenceMatrix>,
    holder: Arc<()>,
}

impl Reference {
    /// Ready for the metrics that the graph compares its vectors by.
    pub(in crate::cpu) fn new(matrix: Arc<ReferenceMatrix>, metrics: &[Metric]) -> Reference {
        matrix.prepare(metrics);
        let holder = matrix.terms().holder();
        Reference { matrix, holder }
    }

    pub(in crate::cpu) fn matrix(&self) -> &ReferenceMatrix {
        &self.matrix
    }

    pub(super) fn vector(&self, row: usize) -> &[f32] {
        self.matrix.as_rows().row(row)
    }

    /// What a scan by this metric needs.
    pub(super) fn terms(&self, metric: Metric) -> &Terms {
        self.matrix.terms().of(self.matrix.as_rows(), metric)
    }

    pub(super) fn norms(&self) -> &[f64] {
        self.matrix.terms().norms(self.matrix.as_rows())
    }

    pub(super) fn copies(&self) -> &Copies {
        self.matrix.terms().copies(self.matrix.as_rows())
    }

    /// This plan's part of the bytes of matrix and terms, which all plans that look in it share.
    pub(in crate::cpu) fn bytes(&self) -> usize {
        let vectors = size_of_val(self.matrix.vectors()) + size_of_val(self.matrix.ids());
        let plans = (Arc::strong_count(&self.holder) - 1).max(1);
        (vectors + self.matrix.terms().bytes()).div_ceil(plans)
    }
}
