//! The device side: what runs a [`Program`](super::Program) on a CUDA device.
//!
//! This is the only place that knows the driver, NVRTC and cuBLASLt. They are loaded when a device
//! is opened, so a binary starts without them. What can be decided without a device is in pure
//! modules with tests (`batch_parts`, `arena_bound`, `arrival`, `staging`, `launch`, `pipeline`,
//! `memory_budget`, `kernel_cache`, `conversion`); what is left talks to the driver and decides
//! nothing. `docs/gpu.md` says what of it has run on a device.
//!
//! The rules it lives by: every byte on the device is in a plan's budget before it is allocated;
//! memory for a batch is taken before any of it is started; nothing is freed under a stream that may
//! still use it; a lost device answers every later call with the same error.

mod arena_bound;
mod arrival;
mod backend;
mod batch_parts;
mod compiler;
mod constants;
mod context;
mod conversion;
mod device_memory;
mod device_reference;
mod failure;
mod kernel_cache;
mod kernels;
mod launch;
mod libraries;
mod matmul;
mod memory_budget;
mod pipeline;
mod plain_matmul;
mod plan;
mod probe;
mod run;
mod search_stream;
mod slot;
mod staging;
mod timing;
mod upload;

pub use backend::CudaBackend;
pub use context::Facts;
pub use probe::Probe;

use backend::Shared;
