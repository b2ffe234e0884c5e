//! A place for one batch under way: a stream, an arena, pinned buffers. Reused by the next batch.

use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream};

use super::context::Device;
use super::device_memory::{DeviceMemory, PinnedMemory};
use super::failure::Failure;
use super::memory_budget::MemoryBudget;
use super::search_stream::SearchStream;

/// What a batch has to itself while it is under way.
pub(super) struct Slot {
    // The order of the fields is that of their end: nothing is freed before the stream is done.
    streams: Streams,
    arena: Option<DeviceMemory>,
    workspace: Option<DeviceMemory>,
    input: Option<PinnedMemory>,
    output: Option<PinnedMemory>,
    done: CudaEvent,
}

/// Waits for its streams when dropped.
struct Streams {
    device: Arc<Device>,
    main: Arc<CudaStream>,
    search: Option<SearchStream>,
}

impl Streams {
    fn synchronize(&self) -> Result<(), Failure> {
        self.main.synchronize()?;
        // A search joins the main stream when all of it is started; what failed in between does not.
        match &self.search {
            Some(search) => Ok(search.stream().synchronize()?),
            None => Ok(()),
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        if self.device.check().is_ok()
            && let Err(failure) = self.synchronize()
        {
            let _ = self.device.error(failure);
        }
    }
}

/// What starting a batch needs of a slot at once.
pub(super) struct SlotParts<'a> {
    pub(super) stream: &'a CudaStream,
    pub(super) search: Option<&'a SearchStream>,
    pub(super) input: &'a PinnedMemory,
    pub(super) output: &'a mut PinnedMemory,
}

impl Slot {
    pub(super) fn new(
        device: &Arc<Device>,
        budget: &MemoryBudget,
        workspace_bytes: usize,
        searches: bool,
    ) -> Result<Slot, Failure> {
        let search = if searches { Some(SearchStream::new(device)?) } else { None };
        let streams = Streams { device: Arc::clone(device), main: device.context().new_stream()?, search };
        let workspace = match workspace_bytes {
            0 => None,
            bytes => Some(DeviceMemory::allocate(device, budget, bytes)?),
        };
        let done = device.context().new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))?;
        Ok(Slot { streams, arena: None, workspace, input: None, output: None, done })
    }

    pub(super) fn stream(&self) -> &CudaStream {
        &self.streams.main
    }

    /// Waits for all that was started.
    pub(super) fn synchronize(&self) -> Result<(), Failure> {
        self.streams.synchronize()
    }

    /// Recorded behind the batch's last copy; waiting for it does not spin.
    pub(super) fn done(&self) -> &CudaEvent {
        &self.done
    }

    /// Where the arena begins; 0 where there is none yet.
    pub(super) fn arena(&self) -> u64 {
        self.arena.as_ref().map_or(0, DeviceMemory::address)
    }

    pub(super) fn arena_bytes(&self) -> usize {
        self.arena.as_ref().map_or(0, DeviceMemory::bytes)
    }

    /// Scratch of cuBLASLt: where, and how many bytes.
    pub(super) fn workspace(&self) -> (u64, usize) {
        self.workspace.as_ref().map_or((0, 0), |memory| (memory.address(), memory.bytes()))
    }

    /// Frees the arena. The slot must be idle.
    pub(super) fn trim(&mut self) {
        self.arena = None;
    }

    /// Makes the arena at least `bytes` large: a little larger where `bytes_max` allows, so that
    /// batches of rising size do not each allocate. The slot must be idle.
    pub(super) fn reserve(
        &mut self,
        budget: &MemoryBudget,
        bytes: usize,
        bytes_max: usize,
    ) -> Result<(), Failure> {
        if self.arena_bytes() >= bytes {
            return Ok(());
        }
        self.trim();
        let device = Arc::clone(&self.streams.device);
        let roomy = DeviceMemory::allocate(&device, budget, roomy(bytes, bytes_max));
        self.arena = Some(match roomy {
            Err(Failure::OutOfMemory(_)) => DeviceMemory::allocate(&device, budget, bytes)?,
            roomy => roomy?,
        });
        Ok(())
    }

    /// The pinned buffers, at least so large. The slot must be idle.
    pub(super) fn pinned(
        &mut self,
        input_bytes: usize,
        output_bytes: usize,
    ) -> Result<(&mut PinnedMemory, &mut PinnedMemory), Failure> {
        let device = Arc::clone(&self.streams.device);
        let input = at_least(&mut self.input, &device, input_bytes)?;
        let output = at_least(&mut self.output, &device, output_bytes)?;
        Ok((input, output))
    }

    /// What was copied back; nothing may be under way.
    pub(super) fn output(&self) -> &[u8] {
        self.output.as_ref().map_or(&[], PinnedMemory::as_slice)
    }

    /// The streams, and the pinned buffers as they are.
    pub(super) fn parts(&mut self) -> Option<SlotParts<'_>> {
        match (&self.input, &mut self.output) {
            (Some(input), Some(output)) => Some(SlotParts {
                stream: &self.streams.main,
                search: self.streams.search.as_ref(),
                input,
                output,
            }),
            _ => None,
        }
    }
}

fn at_least<'a>(
    buffer: &'a mut Option<PinnedMemory>,
    device: &Arc<Device>,
    bytes: usize,
) -> Result<&'a mut PinnedMemory, Failure> {
    let memory = match buffer.take() {
        Some(memory) if memory.bytes() >= bytes => memory,
        // Pinning costs more than a copy: a quarter more spares the next ones.
        _ => PinnedMemory::allocate(device, bytes + bytes / 4)?,
    };
    Ok(buffer.insert(memory))
}

/// A quarter more than is needed, up to what may be used.
fn roomy(bytes: usize, bytes_max: usize) -> usize {
    (bytes + bytes / 4).min(bytes_max).max(bytes)
}

#[cfg(test)]
mod tests {
    use super::roomy;

    #[test]
    fn an_arena_gets_room_to_grow_within_what_it_may_use() {
        assert_eq!(roomy(100, 1_000), 125);
        assert_eq!(roomy(100, 110), 110);
        assert_eq!(roomy(100, 50), 100);
    }
}
