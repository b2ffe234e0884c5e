//! `tensor_normalise_cpu`: L2 normalise and quantise vectors of 384, bytes read and written per
//! second, against a bare copy that reads and writes as many on as many threads.

use std::hint::black_box;

use arrow::buffer::Buffer;
use thalweg_engine::Result;
use thalweg_tensor::{Element, GraphBuilder, Tensor, TensorBatch, Weights};

use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::tensor_case::{THREADS, failed, steady};
use crate::tensor_topk::random;
use crate::usage::Meter;

const WIDTH: usize = 384;
const ROWS: usize = 100_000;

/// Read and written for a row: the vector, its bytes and its scale.
const ROW_BYTES: usize = WIDTH * size_of::<f32>() + WIDTH + size_of::<f32>();

/// Runs one side.
///
/// # Errors
/// What fails it.
pub fn one(role: Role, settings: &Settings) -> Result<Sample> {
    match role {
        Role::Subject => subject(settings),
        Role::Baseline => Ok(copy(settings)),
    }
}

fn subject(settings: &Settings) -> Result<Sample> {
    let mut builder = GraphBuilder::new();
    let vector = builder.tensor("vector", Element::F32, [WIDTH]).map_err(failed)?;
    let normal = builder.l2_normalise(vector).map_err(failed)?;
    let (bytes, scales) = builder.quantise(normal).map_err(failed)?;
    builder.output("bytes", bytes).map_err(failed)?;
    builder.output("scales", scales).map_err(failed)?;
    let graph = builder.build().map_err(failed)?;
    let vectors = Buffer::from_vec(random(3, ROWS * WIDTH));
    let tensor = Tensor::fixed(Element::F32, [WIDTH], ROWS, vectors).map_err(failed)?;
    let batch = TensorBatch { rows: ROWS, tensors: vec![tensor] };
    steady(&graph, &Weights::default(), &[], &batch, settings)
}

/// Half of a batch's bytes are read and half are written, each thread its share.
fn copy(settings: &Settings) -> Sample {
    let words = ROWS * ROW_BYTES / 2 / size_of::<u64>();
    let from: Vec<u64> = (0..words as u64).collect();
    let mut to = vec![1u64; words];
    let share = words.div_ceil(THREADS);
    let mut once = || {
        std::thread::scope(|scope| {
            for (from, to) in from.chunks(share).zip(to.chunks_mut(share)) {
                scope.spawn(|| to.copy_from_slice(black_box(from)));
            }
        });
        black_box(&mut to);
    };
    once();
    let meter = Meter::start(0);
    let mut rows = 0;
    while meter.elapsed() < settings.window {
        once();
        rows += ROWS as u64;
    }
    meter.stop(rows)
}

/// The report's row.
pub fn rows(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    let rate = |sample: &Sample| sample.get("rows_per_second") * ROW_BYTES as f64 / 1e9;
    vec![Row {
        name: name.to_string(),
        value: rate(subject),
        unit: "GB/s",
        baseline: "a bare copy, 2 threads",
        baseline_value: rate(baseline),
        aim: "ratio >= 0.6",
    }]
}
