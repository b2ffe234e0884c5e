//! Rows through a plan: columns to tensors, the plan, tensors to columns.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use thalweg_engine::{Error, Result};
use thalweg_tensor::column::{ColumnReader, write_columns};
use thalweg_tensor::op::ReferenceId;
use thalweg_tensor::{Graph, Plan};

use super::compute::{Compute, Computed, RejectedRow};
use super::inputs::Inputs;
use super::{References, tensor_error};

/// A plan, and what was left out of the batches that are under way on it.
pub(super) struct PlanCompute {
    graph: Arc<Graph>,
    plan: Box<dyn Plan>,
    inputs: Inputs,
    indices: Vec<usize>,
    reader: ColumnReader,
    under_way: VecDeque<(usize, Vec<RejectedRow>)>,
}

impl PlanCompute {
    pub(super) fn new(
        graph: Arc<Graph>,
        plan: Box<dyn Plan>,
        inputs: Inputs,
        reader: ColumnReader,
    ) -> PlanCompute {
        PlanCompute { graph, plan, indices: inputs.indices(), inputs, reader, under_way: VecDeque::new() }
    }
}

impl Compute for PlanCompute {
    fn submit(&mut self, rows: &RecordBatch) -> Result<()> {
        let read = self.reader.read(&rows.project(&self.indices)?).map_err(tensor_error)?;
        let rejected = read.rejected.into_iter().map(|one| RejectedRow {
            row: one.row as u32,
            column: self.inputs.column_of(&one.input).into(),
            reason: one.reason,
        });
        self.under_way.push_back((rows.num_rows(), rejected.collect()));
        self.plan.submit(read.batch).map_err(tensor_error)
    }

    fn finish(&mut self) -> Result<Option<Computed>> {
        let Some(finished) = self.plan.finish().map_err(tensor_error)? else { return Ok(None) };
        let (rows, rejected) = self
            .under_way
            .pop_front()
            .ok_or_else(|| Error::internal("the plan finished a batch that it was not given"))?;
        let kept = (!rejected.is_empty()).then(|| {
            let mut next = rejected.iter().map(|one| one.row).peekable();
            (0..rows as u32).filter(|row| next.next_if_eq(row).is_none()).collect()
        });
        Ok(Some(Computed {
            columns: write_columns(&self.graph, &finished.batch).map_err(tensor_error)?,
            kept,
            rejected,
            device_time: finished.device_time,
            copied_bytes: finished.copied_bytes,
        }))
    }

    fn expect_references(&mut self, references: &References) -> Result<()> {
        for (index, matrix) in references.matrices.iter().enumerate() {
            self.plan.expect_reference(ReferenceId(index as u32), matrix).map_err(tensor_error)?;
        }
        Ok(())
    }

    fn set_references(&mut self, references: &Arc<References>) -> Result<()> {
        for (index, matrix) in references.matrices.iter().enumerate() {
            self.plan.set_reference(ReferenceId(index as u32), matrix.clone()).map_err(tensor_error)?;
        }
        Ok(())
    }

    fn device_bytes(&self) -> usize {
        self.plan.device_bytes()
    }
}
