//! What the plan promises beyond the numbers, which the conformance suite looks at.

use std::sync::Arc;

use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::op::{Activation, Metric, Pooling};
use crate::weights::StoredTensor;
use crate::{Element, GraphBuilder, Tensor, TensorBatch};

const WIDTH: usize = 48;

/// A layer of an encoder with a look-up behind it: two kinds of stages, ragged and not.
fn graph() -> Result<Graph> {
    let mut graph = GraphBuilder::new();
    let tokens = graph.tokens("tokens", 4_096)?;
    let table = graph.weight("table", [100, WIDTH])?;
    let x = graph.gather(tokens, table, Element::F32)?;
    let square = graph.weight("square", [WIDTH, WIDTH])?;
    let bias = graph.weight("bias", [WIDTH])?;
    let query = graph.matmul(x, square, Some(bias), None)?;
    let attended = graph.attention([query, x, x], 3, false)?;
    let sum = graph.add(attended, x)?;
    let normal = graph.layer_norm(sum, bias, bias, 1e-5)?;
    let wide = graph.weight("wide", [4 * WIDTH, WIDTH])?;
    let inner = graph.matmul(normal, wide, None, Some(Activation::Gelu))?;
    let narrow = graph.weight("narrow", [WIDTH, 4 * WIDTH])?;
    let out = graph.matmul(inner, narrow, None, None)?;
    let pooled = graph.pool(out, Pooling::Mean)?;
    let reference = graph.reference("reference", WIDTH)?;
    let (ids, scores) = graph.top_k(pooled, reference, Metric::Cosine, 5)?;
    graph.output("tokens", out)?;
    graph.output("pooled", pooled)?;
    graph.output("ids", ids)?;
    graph.output("scores", scores)?;
    graph.build()
}

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn plan(limits: &Limits) -> Box<dyn Plan> {
    plan_of(0, limits)
}

/// Plans of other seeds have other weights, and so share nothing.
fn plan_of(seed: u64, limits: &Limits) -> Box<dyn Plan> {
    let graph = graph().unwrap();
    let mut weights = Weights::default();
    for (weight, number) in graph.weights().iter().zip(seed..) {
        let data = Buffer::from_vec(random(number, weight.dims.iter().product()));
        let stored = StoredTensor { element: Element::F32, dims: weight.dims.clone(), data };
        weights.insert(&weight.name, stored).unwrap();
    }
    let vectors = ScalarBuffer::from(random(99, 2_000 * WIDTH));
    let ids = ScalarBuffer::from((0..2_000).collect::<Vec<i64>>());
    let matrix = ReferenceMatrix::new("reference", WIDTH, vectors, ids).unwrap();
    CpuBackend::new().compile(&graph, &weights, &[Arc::new(matrix)], limits).unwrap()
}

fn batch(lengths: &[usize]) -> TensorBatch {
    let ids: Vec<i32> = (0..lengths.iter().sum::<usize>() as i32).map(|id| id * 7 % 100).collect();
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    let tensor = Tensor::ragged(Element::I32, [], offsets, Buffer::from_vec(ids)).unwrap();
    TensorBatch { rows: lengths.len(), tensors: vec![tensor] }
}

fn run(plan: &mut dyn Plan, batch: &TensorBatch) -> Result<TensorBatch> {
    plan.submit(batch.clone())?;
    Ok(plan.finish()?.unwrap().batch)
}

fn data(batch: &TensorBatch) -> Vec<&[u8]> {
    batch.tensors.iter().map(|tensor| tensor.data().as_slice()).collect()
}

fn lengths() -> Vec<usize> {
    (0..200).map(|row| row * 37 % 61).collect()
}

#[test]
fn the_bits_do_not_depend_on_threads_or_on_parts() {
    let batch = batch(&lengths());
    let one = run(&mut *plan(&Limits::default()), &batch).unwrap();
    assert_eq!(one.tensors[1].rows(), 200);
    for limits in [
        Limits { threads: 2, ..Limits::default() },
        Limits { threads: 5, ..Limits::default() },
        Limits { rows_max: 7, threads: 2, ..Limits::default() },
        Limits { tokens_max: 100, ..Limits::default() },
        Limits { memory_bytes_max: 1 << 18, threads: 3, ..Limits::default() },
    ] {
        let other = run(&mut *plan(&limits), &batch).unwrap();
        assert!(data(&one) == data(&other), "{limits:?}");
    }
}

#[test]
fn scratch_stays_within_its_bound_and_does_not_grow_with_the_batch() {
    let small = Limits { memory_bytes_max: 1 << 19, threads: 2, ..Limits::default() };
    // Alone with its weights, so that other tests' plans are not counted.
    let mut plan = plan_of(1_000, &small);
    let before = plan.device_bytes();
    run(&mut *plan, &batch(&lengths())).unwrap();
    let after = plan.device_bytes();
    assert!(after - before <= small.memory_bytes_max, "{} bytes", after - before);
    for _ in 0..3 {
        run(&mut *plan, &batch(&lengths().repeat(5))).unwrap();
        assert!(plan.device_bytes() - before <= small.memory_bytes_max);
    }
}

#[test]
fn a_row_that_fits_nowhere_is_an_error_and_the_plan_goes_on() {
    let small = Limits { memory_bytes_max: 1 << 18, ..Limits::default() };
    let mut plan = plan(&small);
    let error = run(&mut *plan, &batch(&[3, 4_000, 2])).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert_eq!(run(&mut *plan, &batch(&[3, 2])).unwrap().rows, 2);
    let few = Limits { tokens_max: 10, ..Limits::default() };
    let error = run(&mut *self::plan(&few), &batch(&[3, 11])).unwrap_err();
    assert!(error.to_string().contains("11 tokens"), "{error}");
}

#[test]
fn a_batch_of_no_rows_or_no_tokens_has_outputs() {
    let mut plan = plan(&Limits::default());
    let none = run(&mut *plan, &batch(&[])).unwrap();
    assert!(none.rows == 0 && none.tensors.iter().all(|tensor| tensor.data().is_empty()));
    let empty = run(&mut *plan, &batch(&[0, 0])).unwrap();
    assert_eq!(empty.tensors[1].values::<f32>().unwrap(), [0.0; 2 * WIDTH]);
}
