//! What a launch's description comes to for one batch: addresses, numbers, a grid. Pure.

use super::failure::Failure;
use crate::cuda::layout::Layout;
use crate::cuda::program::{Argument, Blocks, BufferId, ConstantId, Counts, Launch, ReferenceSlot};

/// Blocks along x, at most (CUDA C++ Programming Guide, Technical Specifications per Compute
/// Capability).
const BLOCKS_X_MAX: usize = i32::MAX as usize;
/// Blocks along y and z, at most.
const BLOCKS_YZ_MAX: usize = 65_535;
/// Threads of a block, at most.
const THREADS_MAX: u32 = 1_024;

/// Where on the device everything is that a program's steps may name.
#[derive(Clone, Debug)]
pub(super) struct Places<'a> {
    /// Where the batch's arena begins.
    pub(super) arena: u64,
    /// Where each buffer is in it.
    pub(super) layout: &'a Layout,
    /// Where each constant is.
    pub(super) constants: &'a [u64],
    /// Where each reference's parts are.
    pub(super) references: &'a [ReferencePlaces],
}

/// Where the parts of a reference matrix are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReferencePlaces {
    pub(super) vectors: u64,
    pub(super) norms: u64,
    pub(super) ids: u64,
    pub(super) centre: u64,
}

impl Places<'_> {
    pub(super) fn buffer(&self, buffer: BufferId) -> u64 {
        self.arena + self.layout.offset(buffer) as u64
    }

    pub(super) fn constant(&self, constant: ConstantId) -> Result<u64, Failure> {
        self.constants.get(constant.0).copied().ok_or_else(|| unknown(constant))
    }

    pub(super) fn reference(&self, slot: ReferenceSlot) -> Result<ReferencePlaces, Failure> {
        self.references.get(slot.0).copied().ok_or_else(|| unknown(slot))
    }

    /// An argument's 8 bytes: an address, or an `i64`.
    pub(super) fn argument(&self, argument: Argument, counts: &Counts) -> Result<u64, Failure> {
        Ok(match argument {
            Argument::Buffer(buffer) => self.buffer(buffer),
            Argument::Constant(constant) => self.constant(constant)?,
            Argument::ReferenceVectors(slot) => self.reference(slot)?.vectors,
            Argument::ReferenceNorms(slot) => self.reference(slot)?.norms,
            Argument::ReferenceIds(slot) => self.reference(slot)?.ids,
            Argument::ReferenceCentre(slot) => self.reference(slot)?.centre,
            Argument::Count(count) => counts.get(count) as u64,
        })
    }
}

fn unknown(what: impl std::fmt::Debug) -> Failure {
    Failure::Refused(format!("the program names {what:?}, which it does not have"))
}

/// The blocks of a launch; nothing where there are none, for a grid of nothing is refused.
///
/// # Errors
/// When the batch makes a grid that no device takes.
pub(super) fn grid(launch: &Launch, counts: &Counts) -> Result<Option<[u32; 3]>, Failure> {
    let [x, y, z] = launch.grid.map(|blocks: Blocks| blocks.blocks(counts));
    if x == 0 || y == 0 || z == 0 {
        return Ok(None);
    }
    if x > BLOCKS_X_MAX || y > BLOCKS_YZ_MAX || z > BLOCKS_YZ_MAX || launch.block > THREADS_MAX {
        return Err(Failure::Refused(format!(
            "a grid of {x} x {y} x {z} blocks of {} threads is more than a device takes",
            launch.block
        )));
    }
    Ok(Some([x as u32, y as u32, z as u32]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::program::{BufferSpec, Count, KernelId, Program, Size};

    fn blocks(count: Count, times: usize, over: usize) -> Blocks {
        Blocks { count, times, over }
    }

    fn launch(grid: [Blocks; 3]) -> Launch {
        Launch { kernel: KernelId(0), grid, block: 256, arguments: Vec::new() }
    }

    fn rows(rows: usize) -> Counts {
        Counts { rows, ..Counts::default() }
    }

    #[test]
    fn a_grid_is_counted_left_out_where_it_is_empty_and_refused_where_it_is_too_large() {
        let along_x = launch([blocks(Count::Rows, 384, 256), Blocks::ONE, Blocks::ONE]);
        assert_eq!(grid(&along_x, &rows(3)), Ok(Some([5, 1, 1])));
        assert_eq!(grid(&along_x, &rows(0)), Ok(None));
        let along_y = launch([Blocks::ONE, blocks(Count::Rows, 1, 1), Blocks::ONE]);
        assert_eq!(grid(&along_y, &rows(65_535)), Ok(Some([1, 65_535, 1])));
        assert!(matches!(grid(&along_y, &rows(65_536)), Err(Failure::Refused(_))));
        let wide = Launch { block: 2_048, ..along_x };
        assert!(matches!(grid(&wide, &rows(1)), Err(Failure::Refused(_))));
    }

    #[test]
    fn arguments_are_addresses_in_arena_constants_and_references_or_numbers() {
        let buffer = |each| BufferSpec { size: Size::of(Count::Rows, each), live: 0..=1 };
        let program = Program {
            axes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            buffers: vec![buffer(1_000), buffer(10)],
            constants: Vec::new(),
            references: Vec::new(),
            kernels: Vec::new(),
            steps: Vec::new(),
        };
        let counts = rows(2);
        let layout = program.layout(&counts);
        let references = [ReferencePlaces { vectors: 1, norms: 2, ids: 3, centre: 4 }];
        let places = Places { arena: 1 << 20, layout: &layout, constants: &[77], references: &references };
        let at = |argument| places.argument(argument, &counts);
        assert_eq!(at(Argument::Buffer(BufferId(0))), Ok(1 << 20));
        assert_eq!(at(Argument::Buffer(BufferId(1))), Ok((1 << 20) + 2_048));
        assert_eq!(at(Argument::Constant(ConstantId(0))), Ok(77));
        assert_eq!(at(Argument::ReferenceVectors(ReferenceSlot(0))), Ok(1));
        assert_eq!(at(Argument::ReferenceNorms(ReferenceSlot(0))), Ok(2));
        assert_eq!(at(Argument::ReferenceIds(ReferenceSlot(0))), Ok(3));
        assert_eq!(at(Argument::ReferenceCentre(ReferenceSlot(0))), Ok(4));
        assert_eq!(at(Argument::Count(Count::Rows)), Ok(2));
        assert!(at(Argument::Constant(ConstantId(1))).is_err());
        assert!(at(Argument::ReferenceIds(ReferenceSlot(1))).is_err());
    }
}
