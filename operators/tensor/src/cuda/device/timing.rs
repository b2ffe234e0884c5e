//! The time between two events.
//!
//! By the function that every driver since CUDA 12 has: the one that cudarc's bindings of CUDA 13 call
//! came with 12.8, and an older driver would be refused for it.

use cudarc::driver::CudaEvent;
use cudarc::driver::sys::{self, CUevent, CUresult};

use super::failure::Failure;

/// Its name in the driver, see [`Libraries`](super::libraries::Libraries).
pub(super) const ELAPSED_TIME: &str = "cuEventElapsedTime";

type ElapsedTime = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;

/// Milliseconds from the one event to the other; waits for both. Below 0 where they were passed the
/// other way round.
///
/// # Errors
/// When the device fails, or was not told to time one of them.
pub(super) fn milliseconds(begin: &CudaEvent, end: &CudaEvent) -> Result<f32, Failure> {
    begin.synchronize()?;
    end.synchronize()?;
    // SAFETY: an event is there only where the driver was loaded; the type is the driver's.
    let elapsed_time = unsafe { sys::culib().get::<ElapsedTime>(ELAPSED_TIME.as_bytes()) }
        .map_err(|error| Failure::Refused(error.to_string()))?;
    let mut milliseconds = 0.0;
    // SAFETY: both events live and are of one context, which is current since they were waited for.
    unsafe { elapsed_time(&mut milliseconds, begin.cu_event(), end.cu_event()) }.result()?;
    Ok(milliseconds)
}
