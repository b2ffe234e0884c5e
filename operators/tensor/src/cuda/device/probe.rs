//! What a device reaches, measured: the yardstick of `make bench-gpu`.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUevent_flags};
use cudarc::driver::{CudaEvent, CudaStream};

use super::context::Device;
use super::device_memory::{DeviceMemory, PinnedMemory};
use super::failure::Failure;
use super::matmul::{MatmulAddresses, MatmulShape, Matmuls};
use super::memory_budget::MemoryBudget;
use super::timing::milliseconds;
use crate::Element;
use crate::cuda::program::Epilogue;

/// Rates, per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// Bytes read and written by a copy on the device.
    pub memory_bytes: f64,
    /// Operations of a large `f16` product with `f32` sums; a multiplication with its addition is two.
    pub matmul_operations: f64,
    /// Bytes of a pinned copy to the device, nothing beside it.
    pub upload_bytes: f64,
    /// Bytes of a pinned copy back, nothing beside it.
    pub download_bytes: f64,
    /// Bytes of the same copy to the device while products run on another stream.
    pub upload_bytes_under_compute: f64,
    /// Bytes of the same copy back while products run on another stream.
    pub download_bytes_under_compute: f64,
}

const COPY_BYTES: usize = 256 << 20;
const MEMORY_BYTES: usize = 1 << 30;
const SIDE: usize = 8_192;
const ROUNDS: usize = 8;

/// What a probe works with.
struct Bench<'a> {
    device: &'a Arc<Device>,
    matmuls: &'a Matmuls,
    compute: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    pinned: PinnedMemory,
    left: DeviceMemory,
    right: DeviceMemory,
    workspace: DeviceMemory,
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        // Nothing is freed under a copy or a product. A lost device has none.
        let _ = self.compute.synchronize();
        let _ = self.copies.synchronize();
    }
}

impl Probe {
    pub(super) fn measure(device: &Arc<Device>, matmuls: &Matmuls) -> Result<Probe, Failure> {
        let budget = MemoryBudget::new(usize::MAX);
        let mut bench = Bench {
            device,
            matmuls,
            compute: device.context().new_stream()?,
            copies: device.context().new_stream()?,
            pinned: PinnedMemory::allocate(device, COPY_BYTES)?,
            left: DeviceMemory::allocate(device, &budget, MEMORY_BYTES)?,
            right: DeviceMemory::allocate(device, &budget, MEMORY_BYTES)?,
            workspace: DeviceMemory::allocate(device, &budget, 32 << 20)?,
        };
        let memory_bytes = bench.memory_rate()?;
        let matmul_operations = bench.matmul_rate()?;
        Ok(Probe {
            memory_bytes,
            matmul_operations,
            upload_bytes: bench.copy_rate(true)?,
            download_bytes: bench.copy_rate(false)?,
            upload_bytes_under_compute: bench.copy_rate_under_compute(true, matmul_operations)?,
            download_bytes_under_compute: bench.copy_rate_under_compute(false, matmul_operations)?,
        })
    }
}

impl Bench<'_> {
    fn event(&self, stream: &CudaStream) -> Result<CudaEvent, Failure> {
        let event = self.device.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
        event.record(stream)?;
        Ok(event)
    }

    /// Seconds of `work` on `stream`, started once before.
    fn seconds(
        &mut self,
        stream: &Arc<CudaStream>,
        mut work: impl FnMut(&mut Self) -> Result<(), Failure>,
    ) -> Result<f64, Failure> {
        work(self)?;
        let begin = self.event(stream)?;
        for _ in 0..ROUNDS {
            work(self)?;
        }
        let end = self.event(stream)?;
        Ok(f64::from(milliseconds(&begin, &end)?) / 1_000.0 / ROUNDS as f64)
    }

    fn memory_rate(&mut self) -> Result<f64, Failure> {
        let stream = Arc::clone(&self.compute);
        let seconds = self.seconds(&stream, |bench| {
            let (to, from) = (bench.right.address(), bench.left.address());
            // SAFETY: both have that many bytes, and live until the streams are done.
            unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, MEMORY_BYTES, bench.compute.cu_stream()) }
                .result()?;
            Ok(())
        })?;
        Ok(2.0 * MEMORY_BYTES as f64 / seconds)
    }

    /// Starts one product.
    fn multiply(&self) -> Result<(), Failure> {
        let shape = MatmulShape {
            rows: SIDE,
            columns: SIDE,
            inner: SIDE,
            element: Element::F16,
            out_element: Element::F16,
            bias: false,
            epilogue: Epilogue::None,
        };
        let matrix_bytes = (SIDE * SIDE * 2) as u64;
        let at = MatmulAddresses {
            x: self.left.address(),
            w: self.left.address() + matrix_bytes,
            out: self.right.address(),
            bias: 0,
            workspace: self.workspace.address(),
            workspace_bytes: self.workspace.bytes(),
        };
        // SAFETY: two matrices of 128 MiB each lie in the first GiB, the third in the second.
        unsafe { self.matmuls.start(&shape, &at, &self.compute) }
    }

    fn matmul_rate(&mut self) -> Result<f64, Failure> {
        let stream = Arc::clone(&self.compute);
        let seconds = self.seconds(&stream, |bench| bench.multiply())?;
        Ok(2.0 * (SIDE as f64).powi(3) / seconds)
    }

    fn copy(&mut self, is_upload: bool) -> Result<(), Failure> {
        // Apart from what the products use.
        let place = self.right.address() + (MEMORY_BYTES - COPY_BYTES) as u64;
        // SAFETY: the last quarter of the second GiB; the pinned buffer lives until the streams are
        // done, and nobody looks into it.
        unsafe {
            match is_upload {
                true => self.pinned.upload(0, COPY_BYTES, place, &self.copies),
                false => self.pinned.download(0, COPY_BYTES, place, &self.copies),
            }
        }
    }

    fn copy_rate(&mut self, is_upload: bool) -> Result<f64, Failure> {
        let stream = Arc::clone(&self.copies);
        let seconds = self.seconds(&stream, |bench| bench.copy(is_upload))?;
        Ok(COPY_BYTES as f64 / seconds)
    }

    /// The copies' rate while products run from before the first until after the last of them.
    fn copy_rate_under_compute(&mut self, is_upload: bool, operations: f64) -> Result<f64, Failure> {
        let alone = self.copy_rate(is_upload)?;
        let copies_seconds = (ROUNDS + 1) as f64 * COPY_BYTES as f64 / alone;
        let product_seconds = 2.0 * (SIDE as f64).powi(3) / operations;
        // Three times as long as the copies take alone, and never more than the launch queue holds.
        let products = ((3.0 * copies_seconds / product_seconds).ceil() as usize).clamp(1, 900);
        for _ in 0..products {
            self.multiply()?;
        }
        let computed = self.event(&Arc::clone(&self.compute))?;
        let rate = self.copy_rate(is_upload)?;
        if computed.try_is_complete()? {
            return Err(Failure::Refused(
                "the products ended before the copies: the rate says nothing".to_owned(),
            ));
        }
        computed.synchronize()?;
        Ok(rate)
    }
}
