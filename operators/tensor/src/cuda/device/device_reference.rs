//! A reference matrix on the device: vectors in the element that the steps want, norms, ids.

use std::sync::{Arc, Weak};

use super::context::Device;
use super::conversion::convert;
use super::device_memory::{ALIGNMENT, DeviceMemory};
use super::failure::Failure;
use super::kernels::LoadedKernel;
use super::launch::{Places, ReferencePlaces, grid};
use super::memory_budget::{MemoryBudget, Share};
use super::upload::Uploader;
use crate::ReferenceMatrix;
use crate::cuda::program::{Counts, Program, ReferenceSlot, ReferenceSpec};

/// One upload of a reference matrix. Plans of one device share it.
pub(super) struct DeviceReference {
    _memory: DeviceMemory,
    places: ReferencePlaces,
    rows: usize,
    spec: ReferenceSpec,
    source: Weak<ReferenceMatrix>,
}

/// A reference as a plan has it, counted in the plan's own budget until the last batch that uses it
/// is done.
pub(super) struct HeldReference {
    pub(super) reference: Arc<DeviceReference>,
    pub(super) _share: Share,
}

/// Where the parts are, and the bytes of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    norms: usize,
    ids: usize,
    bytes: usize,
}

fn parts(spec: &ReferenceSpec, rows: usize) -> Parts {
    let part = |each: usize| rows.saturating_mul(each).next_multiple_of(ALIGNMENT);
    let norms = part(spec.width * spec.element.bytes());
    let ids = norms + part(4);
    Parts { norms, ids, bytes: (ids + part(8)).max(ALIGNMENT) }
}

impl DeviceReference {
    /// Bytes that a matrix of so many rows takes.
    pub(super) fn bytes_of(spec: &ReferenceSpec, rows: usize) -> usize {
        parts(spec, rows).bytes
    }

    /// Uploads a matrix, computes its norms, and waits until all is there. What runs on other streams
    /// goes on meanwhile.
    pub(super) fn upload(
        device: &Arc<Device>,
        uploader: &mut Uploader,
        program: &Program,
        slot: ReferenceSlot,
        prepare: &LoadedKernel,
        matrix: &Arc<ReferenceMatrix>,
    ) -> Result<DeviceReference, Failure> {
        let Some(spec) = program.references.get(slot.0) else {
            return Err(Failure::Refused(format!("the program has no {slot:?}")));
        };
        let parts = parts(spec, matrix.rows());
        // Counted in each plan's budget; see `HeldReference`.
        let memory = DeviceMemory::allocate(device, &MemoryBudget::new(usize::MAX), parts.bytes)?;
        let places = ReferencePlaces {
            vectors: memory.address(),
            norms: memory.address() + parts.norms as u64,
            ids: memory.address() + parts.ids as u64,
        };
        let each = spec.element.bytes();
        // SAFETY: the parts have room, and nothing else knows the memory yet.
        unsafe {
            uploader.upload(places.vectors, matrix.vectors().len() * each, |first, chunk| {
                convert(&[matrix.vectors()], spec.element, first / each, chunk);
            })?;
            uploader.upload(places.ids, matrix.rows() * 8, |first, chunk| {
                for (bytes, id) in chunk.chunks_exact_mut(8).zip(&matrix.ids()[first / 8..]) {
                    bytes.copy_from_slice(&id.to_le_bytes());
                }
            })?;
        }
        let reference = DeviceReference {
            _memory: memory,
            places,
            rows: matrix.rows(),
            spec: spec.clone(),
            source: Arc::downgrade(matrix),
        };
        reference.prepare(program, slot, prepare, uploader)?;
        uploader.finish()?;
        Ok(reference)
    }

    fn prepare(
        &self,
        program: &Program,
        slot: ReferenceSlot,
        kernel: &LoadedKernel,
        uploader: &Uploader,
    ) -> Result<(), Failure> {
        // Its counts and arguments are of this reference alone.
        let mut counts = Counts { reference_rows: vec![0; slot.0 + 1], ..Counts::default() };
        let mut references = vec![ReferencePlaces::default(); slot.0 + 1];
        counts.reference_rows[slot.0] = self.rows;
        references[slot.0] = self.places;
        let layout = program.layout(&counts);
        let places = Places { arena: 0, layout: &layout, constants: &[], references: &references };
        let launch = &self.spec.prepare;
        let Some(grid) = grid(launch, &counts)? else {
            return Ok(());
        };
        let mut arguments = launch
            .arguments
            .iter()
            .map(|argument| places.argument(*argument, &counts))
            .collect::<Result<Vec<u64>, Failure>>()?;
        // SAFETY: the arguments are the program's, the memory is this reference's.
        unsafe { kernel.launch(grid, launch.block, &mut arguments, uploader.stream()) }
    }

    pub(super) fn places(&self) -> ReferencePlaces {
        self.places
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it is what `matrix` becomes under `spec`.
    pub(super) fn is_of(&self, matrix: &Arc<ReferenceMatrix>, spec: &ReferenceSpec) -> bool {
        std::ptr::eq(self.source.as_ptr(), Arc::as_ptr(matrix))
            && (self.spec.width, self.spec.element) == (spec.width, spec.element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Element;
    use crate::cuda::program::{Blocks, KernelId, Launch};
    use crate::op::ReferenceId;

    #[test]
    fn parts_are_aligned_and_do_not_touch() {
        let prepare =
            Launch { kernel: KernelId(0), grid: [Blocks::ONE; 3], block: 32, arguments: Vec::new() };
        let spec = ReferenceSpec { reference: ReferenceId(0), width: 3, element: Element::F16, prepare };
        assert_eq!(parts(&spec, 0), Parts { norms: 0, ids: 0, bytes: 256 });
        assert_eq!(parts(&spec, 1), Parts { norms: 256, ids: 512, bytes: 768 });
        assert_eq!(parts(&spec, 1_000), Parts { norms: 6_144, ids: 10_240, bytes: 18_432 });
    }
}
