//! A reference matrix on the device: vectors in the element that the steps want, norms, ids.
//!
//! Memory is taken at once, so that too little of it is an error at once. The content comes on a thread
//! of its own, by a stream of its own: converting it takes the host longer than copying it takes the
//! device, and batches that do not look into it need not wait. Whoever starts something that reads it
//! waits for its arrival before.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::arrival::{Arrival, Teller};
use super::context::Device;
use super::conversion::{Centred, convert};
use super::device_memory::{ALIGNMENT, DeviceMemory};
use super::failure::Failure;
use super::kernels::LoadedKernel;
use super::launch::{Places, ReferencePlaces, grid};
use super::memory_budget::{MemoryBudget, Share};
use super::upload::Uploader;
use crate::ReferenceMatrix;
use crate::cuda::centre::centre;
use crate::cuda::program::{Counts, Program, ReferenceSlot, ReferenceSpec};

/// One upload of a reference matrix. Plans of one device share it.
pub(super) struct DeviceReference {
    // Held by the thread that fills it too: it is not freed under a copy.
    memory: DeviceMemory,
    parts: Parts,
    rows: usize,
    spec: ReferenceSpec,
    source: Weak<ReferenceMatrix>,
    arrival: Arrival,
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
    centre: usize,
    bytes: usize,
}

fn parts(spec: &ReferenceSpec, rows: usize) -> Parts {
    let part = |count: usize, each: usize| count.saturating_mul(each).next_multiple_of(ALIGNMENT);
    let norms = part(rows, spec.width * spec.element.bytes());
    let ids = norms + part(rows, 4);
    let centre = ids + part(rows, 8);
    let bytes = centre + if spec.is_centred { part(spec.width, 4) } else { 0 };
    Parts { norms, ids, centre, bytes: bytes.max(ALIGNMENT) }
}

/// What fills a reference.
pub(super) struct Filling {
    pub(super) device: Arc<Device>,
    pub(super) uploader: Arc<Mutex<Uploader>>,
    pub(super) program: Arc<Program>,
    pub(super) slot: ReferenceSlot,
    pub(super) prepare: Arc<LoadedKernel>,
    pub(super) matrix: Arc<ReferenceMatrix>,
}

impl Filling {
    /// On a thread of its own.
    fn run(self, reference: &DeviceReference, teller: Teller) {
        let mut uploader = self.uploader.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = self.fill(reference, &mut uploader);
        // The next one's chunks are free, and nothing may come to lie where a copy still writes.
        let finished = uploader.finish();
        drop(uploader);
        let what = format!("uploading reference matrix `{}`", self.matrix.name());
        let told = filled.and(finished).map_err(|failure| failure.while_doing(&what));
        if let Err(failure) = &told {
            // A lost device is lost to all.
            let _ = self.device.error(failure.clone());
        }
        teller.tell(told);
    }

    fn fill(&self, reference: &DeviceReference, uploader: &mut Uploader) -> Result<(), Failure> {
        self.device.context().bind_to_thread()?;
        let (places, spec, matrix) = (reference.places(), &reference.spec, &self.matrix);
        let each = spec.element.bytes();
        let centre = if spec.is_centred { centre(matrix) } else { vec![0.0; spec.width] };
        let vectors = Centred { vectors: matrix.vectors(), centre: &centre };
        let is_moved = centre.iter().any(|element| *element != 0.0);
        // SAFETY: the parts have room, and nobody reads the memory before its arrival.
        unsafe {
            uploader.upload(
                places.vectors,
                matrix.vectors().len() * each,
                |first, chunk| match is_moved {
                    true => convert(&[&vectors], spec.element, first / each, chunk),
                    false => convert(&[matrix.vectors()], spec.element, first / each, chunk),
                },
            )?;
            uploader.upload(places.ids, matrix.rows() * 8, |first, chunk| {
                for (bytes, id) in chunk.chunks_exact_mut(8).zip(&matrix.ids()[first / 8..]) {
                    bytes.copy_from_slice(&id.to_le_bytes());
                }
            })?;
            if spec.is_centred {
                uploader.upload(places.centre, spec.width * 4, |first, chunk| {
                    for (bytes, element) in chunk.chunks_exact_mut(4).zip(&centre[first / 4..]) {
                        bytes.copy_from_slice(&element.to_le_bytes());
                    }
                })?;
            }
        }
        reference.prepare(&self.program, self.slot, &self.prepare, uploader)
    }
}

impl DeviceReference {
    /// Bytes that a matrix of so many rows takes.
    pub(super) fn bytes_of(spec: &ReferenceSpec, rows: usize) -> usize {
        parts(spec, rows).bytes
    }

    /// Takes memory for a matrix, and starts to fill it.
    pub(super) fn start(filling: Filling) -> Result<Arc<DeviceReference>, Failure> {
        let Some(spec) = filling.program.references.get(filling.slot.0) else {
            return Err(Failure::Refused(format!("the program has no {:?}", filling.slot)));
        };
        let rows = filling.matrix.rows();
        // A candidate of a search has its place in 32 bits, of which the greatest is nobody's.
        if rows >= u32::MAX as usize {
            return Err(Failure::Refused(format!("a matrix of {rows} vectors is more than a search takes")));
        }
        let parts = parts(spec, rows);
        // Counted in each plan's budget; see `HeldReference`.
        let memory = DeviceMemory::allocate(&filling.device, &MemoryBudget::new(usize::MAX), parts.bytes)?;
        let (arrival, teller) = Arrival::new();
        let source = Arc::downgrade(&filling.matrix);
        let reference =
            Arc::new(DeviceReference { memory, parts, rows, spec: spec.clone(), source, arrival });
        let its = Arc::clone(&reference);
        std::thread::Builder::new()
            .name("reference upload".to_owned())
            .spawn(move || filling.run(&its, teller))
            .map_err(|error| Failure::Refused(format!("no thread for an upload: {error}")))?;
        Ok(reference)
    }

    /// Waits until its content is there: what is started from then on, on any stream, may read it.
    pub(super) fn wait(&self) -> Result<(), Failure> {
        self.arrival.wait()
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
        references[slot.0] = self.places();
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
        let at = |begin: usize| self.memory.address() + begin as u64;
        ReferencePlaces {
            vectors: at(0),
            norms: at(self.parts.norms),
            ids: at(self.parts.ids),
            centre: at(self.parts.centre),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it is, or will be, what `matrix` becomes under `spec`.
    pub(super) fn is_of(&self, matrix: &Arc<ReferenceMatrix>, spec: &ReferenceSpec) -> bool {
        std::ptr::eq(self.source.as_ptr(), Arc::as_ptr(matrix))
            && (self.spec.width, self.spec.element, self.spec.is_centred)
                == (spec.width, spec.element, spec.is_centred)
            && !self.arrival.has_failed()
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
        let spec = ReferenceSpec {
            reference: ReferenceId(0),
            width: 3,
            element: Element::F16,
            is_centred: false,
            prepare,
        };
        assert_eq!(parts(&spec, 0), Parts { norms: 0, ids: 0, centre: 0, bytes: 256 });
        assert_eq!(parts(&spec, 1), Parts { norms: 256, ids: 512, centre: 768, bytes: 768 });
        assert_eq!(parts(&spec, 1_000), Parts { norms: 6_144, ids: 10_240, centre: 18_432, bytes: 18_432 });
        // The centre is there for a matrix without vectors too: queries are moved by it.
        let centred = ReferenceSpec { is_centred: true, ..spec };
        assert_eq!(parts(&centred, 0), Parts { norms: 0, ids: 0, centre: 0, bytes: 256 });
        assert_eq!(parts(&centred, 1_000).bytes, 18_432 + 256);
    }
}
