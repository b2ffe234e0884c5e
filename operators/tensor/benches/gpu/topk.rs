//! `tensor_topk_gpu`: top-10 by dot product, d = 768, a million vectors in f16, against the roofline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::buffer::{Buffer, ScalarBuffer};
use half::f16;
use thalweg_tensor::op::Metric;
use thalweg_tensor::{
    Backend, Element, Graph, GraphBuilder, Limits, Plan, ReferenceMatrix, Result, Tensor, TensorBatch,
    Weights,
};

use crate::roofline::{Roofline, Side};
use crate::{Bench, line};

const WIDTH: usize = 768;
const VECTORS: usize = 1_000_000;
const NEAREST: usize = 10;
const BATCHES: [usize; 10] = [1, 8, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096];
const MEMORY_AIM: f64 = 0.7;
const TENSOR_AIM: f64 = 0.45;
/// Measured for at least so long, after a warm-up.
const MEASURED: Duration = Duration::from_millis(400);

pub fn run(bench: &Bench) -> Result<()> {
    let roofline = Roofline::of(bench);
    println!(
        "roofline ({}): {:.2} TB/s, {:.0} Tflop/s",
        roofline.source,
        roofline.memory_bytes / 1e12,
        roofline.operations / 1e12
    );
    let started = Instant::now();
    let matrix = Arc::new(matrix()?);
    let made = started.elapsed();
    let limits = Limits { memory_bytes_max: 8 << 30, ..Limits::default() };
    let mut plan = bench.backend.compile(&graph()?, &Weights::default(), &[matrix], &limits)?;
    println!("a million vectors made in {made:.1?}, on the device after {:.1?}", started.elapsed());
    for rows in BATCHES {
        let seconds = seconds(&mut *plan, &queries(rows)?)?;
        let bytes = (VECTORS * WIDTH * 2 + rows * WIDTH * 2) as f64;
        let (best, side) = roofline.seconds(bytes, 2.0 * (VECTORS * WIDTH * rows) as f64);
        let aim = if side == Side::Memory { MEMORY_AIM } else { TENSOR_AIM };
        let what = match side {
            Side::Memory => format!("batch {rows}, memory"),
            Side::TensorCores => format!("batch {rows}, tensor cores"),
        };
        line("tensor_topk_gpu", &what, format!("{:.3} ms", seconds * 1e3), best / seconds, aim);
    }
    Ok(())
}

fn graph() -> Result<Graph> {
    let mut builder = GraphBuilder::new();
    let query = builder.tensor("query", Element::F16, [WIDTH])?;
    let reference = builder.reference("reference", WIDTH)?;
    let (ids, scores) = builder.top_k(query, reference, Metric::Dot, NEAREST)?;
    builder.output("ids", ids)?;
    builder.output("scores", scores)?;
    builder.build()
}

/// Between -1 and 1, the same every time.
fn numbers(seed: u64, count: usize) -> impl Iterator<Item = f32> {
    let mut state = seed;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn matrix() -> Result<ReferenceMatrix> {
    let vectors: Vec<f32> = numbers(1, VECTORS * WIDTH).collect();
    let ids: Vec<i64> = (0..VECTORS as i64).collect();
    ReferenceMatrix::new("reference", WIDTH, ScalarBuffer::from(vectors), ScalarBuffer::from(ids))
}

fn queries(rows: usize) -> Result<TensorBatch> {
    let values: Vec<u16> = numbers(2, rows * WIDTH).map(|value| f16::from_f32(value).to_bits()).collect();
    let tensor = Tensor::fixed(Element::F16, [WIDTH], rows, Buffer::from_vec(values))?;
    Ok(TensorBatch { rows, tensors: vec![tensor] })
}

/// Seconds that the device computes a batch, without its copies.
fn seconds(plan: &mut dyn Plan, batch: &TensorBatch) -> Result<f64> {
    for _ in 0..3 {
        plan.submit(batch.clone())?;
        plan.finish()?;
    }
    let started = Instant::now();
    let (mut computed, mut batches) = (Duration::ZERO, 0);
    while batches < 5 || started.elapsed() < MEASURED {
        plan.submit(batch.clone())?;
        if let Some(finished) = plan.finish()? {
            computed += finished.device_time;
            batches += 1;
        }
    }
    Ok(computed.as_secs_f64() / f64::from(batches))
}
