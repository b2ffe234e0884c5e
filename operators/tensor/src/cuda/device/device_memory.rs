//! Memory on the device and pinned memory of the host, freed when dropped.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaStream, result, sys};

use super::context::Device;
use super::failure::Failure;
use super::memory_budget::{MemoryBudget, Share};

/// Allocations begin at multiples of this, as the driver's do; parts of one keep to it, for vector
/// loads and cuBLASLt.
pub(super) const ALIGNMENT: usize = 256;

/// Memory on the device, within a budget.
pub(super) struct DeviceMemory {
    device: Arc<Device>,
    address: sys::CUdeviceptr,
    share: Share,
}

impl DeviceMemory {
    /// At least `bytes` of it, with anything in them.
    pub(super) fn allocate(
        device: &Arc<Device>,
        budget: &MemoryBudget,
        bytes: usize,
    ) -> Result<DeviceMemory, Failure> {
        // A size of 0 is refused by the driver.
        let bytes = bytes.next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        let Some(share) = budget.try_take(bytes) else {
            return Err(Failure::OutOfMemory(format!(
                "{bytes} bytes are needed, {} of {} are left",
                budget.bytes_left(),
                budget.bytes_max()
            )));
        };
        // SAFETY: the context is current, see `Device::check`.
        let address = unsafe { result::malloc_sync(bytes) }
            .map_err(|error| Failure::from(error).while_doing(&format!("allocating {bytes} bytes")))?;
        Ok(DeviceMemory { device: Arc::clone(device), address, share })
    }

    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.share.bytes()
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // A lost context has taken its memory with it. `cuMemFree` waits for work that uses it.
        if self.device.check().is_ok() {
            // SAFETY: allocated by `allocate`, freed here only.
            if let Err(error) = unsafe { result::free_sync(self.address) } {
                let _ = self.device.error(error.into());
            }
        }
    }
}

/// Pinned memory of the host: what the copy engines reach without the processor's help.
pub(super) struct PinnedMemory {
    device: Arc<Device>,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for PinnedMemory {}

impl PinnedMemory {
    /// `bytes` of it, zeroed, so that its bytes may be read.
    pub(super) fn allocate(device: &Arc<Device>, bytes: usize) -> Result<PinnedMemory, Failure> {
        // SAFETY: the context is current. Not write-combined: results are read back from it.
        let start = unsafe { result::malloc_host(bytes.max(ALIGNMENT), 0) }
            .map_err(|error| Failure::from(error).while_doing(&format!("pinning {bytes} bytes")))?
            .cast::<u8>();
        // SAFETY: just allocated with that many bytes.
        unsafe { start.write_bytes(0, bytes) };
        Ok(PinnedMemory { device: Arc::clone(device), start, bytes })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory. The device must not be copying to it.
    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: it has that many initialised bytes.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }

    /// The memory. The device must not be copying to or from it.
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and there is no other reference.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }

    fn address_of(&self, start: usize, bytes: usize) -> Result<*mut c_void, Failure> {
        if start.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return Err(Failure::Refused(format!("{bytes} bytes from {start} on of {} pinned", self.bytes)));
        }
        Ok(self.start.wrapping_add(start).cast())
    }

    /// Starts a copy of `bytes` from `start` on to the device.
    ///
    /// # Safety
    /// `to` has that many bytes, and until the stream is past the copy neither side is written.
    pub(super) unsafe fn upload(
        &self,
        start: usize,
        bytes: usize,
        to: sys::CUdeviceptr,
        stream: &CudaStream,
    ) -> Result<(), Failure> {
        let from = self.address_of(start, bytes)?;
        // SAFETY: the caller's promise.
        unsafe { sys::cuMemcpyHtoDAsync_v2(to, from, bytes, stream.cu_stream()) }.result()?;
        Ok(())
    }

    /// Starts a copy from the device to `bytes` from `start` on.
    ///
    /// # Safety
    /// `from` has that many bytes, and until the stream is past the copy neither side is touched.
    pub(super) unsafe fn download(
        &mut self,
        start: usize,
        bytes: usize,
        from: sys::CUdeviceptr,
        stream: &CudaStream,
    ) -> Result<(), Failure> {
        let to = self.address_of(start, bytes)?;
        // SAFETY: the caller's promise.
        unsafe { sys::cuMemcpyDtoHAsync_v2(to, from, bytes, stream.cu_stream()) }.result()?;
        Ok(())
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        // Pinned memory outlives a lost context, but cannot be given back through it.
        if self.device.check().is_ok() {
            // SAFETY: allocated by `allocate`, freed here only.
            if let Err(error) = unsafe { result::free_host(self.start.cast()) } {
                let _ = self.device.error(error.into());
            }
        }
    }
}
