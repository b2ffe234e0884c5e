//! Nearest neighbours by distance among vectors that lie close together and far from the origin:
//! `|q|^2 - 2 q x + |x|^2` alone would lose them, for its terms are a million times the distances.

use std::sync::Arc;

use arrow::buffer::ScalarBuffer;
use thalweg_tensor::op::{Metric, ReferenceId};
use thalweg_tensor::{Backend, Element, ReferenceMatrix, Result, Tensor, TensorBatch, Weights};

use crate::cases::graph_of;
use crate::compare::numbers;
use crate::generate::{Generate, buffer};
use crate::suite::{Report, limits, next};

const WIDTH: usize = 24;
const VECTORS: usize = 3_000;
const QUERIES: usize = 40;
const K: usize = 10;

/// How far a distance may be off, by its own size. In `f16` such vectors are not told apart.
const TOLERANCE: f64 = 1e-4;

/// Vectors of length about `1e3`, each element about 0.1 from its fellows'.
fn cluster(generate: &mut Generate, vectors: usize, sign: f32) -> Vec<f32> {
    let place = |element: usize| sign * if element.is_multiple_of(3) { -204.0 } else { 205.0 };
    (0..vectors * WIDTH).map(|index| place(index % WIDTH) + 0.1 * generate.normal()).collect()
}

fn matrix(numbers: Vec<f32>) -> Arc<ReferenceMatrix> {
    let ids: ScalarBuffer<i64> = (0..(numbers.len() / WIDTH) as i64).map(|id| id * 7 - 5).collect();
    Arc::new(ReferenceMatrix::new("reference", WIDTH, numbers.into(), ids).unwrap())
}

pub fn run_far_cluster(backend: &dyn Backend) -> Report {
    let mut report = Report { batches: 1, ..Report::default() };
    match find(backend) {
        Ok(None) => {}
        Ok(Some(reason)) => report.fail(reason),
        Err(error) => report.fail(error.to_string()),
    }
    report
}

fn find(backend: &dyn Backend) -> Result<Option<String>> {
    let mut generate = Generate::new(31);
    let graph = graph_of(|builder| {
        let query = builder.tensor("query", Element::F32, [WIDTH])?;
        let reference = builder.reference("reference", WIDTH)?;
        builder.top_k(query, reference, Metric::L2, K).map(|(ids, scores)| vec![ids, scores])
    });
    let mut plan = None;
    // And a new matrix elsewhere: the centre is the matrix's, not the plan's.
    for sign in [1.0, -1.0] {
        let matrix = matrix(cluster(&mut generate, VECTORS, sign));
        let plan = match &mut plan {
            None => {
                let references = [Arc::clone(&matrix)];
                plan.insert(backend.compile(&graph, &Weights::default(), &references, &limits())?)
            }
            Some(plan) => {
                plan.set_reference(ReferenceId(0), Arc::clone(&matrix))?;
                plan
            }
        };
        let queries = buffer(Element::F32, &cluster(&mut generate, QUERIES, sign));
        let queries = Tensor::fixed(Element::F32, [WIDTH], QUERIES, queries)?;
        plan.submit(TensorBatch { rows: QUERIES, tensors: vec![queries.clone()] })?;
        let got = next(&mut **plan)?;
        if let Some(reason) = difference(&matrix, &queries, &got) {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// The first place whose vector is farther than the one that belongs there, or whose score is wrong.
fn difference(matrix: &ReferenceMatrix, queries: &Tensor, got: &TensorBatch) -> Option<String> {
    let (ids, scores) = (got.tensors[0].values::<i64>().unwrap(), numbers(&got.tensors[1]));
    for (row, query) in numbers(queries).chunks(WIDTH).enumerate() {
        let distance = |vector: &[f32]| -> f64 {
            vector.iter().zip(query).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum()
        };
        let all: Vec<f64> = matrix.vectors().chunks(WIDTH).map(distance).collect();
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        for place in 0..K {
            let (id, score, wanted) = (ids[row * K + place], scores[row * K + place], sorted[place]);
            let found = matrix.ids().iter().position(|known| *known == id).map(|at| all[at]);
            let is_near = |distance: f64| (distance - wanted).abs() <= TOLERANCE * wanted;
            if !found.is_some_and(is_near) || !is_near(score) {
                return Some(format!(
                    "query {row}, place {place}: id {id} at {found:?} with score {score}, not one at {wanted}"
                ));
            }
        }
    }
    None
}
