//! Which bytes of a batch go where: between its tensors, the pinned buffers and the arena. Pure.
//!
//! Inputs are staged part by part, tensor by tensor, each axis' own offsets behind its tensor.
//! Outputs come back to where they stand in the whole batch, so that parts need not be joined.

use std::ops::Range;

use arrow::buffer::{Buffer, OffsetBuffer};

use super::batch_parts::rebased;
use super::failure::Failure;
use crate::cuda::program::{AxisId, BufferId, Port, Program};
use crate::{Result, Tensor, TensorBatch};

/// A copy between a pinned buffer and a buffer of the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Where in the pinned buffer.
    pub(super) pinned: Range<usize>,
    /// Which buffer of the program, from its first byte on.
    pub(super) buffer: BufferId,
}

/// The copies of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartCopies {
    pub(super) inputs: Vec<Copy>,
    pub(super) outputs: Vec<Copy>,
}

/// The copies of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Staging {
    pub(super) parts: Vec<PartCopies>,
    /// Where each output is in the pinned output buffer, whole.
    pub(super) outputs: Vec<Range<usize>>,
    pub(super) input_bytes: usize,
    pub(super) output_bytes: usize,
}

/// Lines of the cache: neighbours do not share one.
const LINE_BYTES: usize = 64;

/// The offsets of every axis of the program in this batch.
///
/// # Errors
/// When the batch has none where the program needs them.
pub(super) fn axis_offsets<'a>(
    program: &Program,
    batch: &'a TensorBatch,
) -> Result<Vec<&'a OffsetBuffer<i32>>, Failure> {
    let offsets = |input: usize| batch.tensors.get(input).and_then(Tensor::offsets);
    program
        .axes
        .iter()
        .map(|axis| {
            offsets(axis.input).ok_or_else(|| Failure::Refused(format!("input {} has no lengths", axis.name)))
        })
        .collect()
}

/// The tensors of a port in rows `rows` of the batch: a range of packed ones.
fn tensors(port: &Port, rows: &Range<usize>, axes: &[&OffsetBuffer<i32>]) -> Range<usize> {
    match port.axis.and_then(|AxisId(axis)| axes.get(axis)) {
        Some(offsets) => offsets[rows.start] as usize..offsets[rows.end] as usize,
        None => rows.clone(),
    }
}

fn tensor_bytes(port: &Port) -> usize {
    port.dims.iter().product::<usize>() * port.element.bytes()
}

impl Staging {
    /// Of a batch of `rows` rows in these parts.
    pub(super) fn new(
        program: &Program,
        rows: usize,
        axes: &[&OffsetBuffer<i32>],
        parts: &[Range<usize>],
    ) -> Staging {
        let mut staging = Staging::default();
        for port in &program.outputs {
            let begin = staging.output_bytes.next_multiple_of(LINE_BYTES);
            staging.output_bytes = begin + tensors(port, &(0..rows), axes).len() * tensor_bytes(port);
            staging.outputs.push(begin..staging.output_bytes);
        }
        for part in parts {
            let copies = PartCopies {
                inputs: staging.part_inputs(program, axes, part),
                outputs: staging.part_outputs(program, axes, part),
            };
            staging.parts.push(copies);
        }
        staging
    }

    fn part_inputs(
        &mut self,
        program: &Program,
        axes: &[&OffsetBuffer<i32>],
        part: &Range<usize>,
    ) -> Vec<Copy> {
        let mut copies = Vec::new();
        let mut add = |bytes: usize, buffer: BufferId| {
            let begin = self.input_bytes.next_multiple_of(LINE_BYTES);
            self.input_bytes = begin + bytes;
            copies.push(Copy { pinned: begin..begin + bytes, buffer });
        };
        for port in &program.inputs {
            add(tensors(port, part, axes).len() * tensor_bytes(port), port.buffer);
        }
        for axis in &program.axes {
            add((part.len() + 1) * size_of::<i32>(), axis.offsets);
        }
        copies
    }

    fn part_outputs(&self, program: &Program, axes: &[&OffsetBuffer<i32>], part: &Range<usize>) -> Vec<Copy> {
        let of_port = |(port, whole): (&Port, &Range<usize>)| {
            let (tensors, each) = (tensors(port, part, axes), tensor_bytes(port));
            Copy {
                pinned: whole.start + tensors.start * each..whole.start + tensors.end * each,
                buffer: port.buffer,
            }
        };
        program.outputs.iter().zip(&self.outputs).map(of_port).collect()
    }

    /// Writes what the device is to read into the pinned input buffer.
    pub(super) fn fill(
        &self,
        program: &Program,
        batch: &TensorBatch,
        axes: &[&OffsetBuffer<i32>],
        parts: &[Range<usize>],
        pinned: &mut [u8],
    ) {
        for (part, copies) in parts.iter().zip(&self.parts) {
            let (data, offsets) = copies.inputs.split_at(program.inputs.len());
            for ((port, tensor), copy) in program.inputs.iter().zip(&batch.tensors).zip(data) {
                let (tensors, each) = (tensors(port, part, axes), tensor_bytes(port));
                pinned[copy.pinned.clone()]
                    .copy_from_slice(&tensor.data()[tensors.start * each..tensors.end * each]);
            }
            for (axis, copy) in axes.iter().zip(offsets) {
                let own = rebased(axis, part);
                for (bytes, offset) in pinned[copy.pinned.clone()].chunks_exact_mut(4).zip(own) {
                    bytes.copy_from_slice(&offset.to_le_bytes());
                }
            }
        }
    }

    /// Bytes that are copied to the device and back.
    pub(super) fn copied_bytes(&self) -> usize {
        let copies = self.parts.iter().flat_map(|part| part.inputs.iter().chain(&part.outputs));
        copies.map(|copy| copy.pinned.len()).sum()
    }

    /// The outputs of the whole batch, out of the pinned output buffer.
    ///
    /// # Errors
    /// When they are not what the program says.
    pub(super) fn unload(
        &self,
        program: &Program,
        rows: usize,
        axes: &[OffsetBuffer<i32>],
        pinned: &[u8],
    ) -> Result<TensorBatch> {
        let tensor = |(port, range): (&Port, &Range<usize>)| {
            let data = Buffer::from(&pinned[range.clone()]);
            match port.axis.and_then(|AxisId(axis)| axes.get(axis)) {
                Some(offsets) => Tensor::ragged(port.element, port.dims.clone(), offsets.clone(), data),
                None => Tensor::fixed(port.element, port.dims.clone(), rows, data),
            }
        };
        let tensors = program.outputs.iter().zip(&self.outputs).map(tensor).collect::<Result<_>>()?;
        Ok(TensorBatch { rows, tensors })
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use crate::Element;
    use crate::cuda::program::{Axis, BufferSpec, Count, Size};

    /// Tokens in, the same tokens out, and a pair of halves per row in between.
    fn program() -> Program {
        let port = |name: &str, buffer, element, axis, dims: &[usize]| Port {
            name: name.into(),
            buffer: BufferId(buffer),
            element,
            axis,
            dims: dims.to_vec(),
        };
        let tokens = port("tokens", 0, Element::I32, Some(AxisId(0)), &[]);
        let pairs = port("pairs", 2, Element::F16, None, &[2]);
        Program {
            axes: vec![Axis { name: "tokens".into(), input: 0, offsets: BufferId(1) }],
            inputs: vec![tokens.clone(), pairs.clone()],
            outputs: vec![pairs, tokens],
            buffers: vec![BufferSpec { size: Size::of(Count::Rows, 1), live: 0..=0 }; 3],
            constants: Vec::new(),
            references: Vec::new(),
            kernels: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn batch() -> TensorBatch {
        let offsets = OffsetBuffer::<i32>::from_lengths([2, 0, 3, 1]);
        let tokens = Buffer::from_vec(vec![10_i32, 11, 30, 31, 32, 40]);
        let pairs = Buffer::from_vec((0..8_u16).collect::<Vec<_>>());
        TensorBatch {
            rows: 4,
            tensors: vec![
                Tensor::ragged(Element::I32, [], offsets, tokens).unwrap(),
                Tensor::fixed(Element::F16, [2], 4, pairs).unwrap(),
            ],
        }
    }

    /// What a device would do that copies its inputs to its outputs.
    fn echo(staging: &Staging, input: &[u8], output: &mut [u8]) {
        for part in &staging.parts {
            for copy in &part.outputs {
                let from = part.inputs.iter().find(|input| input.buffer == copy.buffer).unwrap();
                output[copy.pinned.clone()].copy_from_slice(&input[from.pinned.clone()]);
            }
        }
    }

    #[test]
    fn a_batch_in_any_parts_comes_back_whole() {
        let (program, batch) = (program(), batch());
        let axes = axis_offsets(&program, &batch).unwrap();
        for parts in [vec![0..4], vec![0..1, 1..4], vec![0..1, 1..2, 2..3, 3..4], vec![0..2, 2..4]] {
            let staging = Staging::new(&program, 4, &axes, &parts);
            let (mut input, mut output) = (vec![0; staging.input_bytes], vec![0; staging.output_bytes]);
            staging.fill(&program, &batch, &axes, &parts, &mut input);
            echo(&staging, &input, &mut output);
            let owned: Vec<_> = axes.iter().map(|axis| (*axis).clone()).collect();
            let back = staging.unload(&program, 4, &owned, &output).unwrap();
            assert_eq!(back.tensors[0].data(), batch.tensors[1].data(), "{parts:?}");
            assert_eq!(back.tensors[1].data(), batch.tensors[0].data(), "{parts:?}");
            assert_eq!(back.tensors[1].offsets(), batch.tensors[0].offsets());
        }
    }

    #[test]
    fn the_offsets_of_a_part_begin_at_0_and_bytes_are_counted_both_ways() {
        let (program, batch) = (program(), batch());
        let axes = axis_offsets(&program, &batch).unwrap();
        let parts = vec![0..2, 2..4];
        let staging = Staging::new(&program, 4, &axes, &parts);
        let mut input = vec![0; staging.input_bytes];
        staging.fill(&program, &batch, &axes, &parts, &mut input);
        let offsets = &staging.parts[1].inputs[2];
        assert_eq!(offsets.buffer, BufferId(1));
        let values: Vec<i32> = input[offsets.pinned.clone()]
            .chunks(4)
            .map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(values, [0, 3, 4]);
        // Tokens and pairs both ways, and two parts of three offsets.
        assert_eq!(staging.copied_bytes(), 2 * (6 * 4 + 16) + 2 * 3 * 4);
    }

    #[test]
    fn an_empty_batch_has_no_parts_and_empty_outputs() {
        let program = program();
        let axis = OffsetBuffer::<i32>::new_empty();
        let staging = Staging::new(&program, 0, &[&axis], &[]);
        assert_eq!((staging.input_bytes, staging.output_bytes), (0, 0));
        let back = staging.unload(&program, 0, &[axis], &[]).unwrap();
        assert_eq!((back.rows, back.tensors[0].rows(), back.tensors[1].tensors()), (0, 0, 0));
    }
}
