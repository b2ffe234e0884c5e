//! Large uploads: made up chunk by chunk in pinned memory, copied while the next chunk is made up.

use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream, sys};

use super::context::Device;
use super::device_memory::PinnedMemory;
use super::failure::Failure;

/// Bytes of a chunk: large enough for the full copy rate, small enough to stay in the cache between
/// being written and being read.
const CHUNK_BYTES: usize = 4 << 20;

/// Two chunks and a stream of their own.
pub(super) struct Uploader {
    stream: Arc<CudaStream>,
    chunks: [Chunk; 2],
    next: usize,
}

struct Chunk {
    memory: PinnedMemory,
    copied: CudaEvent,
}

impl Uploader {
    pub(super) fn new(device: &Arc<Device>) -> Result<Uploader, Failure> {
        let chunk = || -> Result<Chunk, Failure> {
            Ok(Chunk {
                memory: PinnedMemory::allocate(device, CHUNK_BYTES)?,
                copied: device.context().new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))?,
            })
        };
        let chunks = [chunk()?, chunk()?];
        Ok(Uploader { stream: device.context().new_stream()?, chunks, next: 0 })
    }

    /// The stream that it copies on.
    pub(super) fn stream(&self) -> &CudaStream {
        &self.stream
    }

    /// Starts copying `bytes` to `to`. `fill(first, chunk)` writes the bytes from number `first` on;
    /// chunks begin at multiples of [`CHUNK_BYTES`].
    ///
    /// # Safety
    /// `to` has that many bytes, and nothing else uses them until [`Uploader::finish`] is back.
    pub(super) unsafe fn upload(
        &mut self,
        to: sys::CUdeviceptr,
        bytes: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Failure> {
        for first in (0..bytes).step_by(CHUNK_BYTES) {
            let chunk = &mut self.chunks[self.next];
            self.next = 1 - self.next;
            chunk.copied.synchronize()?;
            let length = CHUNK_BYTES.min(bytes - first);
            fill(first, &mut chunk.memory.as_mut_slice()[..length]);
            // SAFETY: the caller's promise for the device; the chunk is written again only after its
            // event.
            unsafe { chunk.memory.upload(0, length, to + first as u64, &self.stream) }?;
            chunk.copied.record(&self.stream)?;
        }
        Ok(())
    }

    /// Waits until all is there.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.stream.synchronize()?)
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // The chunks must not be freed under a copy. A lost device copies nothing any more.
        let _ = self.stream.synchronize();
    }
}
