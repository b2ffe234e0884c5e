//! The CUDA backend: a graph becomes a [`Program`], and a device runs it.
//!
//! [`lower()`] decides everything that can be decided without a device: which kernels there are, what
//! is fused, which buffers live when, how many threads run over what. A [`Program`] is a list of
//! steps over buffers; what runs it knows no op. `kernel` writes CUDA C++ as text, needs no
//! header of the toolkit, and compiles with NVRTC alone; the same text compiles with a host compiler
//! under a shim (`tests/shim`), where it goes through the conformance suite.
//!
//! Nothing here but `device` knows the driver, and `device` is there with the feature `cuda` alone.

pub mod centre;
#[cfg(feature = "cuda")]
pub mod device;
pub mod kernel;
mod kernel_entry;
mod kernel_row;
pub mod layout;
pub mod lower;
mod lower_row;
mod lower_steps;
#[cfg(test)]
mod lower_tests;
pub mod program;
pub mod scan;

pub use kernel::Kernel;
pub use layout::Layout;
pub use lower::lower;
pub use program::Program;
