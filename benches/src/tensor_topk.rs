//! `tensor_topk_cpu`: the ten nearest of 100,000 vectors by cosine, 256 queries at once, on two
//! threads, against a flat index of faiss.

use std::sync::Arc;

use arrow::buffer::{Buffer, ScalarBuffer};
use thalweg_engine::Result;
use thalweg_tensor::hashing::splitmix64;
use thalweg_tensor::op::Metric;
use thalweg_tensor::{Element, GraphBuilder, ReferenceMatrix, Tensor, TensorBatch, Weights};

use crate::peers;
use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::tensor_case::{THREADS, failed, steady};

const VECTORS: usize = 100_000;
const WIDTH: usize = 384;
const QUERIES: usize = 256;
const K: usize = 10;

/// Runs one side.
///
/// # Errors
/// What fails it; that there is no peer.
pub fn one(role: Role, settings: &Settings) -> Result<Sample> {
    match role {
        Role::Subject => subject(settings),
        Role::Baseline => {
            let seconds = settings.window.as_secs() as usize;
            let numbers = [THREADS, VECTORS, WIDTH, QUERIES, K, seconds];
            let arguments = numbers.map(|number| number.to_string());
            Ok(Sample::default().with("faiss", peers::python("faiss_topk.py", &arguments)?))
        }
    }
}

fn subject(settings: &Settings) -> Result<Sample> {
    let mut builder = GraphBuilder::new();
    let query = builder.tensor("query", Element::F32, [WIDTH]).map_err(failed)?;
    let reference = builder.reference("reference", WIDTH).map_err(failed)?;
    let (ids, scores) = builder.top_k(query, reference, Metric::Cosine, K).map_err(failed)?;
    builder.output("ids", ids).map_err(failed)?;
    builder.output("scores", scores).map_err(failed)?;
    let graph = builder.build().map_err(failed)?;
    let ids = ScalarBuffer::from((0..VECTORS as i64).collect::<Vec<_>>());
    let vectors = ScalarBuffer::from(random(1, VECTORS * WIDTH));
    let matrix = ReferenceMatrix::new("reference", WIDTH, vectors, ids).map_err(failed)?;
    let queries = Buffer::from_vec(random(2, QUERIES * WIDTH));
    let tensor = Tensor::fixed(Element::F32, [WIDTH], QUERIES, queries).map_err(failed)?;
    let batch = TensorBatch { rows: QUERIES, tensors: vec![tensor] };
    steady(&graph, &Weights::default(), &[Arc::new(matrix)], &batch, settings)
}

/// Between -2 and 2, bell-shaped: the sum of four uniform numbers.
pub fn random(seed: u64, count: usize) -> Vec<f32> {
    let number = |index: usize| {
        let bits = splitmix64(splitmix64(seed) ^ index as u64);
        let parts = [0, 16, 32, 48].map(|shift| (bits >> shift & 0xffff) as f32 / 65_536.0);
        parts.iter().sum::<f32>() - 2.0
    };
    (0..count).map(number).collect()
}

/// The report's row.
pub fn rows(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    vec![Row {
        name: name.to_string(),
        value: subject.get("rows_per_second"),
        unit: "queries/s",
        baseline: "faiss-cpu IndexFlatIP, 2 threads",
        baseline_value: baseline.get("faiss"),
        aim: "ratio >= 0.9",
    }]
}
