//! A reference matrix with what is known of its vectors beforehand.

use std::sync::Arc;

use super::exact::norm;
use crate::ReferenceMatrix;
use crate::op::Metric;

/// Norms between which `f32` products and squares of any two neither overflow nor lose their bits.
const LEAST_NORM: f64 = 1e-12;
const GREATEST_NORM: f64 = 1e12;

/// A matrix, ready to be scanned: a score is `product * factor + addend`.
pub(in crate::cpu) struct Reference {
    matrix: Arc<ReferenceMatrix>,
    cosine: Option<Terms>,
    l2: Option<Terms>,
    dot: Option<Terms>,
}

/// What a metric needs of each vector.
struct Terms {
    factors: Vec<f32>,
    addends: Vec<f32>,
    /// Vectors that a scan cannot score: their terms are NaN, so that they never get in.
    irregular: Vec<u32>,
}

impl Reference {
    /// Looks at all vectors, for the metrics that the graph compares them by.
    pub(in crate::cpu) fn new(matrix: Arc<ReferenceMatrix>, metrics: &[Metric]) -> Reference {
        let norms: Vec<f64> = matrix.vectors().chunks_exact(matrix.width()).map(norm).collect();
        let terms = |metric| metrics.contains(&metric).then(|| Terms::new(&norms, metric));
        let (cosine, l2, dot) = (terms(Metric::Cosine), terms(Metric::L2), terms(Metric::Dot));
        Reference { cosine, l2, dot, matrix }
    }

    pub(in crate::cpu) fn matrix(&self) -> &ReferenceMatrix {
        &self.matrix
    }

    pub(super) fn vector(&self, row: usize) -> &[f32] {
        &self.matrix.vectors()[row * self.matrix.width()..][..self.matrix.width()]
    }

    /// Factor and addend of each vector; none for a metric that was not named.
    pub(super) fn terms(&self, metric: Metric) -> (&[f32], &[f32]) {
        self.of(metric).map_or((&[], &[]), |terms| (&terms.factors, &terms.addends))
    }

    /// Vectors that a scan leaves out.
    pub(super) fn irregular(&self, metric: Metric) -> &[u32] {
        self.of(metric).map_or(&[], |terms| &terms.irregular)
    }

    fn of(&self, metric: Metric) -> Option<&Terms> {
        match metric {
            Metric::Dot => self.dot.as_ref(),
            Metric::Cosine => self.cosine.as_ref(),
            Metric::L2 => self.l2.as_ref(),
        }
    }

    /// Bytes of matrix and terms.
    pub(in crate::cpu) fn bytes(&self) -> usize {
        let terms = [&self.cosine, &self.l2, &self.dot];
        let terms = terms.into_iter().flatten().map(|terms| 2 * size_of_val(&terms.factors[..]));
        let ids = size_of_val(self.matrix.ids());
        terms.sum::<usize>() + size_of_val(self.matrix.vectors()) + ids
    }
}

impl Terms {
    fn new(norms: &[f64], metric: Metric) -> Terms {
        let mut terms = Terms { factors: Vec::new(), addends: Vec::new(), irregular: Vec::new() };
        for (row, norm) in norms.iter().enumerate() {
            let (factor, addend) = match metric {
                _ if norm.is_nan() => (f32::NAN, f32::NAN),
                Metric::Cosine if *norm == 0.0 => (0.0, 0.0),
                _ if !is_regular(*norm, metric) => {
                    terms.irregular.push(row as u32);
                    (f32::NAN, f32::NAN)
                }
                Metric::Dot => (1.0, 0.0),
                Metric::Cosine => ((1.0 / norm) as f32, 0.0),
                // |q|^2 is the same for all: what is left of -|q - r|^2 is 2qr - |r|^2.
                Metric::L2 => (2.0, (-norm * norm) as f32),
            };
            terms.factors.push(factor);
            terms.addends.push(addend);
        }
        terms
    }
}

/// Whether a vector of this norm can be scored in `f32`.
pub(super) fn is_regular(norm: f64, metric: Metric) -> bool {
    match metric {
        Metric::Cosine => (LEAST_NORM..GREATEST_NORM).contains(&norm),
        Metric::Dot | Metric::L2 => norm < GREATEST_NORM,
    }
}
