//! A graph as the CPU runs it: stages, their steps, and where each value lies.
//!
//! A *stage* is either steps that a worker takes a chunk of rows through, from the first to the
//! last, without a word to the others, so that what lies between the steps stays in its caches; or
//! a top-k, which wants all queries at once. A value that one stage makes and another reads lies in
//! a *buffer* of the whole batch (or of a part of it, where the batch is too large), as the graph's
//! outputs do. All else lies in *slots* of the worker's arena; two values share one when the last
//! reader of the first is done before the second is made.

use super::step::Step;
use crate::op::{Metric, ValueId};

/// A graph ready to run.
pub(super) struct Program {
    pub(super) values: Vec<ValueInfo>,
    pub(super) stages: Vec<Stage>,
    pub(super) buffers: Vec<BufferInfo>,
    /// Where each output of the graph is found.
    pub(super) outputs: Vec<Output>,
    /// The ragged input that gives each domain its lengths; none for the first, which is rows.
    pub(super) domains: Vec<Option<usize>>,
}

/// What is known of a value.
#[derive(Clone, Debug)]
pub(super) struct ValueInfo {
    /// 0 for one tensor per row; else one tensor per token of the input that the domain stands for.
    pub(super) domain: usize,
    pub(super) width: usize,
    pub(super) last: usize,
    /// Bytes of an element between steps.
    pub(super) element_bytes: usize,
}

impl ValueInfo {
    /// Bytes of one tensor.
    pub(super) fn bytes(&self) -> usize {
        self.width * self.element_bytes
    }
}

/// Where an output of the graph is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// It is that input.
    Input(usize),
    /// It is that buffer.
    Buffer(usize),
}

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is an input of the graph.
    Input(usize),
    /// An output of the graph: as long as the batch.
    Output,
    /// Between stages: as long as a part of the batch.
    Between,
}

/// Memory of a whole batch or a part of it.
#[derive(Clone, Debug)]
pub(super) struct BufferInfo {
    pub(super) role: Role,
    pub(super) domain: usize,
    /// Bytes of one tensor.
    pub(super) bytes: usize,
}

/// See the module.
pub(super) enum Stage {
    Chunked(Chunked),
    TopK(TopK),
}

/// Steps that a chunk of rows is taken through.
pub(super) struct Chunked {
    pub(super) steps: Vec<Step>,
    /// Where each value lies in this stage.
    pub(super) places: Vec<Place>,
    pub(super) slots: Vec<Slot>,
    /// Per domain: bytes of one tensor in all slots, and in the buffers that the steps use.
    pub(super) costs: Vec<Cost>,
    /// Whether weights are read for each chunk, so that it should not be too small.
    pub(super) has_products: bool,
    /// Elements of an attention's head, at most.
    pub(super) head_max: usize,
}

/// Bytes that one tensor of a domain takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) slots: usize,
    pub(super) buffers: usize,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    Slot(usize),
    Buffer(usize),
}

/// Memory of a worker's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) domain: usize,
    /// Bytes of one tensor.
    pub(super) bytes: usize,
}

/// A top-k over all queries.
pub(super) struct TopK {
    /// The buffers of the query, the ids and the scores.
    pub(super) query_buffer: usize,
    pub(super) ids_buffer: usize,
    pub(super) scores_buffer: usize,
    pub(super) reference: usize,
    pub(super) metric: Metric,
    pub(super) k: usize,
}

impl Program {
    pub(super) fn value(&self, id: ValueId) -> &ValueInfo {
        &self.values[id.0 as usize]
    }
}

/// Gives each value that only these steps use a slot; `kept` has those with a buffer.
pub(super) fn place(steps: &[Step], values: &[ValueInfo], kept: &[Option<usize>]) -> (Vec<Place>, Vec<Slot>) {
    let mut last_use = vec![0; values.len()];
    for (index, step) in steps.iter().enumerate() {
        for value in step.reads().chain(step.outputs.iter().copied()) {
            last_use[value.0 as usize] = index;
        }
    }
    let mut places: Vec<Place> =
        kept.iter().map(|buffer| buffer.map_or(Place::Nowhere, Place::Buffer)).collect();
    let mut slots: Vec<Slot> = Vec::new();
    // Until which step each slot is taken.
    let mut taken: Vec<usize> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        for output in &step.outputs {
            let value = output.0 as usize;
            if places[value] != Place::Nowhere {
                continue;
            }
            let info = &values[value];
            let (domain, bytes) = (info.domain, info.bytes());
            // The smallest free slot that is large enough, else the largest of the free ones.
            let free = (0..slots.len()).filter(|slot| taken[*slot] < index && slots[*slot].domain == domain);
            let best = free.min_by_key(|slot| match slots[*slot].bytes >= bytes {
                true => (0, slots[*slot].bytes),
                false => (1, usize::MAX - slots[*slot].bytes),
            });
            let slot = best.unwrap_or_else(|| {
                slots.push(Slot { domain, bytes });
                taken.push(0);
                slots.len() - 1
            });
            slots[slot].bytes = slots[slot].bytes.max(bytes);
            taken[slot] = last_use[value];
            places[value] = Place::Slot(slot);
        }
    }
    (places, slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::step::Kind;

    fn step(inputs: &[u32], outputs: &[u32]) -> Step {
        let ids = |ids: &[u32]| ids.iter().map(|id| ValueId(*id)).collect();
        Step { kind: Kind::Copy, inputs: ids(inputs), outputs: ids(outputs), then: vec![], rounds: false }
    }

    #[test]
    fn values_share_a_slot_only_when_one_is_done_before_the_other_is_made() {
        let values: Vec<ValueInfo> = [4, 8, 2, 8, 1]
            .iter()
            .map(|width| ValueInfo { domain: 0, width: *width, last: *width, element_bytes: 4 })
            .collect();
        // 0 comes in by a buffer; 1 is read by the step that makes 3; 2 dies early.
        let steps = [step(&[0], &[1]), step(&[1], &[2]), step(&[1, 2], &[3]), step(&[3], &[4])];
        let kept = [Some(7), None, None, None, None];
        let (places, slots) = place(&steps, &values, &kept);
        assert_eq!(places[0], Place::Buffer(7));
        for (index, step) in steps.iter().enumerate() {
            for output in &step.outputs {
                let mut others = step.reads().chain(step.outputs.iter().copied().filter(|o| o != output));
                assert!(others.all(|other| places[other.0 as usize] != places[output.0 as usize]), "{index}");
            }
        }
        // 4 takes the smallest slot that is free then, which is 2's.
        assert_eq!(places[4], places[2]);
        assert_eq!(slots.len(), 3);
    }
}
