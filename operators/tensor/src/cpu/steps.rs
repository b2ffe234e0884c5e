//! Steps as they are put together: an op that works in place joins the step that made its input,
//! where nobody else reads that.

use super::step::{Kind, RowOp, Step};
use crate::op::ValueId;

/// The steps of a stage, so far.
pub(super) struct Steps {
    /// None where a step turned out not to be needed.
    steps: Vec<Option<Step>>,
    /// The step that made each value.
    made_by: Vec<Option<usize>>,
    /// Whether row ops may join the step that made a value.
    is_open: Vec<bool>,
}

impl Steps {
    /// None yet, of a graph of so many values.
    pub(super) fn new(values: usize) -> Steps {
        Steps { steps: Vec::new(), made_by: vec![None; values], is_open: vec![false; values] }
    }

    /// All of them, in order.
    pub(super) fn finish(self) -> Vec<Step> {
        self.steps.into_iter().flatten().collect()
    }

    /// A step of its own.
    pub(super) fn push(&mut self, kind: Kind, inputs: Vec<ValueId>, outputs: Vec<ValueId>) {
        for output in &outputs {
            self.made_by[output.0 as usize] = Some(self.steps.len());
        }
        self.steps.push(Some(Step { kind, inputs, outputs, then: Vec::new(), rounds: false }));
    }

    /// Row ops may join the step that made this value.
    pub(super) fn open(&mut self, value: ValueId) {
        self.is_open[value.0 as usize] = true;
    }

    /// The step that a row op over `value` may join.
    fn open_step(&self, value: ValueId, uses: &[usize]) -> Option<usize> {
        let index = value.0 as usize;
        self.made_by[index].filter(|_| self.is_open[index] && uses[index] == 1)
    }

    /// `output = op(input)`.
    pub(super) fn follow(&mut self, op: RowOp, input: ValueId, output: ValueId, uses: &[usize]) {
        match self.open_step(input, uses) {
            Some(index) => self.join(index, op, output),
            None => {
                self.push(Kind::Copy, vec![input], vec![output]);
                self.open(output);
                self.join(self.steps.len() - 1, op, output);
            }
        }
    }

    fn join(&mut self, index: usize, op: RowOp, output: ValueId) {
        if let Some(step) = &mut self.steps[index] {
            step.then.push(op);
            step.outputs = vec![output];
        }
        self.made_by[output.0 as usize] = Some(index);
        self.open(output);
    }

    /// `output = left + right`: joins the later of the steps that made them, as the other is made
    /// by then.
    pub(super) fn add(&mut self, left: ValueId, right: ValueId, output: ValueId, uses: &[usize]) {
        let made = |value: ValueId| self.made_by[value.0 as usize];
        let (later, earlier) = if made(left) >= made(right) { (left, right) } else { (right, left) };
        if made(later) == made(earlier) && made(later).is_some() {
            // The same value twice, or both of one step: neither can go on in place.
            self.push(Kind::Copy, vec![later], vec![output]);
            self.open(output);
            self.join(self.steps.len() - 1, RowOp::Add(earlier), output);
            return;
        }
        self.follow(RowOp::Add(earlier), later, output, uses);
    }

    /// Where `input` is L2-normalised for one reader alone: takes that off the step that makes it,
    /// and gives what to read instead, with the epsilon.
    pub(super) fn take_normalise(&mut self, input: ValueId, uses: &[usize]) -> (ValueId, Option<f32>) {
        let Some(index) = self.open_step(input, uses) else { return (input, None) };
        let Some(step) = &mut self.steps[index] else { return (input, None) };
        let Some(RowOp::L2Normalise { epsilon }) = step.then.last() else { return (input, None) };
        let epsilon = *epsilon;
        step.then.pop();
        if step.then.is_empty() && matches!(step.kind, Kind::Copy) {
            let source = step.inputs[0];
            self.steps[index] = None;
            return (source, Some(epsilon));
        }
        (input, Some(epsilon))
    }
}
