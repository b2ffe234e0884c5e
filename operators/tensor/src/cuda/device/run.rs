//! One part of a batch on a slot's stream: copies in, the program's steps, copies back.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream};

use super::device_memory::PinnedMemory;
use super::device_reference::HeldReference;
use super::failure::Failure;
use super::kernels::LoadedKernel;
use super::launch::{Places, grid};
use super::matmul::{MatmulAddresses, MatmulShape, Matmuls};
use super::search_stream::SearchStream;
use super::staging::PartCopies;
use crate::Element;
use crate::cuda::program::{Argument, Counts, Epilogue, Gemm, Launch, Program, ReferenceSlot, Step};
use crate::cuda::scan::{SCORES_BUFFERS, SCORES_MAX, Scan, ScanPart};

/// What runs a program's steps: the device's kernels and products, and where everything is.
pub(super) struct Runner<'a> {
    pub(super) program: &'a Program,
    pub(super) kernels: &'a [Arc<LoadedKernel>],
    pub(super) matmuls: &'a Matmuls,
    pub(super) places: Places<'a>,
    /// Those that the places name: what reads one waits for its arrival.
    pub(super) references: &'a [Arc<HeldReference>],
    /// Scratch of cuBLASLt: where, and how many bytes.
    pub(super) workspace: (u64, usize),
    pub(super) stream: &'a CudaStream,
    /// The stream beside it, where the program searches.
    pub(super) search: Option<&'a SearchStream>,
}

/// Around a part's steps, without its copies.
pub(super) struct PartEvents {
    pub(super) begin: CudaEvent,
    pub(super) end: CudaEvent,
}

impl Runner<'_> {
    /// Starts a part; nothing is waited for.
    ///
    /// # Safety
    /// The places are those of the program for these counts, and everything they name, as well as the
    /// pinned buffers, stays as it is until the stream is past the part.
    pub(super) unsafe fn start(
        &self,
        counts: &Counts,
        copies: &PartCopies,
        input: &PinnedMemory,
        output: &mut PinnedMemory,
        events: &PartEvents,
    ) -> Result<(), Failure> {
        for copy in copies.inputs.iter().filter(|copy| !copy.pinned.is_empty()) {
            let to = self.places.buffer(copy.buffer);
            // SAFETY: the caller's promise.
            unsafe { input.upload(copy.pinned.start, copy.pinned.len(), to, self.stream) }?;
        }
        events.begin.record(self.stream)?;
        // SAFETY: the caller's promise.
        unsafe { self.steps(counts) }?;
        events.end.record(self.stream)?;
        for copy in copies.outputs.iter().filter(|copy| !copy.pinned.is_empty()) {
            let from = self.places.buffer(copy.buffer);
            // SAFETY: the caller's promise.
            unsafe { output.download(copy.pinned.start, copy.pinned.len(), from, self.stream) }?;
        }
        Ok(())
    }

    /// # Safety
    /// As [`Runner::start`].
    unsafe fn steps(&self, counts: &Counts) -> Result<(), Failure> {
        for step in &self.program.steps {
            // SAFETY: the caller's promise.
            match step {
                Step::Gemm(gemm) => unsafe { self.gemm(gemm, counts) }?,
                Step::Launch(launch) => unsafe { self.launch(launch, counts) }?,
                Step::Scan(scan) => unsafe { self.scan(scan, counts) }?,
            }
        }
        Ok(())
    }

    /// # Safety
    /// As [`Runner::start`].
    unsafe fn launch(&self, launch: &Launch, counts: &Counts) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.launch_on(launch, counts, self.stream, |_| 0) }
    }

    /// `shift` is added to each argument.
    ///
    /// # Safety
    /// As [`Runner::start`].
    unsafe fn launch_on(
        &self,
        launch: &Launch,
        counts: &Counts,
        stream: &CudaStream,
        shift: impl Fn(&Argument) -> u64,
    ) -> Result<(), Failure> {
        let Some(grid) = grid(launch, counts)? else {
            return Ok(());
        };
        let Some(kernel) = self.kernels.get(launch.kernel.0) else {
            return Err(Failure::Refused(format!("the program has no {:?}", launch.kernel)));
        };
        for slot in launch.arguments.iter().filter_map(Argument::reference) {
            self.arrival(slot)?;
        }
        let mut arguments = launch
            .arguments
            .iter()
            .map(|argument| Ok(self.places.argument(*argument, counts)? + shift(argument)))
            .collect::<Result<Vec<u64>, Failure>>()?;
        // SAFETY: the caller's promise.
        unsafe { kernel.launch(grid, launch.block, &mut arguments, stream) }
    }

    /// # Safety
    /// As [`Runner::start`].
    unsafe fn gemm(&self, gemm: &Gemm, counts: &Counts) -> Result<(), Failure> {
        let shape = MatmulShape {
            rows: counts.get(gemm.m).saturating_mul(gemm.m_each),
            columns: gemm.n,
            inner: gemm.k,
            element: gemm.element,
            out_element: gemm.element,
            bias: gemm.bias.is_some(),
            epilogue: gemm.epilogue,
        };
        let bias = gemm.bias.map(|bias| self.places.constant(bias)).transpose()?;
        let at = MatmulAddresses {
            x: self.places.buffer(gemm.input),
            w: self.places.constant(gemm.weight)?,
            out: self.places.buffer(gemm.out),
            bias: bias.unwrap_or_default(),
            workspace: self.workspace.0,
            workspace_bytes: self.workspace.1,
        };
        // SAFETY: the caller's promise.
        unsafe { self.matmuls.start(&shape, &at, self.stream) }
    }

    /// Waits until a reference matrix that was replaced is there. What was put on the stream before runs
    /// meanwhile.
    fn arrival(&self, slot: ReferenceSlot) -> Result<(), Failure> {
        self.references.get(slot.0).map_or(Ok(()), |held| held.reference.wait())
    }

    /// # Safety
    /// As [`Runner::start`].
    unsafe fn scan(&self, scan: &Scan, counts: &Counts) -> Result<(), Failure> {
        let Some(search) = self.search else {
            return Err(Failure::Refused("the slot has no stream for searches".to_owned()));
        };
        self.arrival(scan.reference)?;
        let reference = self.places.reference(scan.reference)?;
        let vectors = counts.reference_rows.get(scan.reference.0).copied().unwrap_or_default();
        let mut parts = 0;
        for (number, part) in Scan::parts(counts.rows, vectors).enumerate() {
            let (shape, offsets) = scan_product(scan, &part, number);
            let at = MatmulAddresses {
                x: self.places.buffer(scan.queries) + offsets.queries,
                w: reference.vectors + offsets.vectors,
                out: self.places.buffer(scan.scores) + offsets.scores,
                bias: 0,
                workspace: self.workspace.0,
                workspace_bytes: self.workspace.1,
            };
            let counts = Counts { part, ..counts.clone() };
            let shift = |argument: &Argument| match argument {
                Argument::Buffer(buffer) if *buffer == scan.scores => offsets.scores,
                _ => 0,
            };
            search.before_product(number, self.stream)?;
            // SAFETY: the caller's promise.
            unsafe { self.matmuls.start(&shape, &at, self.stream) }?;
            search.after_product(number, self.stream)?;
            // SAFETY: the caller's promise.
            unsafe { self.launch_on(&scan.select, &counts, search.stream(), shift) }?;
            search.after_selection(number)?;
            parts = number + 1;
        }
        search.join(parts, self.stream)?;
        // SAFETY: the caller's promise.
        unsafe { self.launch(&scan.finish, counts) }
    }
}

/// Bytes from the first query, vector and score to those of a part.
#[derive(Debug, PartialEq, Eq)]
struct PartOffsets {
    queries: u64,
    vectors: u64,
    scores: u64,
}

fn scan_product(scan: &Scan, part: &ScanPart, number: usize) -> (MatmulShape, PartOffsets) {
    let bytes = |rows: usize| (rows * scan.width * scan.element.bytes()) as u64;
    let shape = MatmulShape {
        rows: part.query_count,
        columns: part.tile_count,
        inner: scan.width,
        element: scan.element,
        out_element: Element::F32,
        bias: false,
        epilogue: Epilogue::None,
    };
    let scores = (number % SCORES_BUFFERS * SCORES_MAX * size_of::<f32>()) as u64;
    (shape, PartOffsets { queries: bytes(part.query_first), vectors: bytes(part.tile_first), scores })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::program::{Blocks, BufferId, KernelId, ReferenceSlot};

    #[test]
    fn a_part_of_a_search_begins_at_its_first_query_and_vector() {
        let launch =
            || Launch { kernel: KernelId(0), grid: [Blocks::ONE; 3], block: 32, arguments: Vec::new() };
        let scan = Scan {
            reference: ReferenceSlot(0),
            queries: BufferId(0),
            scores: BufferId(1),
            width: 100,
            element: Element::F16,
            select: launch(),
            finish: launch(),
        };
        let part = ScanPart { query_first: 512, query_count: 88, tile_first: 5_000_000, tile_count: 8_192 };
        let (shape, offsets) = scan_product(&scan, &part, 3);
        assert_eq!((shape.rows, shape.columns, shape.inner), (88, 8_192, 100));
        assert_eq!((shape.element, shape.out_element), (Element::F16, Element::F32));
        assert_eq!(offsets, PartOffsets { queries: 102_400, vectors: 1_000_000_000, scores: 16 << 20 });
    }
}
