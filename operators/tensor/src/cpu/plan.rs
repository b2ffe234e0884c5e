//! A plan on the CPU: computes a batch when it is given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::program::{Program, Stage};
use super::run::Runner;
use super::top_k::Reference;
use crate::backend::Finished;
use crate::op::ReferenceId;
use crate::{Error, Graph, Plan, ReferenceMatrix, Result, TensorBatch};

/// See the module.
pub(super) struct CpuPlan {
    pub(super) graph: Graph,
    pub(super) program: Arc<Program>,
    pub(super) runner: Runner,
    /// What was computed and not yet asked for.
    pub(super) done: VecDeque<Result<Finished>>,
}

impl Plan for CpuPlan {
    fn submit(&mut self, batch: TensorBatch) -> Result<()> {
        check(&self.graph, &batch)?;
        let start = Instant::now();
        let made = self.runner.run(&self.graph, &self.program, &batch);
        let device_time = start.elapsed();
        self.done.push_back(made.map(|batch| Finished { batch, device_time, copied_bytes: 0 }));
        Ok(())
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn finish(&mut self) -> Result<Option<Finished>> {
        self.done.pop_front().transpose()
    }

    fn set_reference(&mut self, reference: ReferenceId, matrix: Arc<ReferenceMatrix>) -> Result<()> {
        let prepared = prepare(&self.graph, reference.0 as usize, matrix)?;
        self.runner.references[reference.0 as usize] = prepared;
        Ok(())
    }

    fn device_bytes(&self) -> usize {
        let weights = self.program.stages.iter().map(|stage| match stage {
            Stage::Chunked(stage) => stage.steps.iter().map(|step| step.weight_bytes()).sum(),
            Stage::TopK(_) => 0,
        });
        weights.sum::<usize>().div_ceil(Arc::strong_count(&self.program)) + self.runner.bytes()
    }
}

/// A reference matrix of the graph, ready for the metrics that it is compared by.
///
/// # Errors
/// When the graph has none of that number, or it has another width.
pub(super) fn prepare(graph: &Graph, index: usize, matrix: Arc<ReferenceMatrix>) -> Result<Reference> {
    let Some(wanted) = graph.references().get(index) else {
        return Err(Error::weights(
            format!("reference matrix `{}`", matrix.name()),
            format!("the graph has {} of them, this would be number {index}", graph.references().len()),
        ));
    };
    if wanted.width != matrix.width() {
        return Err(Error::weights(
            format!("reference matrix `{}`", wanted.name),
            format!("the graph needs width {}, it has {}", wanted.width, matrix.width()),
        ));
    }
    let metrics = graph.metrics_of(ReferenceId(index as u32));
    Ok(Reference::new(matrix, &metrics))
}

/// Whether a batch is of the graph's input types.
fn check(graph: &Graph, batch: &TensorBatch) -> Result<()> {
    if batch.tensors.len() != graph.inputs().len() {
        return Err(Error::input(
            "batch",
            format!("{} tensors for {} inputs", batch.tensors.len(), graph.inputs().len()),
        ));
    }
    for (input, tensor) in graph.inputs().iter().zip(&batch.tensors) {
        let wanted = graph.value(input.value);
        if !tensor.is_a(wanted) {
            let is_ragged = if tensor.offsets().is_some() { "ragged" } else { "fixed" };
            let has = format!("{is_ragged} {}{:?}", tensor.element(), tensor.dims());
            return Err(Error::input(&*input.name, format!("the graph needs {wanted}, the batch has {has}")));
        }
        if tensor.rows() != batch.rows {
            return Err(Error::input(
                &*input.name,
                format!("{} rows in a batch of {}", tensor.rows(), batch.rows),
            ));
        }
    }
    Ok(())
}
