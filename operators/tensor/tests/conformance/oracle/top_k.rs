//! Nearest neighbours by comparing with all.

use std::rc::Rc;

use thalweg_tensor::ReferenceMatrix;
use thalweg_tensor::op::{Metric, Op};

use super::{stored_slack, u32s};
use crate::tolerance::units;
use crate::value::{Ranking, Value};

pub fn top_k(
    op: &Op,
    queries: &Value,
    matrix: &ReferenceMatrix,
    (metric, k): (Metric, usize),
    made: &mut [Value],
) {
    let (mut scores, mut slack) = (Vec::new(), Vec::new());
    let [ids, best] = made else { unreachable!("top_k makes two values") };
    let (width, rows) = (matrix.width(), matrix.rows());
    for row in 0..queries.rows {
        let query: Vec<(f64, f64)> =
            (row * width..(row + 1) * width).map(|index| queries.at(index)).collect();
        let first = scores.len();
        for vector in matrix.vectors().chunks_exact(width) {
            let (score, off) = compare(op, metric, &query, vector, stored_slack(queries.element));
            scores.push(score);
            slack.push(if off.is_nan() { 0.0 } else { off });
        }
        let order = ranked(metric, &scores[first..]);
        // Neighbours in rank may change places, so a place's score is as far off as any.
        let worst = slack[first..].iter().copied().fold(0.0, f64::max);
        for place in 0..k {
            match order.get(place) {
                Some(&vector) => {
                    ids.integers.push(matrix.ids()[vector]);
                    best.push(scores[first + vector], worst);
                }
                None => {
                    ids.integers.push(-1);
                    best.push(f64::NAN, 0.0);
                }
            }
        }
        assert_eq!(scores.len(), first + rows);
    }
    let ranking = Rc::new(Ranking { ids: matrix.ids().to_vec(), scores, slack, k });
    (ids.ranking, best.ranking) = (Some(ranking.clone()), Some(ranking));
}

/// Vectors by score, the nearest first, NaN last, ties by place.
fn ranked(metric: Metric, scores: &[f64]) -> Vec<usize> {
    let key = |&vector: &usize| {
        let score = if metric == Metric::L2 { -scores[vector] } else { scores[vector] };
        (score.is_nan(), if score.is_nan() { 0.0 } else { -score })
    };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| key(a).partial_cmp(&key(b)).expect("no NaN is compared"));
    order
}

fn compare(op: &Op, metric: Metric, query: &[(f64, f64)], vector: &[f32], stored: f64) -> (f64, f64) {
    let own = units(op, vector.len());
    let (mut dot, mut distance, mut dots, mut carried) = (0.0, 0.0, 0.0, 0.0);
    let (mut query_square, mut vector_square) = (0.0, 0.0);
    for (&(q, off), &v) in query.iter().zip(vector) {
        let v = f64::from(v);
        dot += q * v;
        dots += (q * v).abs();
        distance += (q - v).powi(2);
        query_square += q * q;
        vector_square += v * v;
        carried += match metric {
            Metric::L2 => (2.0 * (q - v) * off).powi(2) + off.powi(4),
            _ => (v * off).powi(2),
        };
    }
    let carried = carried.sqrt();
    let magnitude = query_square + vector_square + 2.0 * dots;
    let norms = query_square.sqrt() * vector_square.sqrt();
    match metric {
        Metric::Dot => (dot, carried + u32s(own, dots) + stored * dots),
        Metric::L2 => (distance, carried + u32s(own, magnitude) + stored * magnitude),
        Metric::Cosine if norms == 0.0 => (0.0, 0.0),
        Metric::Cosine => (dot / norms, 2.0 * (carried / norms + u32s(own, 1.0) + stored)),
    }
}
