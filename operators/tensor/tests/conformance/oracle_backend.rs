//! The oracle as a backend, right or wrong on purpose: a suite that no backend fails is none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use thalweg_tensor::backend::Finished;
use thalweg_tensor::op::{Op, ReferenceId};
use thalweg_tensor::{
    Backend, Element, Error, Graph, Limits, Plan, ReferenceMatrix, Result, TensorBatch, Weights,
};

use crate::oracle::{Oracle, Rewrite};
use crate::value::{Value, round_to};

/// What is wrong with a backend.
#[derive(Clone, Copy)]
pub enum Fault {
    None,
    /// Ops mean something else.
    Op(Rewrite),
    /// Values are spoiled after they are made.
    Value(fn(&mut Value)),
    /// The youngest batch comes out first.
    Lifo,
    /// Every third batch differs in a bit.
    Unsteady,
    /// Batches under way see a new reference matrix.
    LateReference,
    /// Batches of any type are taken.
    TakesAll,
    /// Of a batch over the limits, what is beyond them is lost.
    Truncates,
}

pub struct OracleBackend(pub Fault);

struct OraclePlan {
    fault: Fault,
    graph: Graph,
    weights: Weights,
    references: Vec<Arc<ReferenceMatrix>>,
    under_way: VecDeque<(TensorBatch, Vec<Arc<ReferenceMatrix>>)>,
    finished: usize,
    limits: Limits,
}

impl Backend for OracleBackend {
    fn device(&self) -> String {
        "oracle".to_owned()
    }

    fn compile(
        &self,
        graph: &Graph,
        weights: &Weights,
        references: &[Arc<ReferenceMatrix>],
        limits: &Limits,
    ) -> Result<Box<dyn Plan>> {
        weights.check(graph)?;
        let widths = graph.references().iter().map(|reference| reference.width);
        if !widths.eq(references.iter().map(|matrix| matrix.width())) {
            return Err(refused("reference matrices of other widths"));
        }
        Ok(Box::new(OraclePlan {
            fault: self.0,
            graph: graph.clone(),
            weights: weights.clone(),
            references: references.to_vec(),
            under_way: VecDeque::new(),
            finished: 0,
            limits: limits.clone(),
        }))
    }
}

fn refused(reason: &str) -> Error {
    Error::Input { input: "batch".to_owned(), reason: reason.to_owned() }
}

/// As if every value were stored in its element.
fn store(value: &mut Value) {
    let element = value.element;
    value.numbers.iter_mut().for_each(|number| *number = round_to(element, *number));
}

impl OraclePlan {
    fn compute(&self, batch: &TensorBatch, references: &[Arc<ReferenceMatrix>]) -> Result<TensorBatch> {
        let oracle = Oracle::new(&self.graph, &self.weights, references, 0.0)?;
        let values = match self.fault {
            Fault::Op(rewrite) => oracle.outputs_with(batch, rewrite, store),
            Fault::Value(spoil) => oracle.outputs_with(batch, Op::clone, spoil),
            _ => oracle.outputs_with(batch, Op::clone, store),
        };
        let mut tensors: Vec<_> = values.iter().map(Value::to_tensor).collect();
        let is_odd = matches!(self.fault, Fault::Unsteady) && self.finished % 3 == 2;
        if let (true, Some(tensor)) =
            (is_odd, tensors.iter_mut().find(|tensor| tensor.element() == Element::F32))
        {
            let mut bytes = tensor.data().to_vec();
            bytes.iter_mut().step_by(4).for_each(|byte| *byte ^= 1);
            let data = arrow::buffer::Buffer::from(bytes);
            *tensor = thalweg_tensor::Tensor::fixed(Element::F32, tensor.dims(), tensor.rows(), data)?;
        }
        Ok(TensorBatch { rows: batch.rows, tensors })
    }

    fn is_of_the_graph(&self, batch: &TensorBatch) -> bool {
        let inputs = self.graph.inputs();
        inputs.len() == batch.tensors.len()
            && inputs.iter().zip(&batch.tensors).all(|(input, tensor)| {
                tensor.is_a(self.graph.value(input.value)) && tensor.rows() == batch.rows
            })
    }
}

impl Plan for OraclePlan {
    fn submit(&mut self, mut batch: TensorBatch) -> Result<()> {
        if !matches!(self.fault, Fault::TakesAll) && !self.is_of_the_graph(&batch) {
            return Err(refused("is not of the graph's types"));
        }
        if matches!(self.fault, Fault::Truncates) && batch.rows > self.limits.rows_max {
            batch.rows = self.limits.rows_max;
        }
        self.under_way.push_back((batch, self.references.clone()));
        Ok(())
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn finish(&mut self) -> Result<Option<Finished>> {
        let next = match self.fault {
            Fault::Lifo => self.under_way.pop_back(),
            _ => self.under_way.pop_front(),
        };
        let Some((batch, references)) = next else { return Ok(None) };
        let batch = match self.fault {
            Fault::LateReference => self.compute(&batch, &self.references)?,
            _ => self.compute(&batch, &references)?,
        };
        self.finished += 1;
        Ok(Some(Finished { batch, device_time: Duration::ZERO, copied_bytes: 0 }))
    }

    fn set_reference(&mut self, reference: ReferenceId, matrix: Arc<ReferenceMatrix>) -> Result<()> {
        if matrix.width() != self.graph.reference(reference).width {
            return Err(refused("reference matrix of another width"));
        }
        self.references[reference.0 as usize] = matrix;
        Ok(())
    }

    fn device_bytes(&self) -> usize {
        0
    }
}
