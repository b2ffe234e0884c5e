//! What the benchmarks of tensors have in common: a plan that is given the same batch over and over.

use std::hint::black_box;
use std::sync::Arc;

use thalweg_engine::{Error, Result};
use thalweg_tensor::{Backend, CpuBackend, Graph, Limits, ReferenceMatrix, TensorBatch, Weights};

use crate::sample::Sample;
use crate::settings::Settings;
use crate::usage::Meter;

/// Threads of both sides.
pub const THREADS: usize = 2;

/// Batches before it counts: scratch and caches are filled by then.
const WARM_UP: usize = 2;

/// An error of the tensor crate.
pub fn failed(error: thalweg_tensor::Error) -> Error {
    Error::external("a tensor benchmark failed").caused_by(error)
}

/// Rows per second of a graph on the CPU.
///
/// # Errors
/// What fails the plan.
pub fn steady(
    graph: &Graph,
    weights: &Weights,
    references: &[Arc<ReferenceMatrix>],
    batch: &TensorBatch,
    settings: &Settings,
) -> Result<Sample> {
    let limits = Limits { threads: THREADS, ..Limits::default() };
    let mut plan = CpuBackend::new().compile(graph, weights, references, &limits).map_err(failed)?;
    let mut run = || -> Result<()> {
        plan.submit(batch.clone()).map_err(failed)?;
        black_box(plan.finish().map_err(failed)?);
        Ok(())
    };
    for _ in 0..WARM_UP {
        run()?;
    }
    let meter = Meter::start(0);
    let mut rows = 0;
    while meter.elapsed() < settings.window {
        run()?;
        rows += batch.rows as u64;
    }
    Ok(meter.stop(rows))
}
