//! An opened device: its context, what is known of it, and whether it is lost.

use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError};

use super::failure::Failure;
use super::libraries::Libraries;
use crate::{Error, Result};

/// A device that was opened. Once lost, it answers every call with why.
pub(super) struct Device {
    libraries: Libraries,
    context: Arc<CudaContext>,
    label: String,
    facts: Facts,
    lost: OnceLock<String>,
}

/// The first with the tensor-core products that attention uses (`mma.m16n8k16`).
const CAPABILITY_MIN: (u32, u32) = (8, 0);

/// What the driver says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// `(9, 0)`.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Of all its memory.
    pub memory_bytes: usize,
    /// Of the second-level cache.
    pub cache_bytes: usize,
    /// What a block may have of shared memory, when it asks.
    pub shared_bytes_max: usize,
    /// Bits of the memory bus.
    pub bus_bits: usize,
    /// The memory's clock, kHz.
    pub memory_clock_khz: usize,
    /// The multiprocessors' clock, kHz.
    pub clock_khz: usize,
    /// The driver's version: `12.8` for 12080.
    pub driver: String,
}

impl Device {
    /// Opens the device with that number.
    ///
    /// # Errors
    /// When a library is missing, there is no such device, or the driver refuses.
    pub(super) fn open(ordinal: usize) -> Result<Device> {
        let label = format!("cuda:{ordinal}");
        let refused = |reason: String| Error::Device { device: label.clone(), reason };
        let libraries = Libraries::find().map_err(refused)?;
        let opened = open_context(ordinal).map_err(|error| refused(spoken(error)))?;
        let facts = facts(&opened).map_err(|error| refused(spoken(error)))?;
        if facts.compute_capability < CAPABILITY_MIN {
            let ((major, minor), (least, _)) = (facts.compute_capability, CAPABILITY_MIN);
            return Err(refused(format!(
                "{} has compute capability {major}.{minor}, the kernels need {least}.0 (Ampere) or later",
                facts.name
            )));
        }
        let label = format!("cuda:{ordinal} ({})", facts.name);
        Ok(Device { libraries, context: opened, label, facts, lost: OnceLock::new() })
    }

    /// How many devices there are.
    ///
    /// # Errors
    /// Why there is none, in words: a missing library, or what the driver says.
    pub(super) fn count() -> Result<usize, String> {
        Libraries::find()?;
        match CudaContext::device_count() {
            Ok(count) if count > 0 => Ok(count as usize),
            Ok(_) => Err("the CUDA driver sees no device".to_owned()),
            Err(error) => Err(spoken(error)),
        }
    }

    pub(super) fn libraries(&self) -> Libraries {
        self.libraries
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// `cuda:0 (NVIDIA H100 80GB HBM3)`.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// `sm_90`: what kernels are compiled for.
    pub(super) fn arch(&self) -> String {
        let (major, minor) = self.facts.compute_capability;
        format!("sm_{major}{minor}")
    }

    /// Whether the device may still be used; makes it current for the calling thread.
    ///
    /// # Errors
    /// When it is lost.
    pub(super) fn check(&self) -> Result<()> {
        match self.lost.get() {
            Some(reason) => Err(self.lost_error(reason)),
            None => self.context.bind_to_thread().map_err(|error| self.error(error.into())),
        }
    }

    /// The failure as an error of this crate; a lost device stays lost.
    pub(super) fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::OutOfMemory(reason) => Error::OutOfMemory { device: self.label.clone(), reason },
            Failure::Refused(reason) => Error::Device { device: self.label.clone(), reason },
            Failure::Lost(reason) => self.lost_error(self.lost.get_or_init(|| reason)),
        }
    }

    fn lost_error(&self, reason: &str) -> Error {
        Error::Device { device: self.label.clone(), reason: format!("the device is lost: {reason}") }
    }
}

fn open_context(ordinal: usize) -> Result<Arc<CudaContext>, DriverError> {
    let context = CudaContext::new(ordinal)?;
    // Streams are kept in order by the slots' own events; nothing here uses cudarc's slices.
    // SAFETY: see above.
    unsafe { context.disable_event_tracking() };
    Ok(context)
}

fn facts(context: &CudaContext) -> Result<Facts, DriverError> {
    // For reports alone: what a driver does not tell must not keep a device from being used.
    let fact = |attribute| context.attribute(attribute).map_or(0, |value| value.max(0) as usize);
    let (major, minor) = context.compute_capability()?;
    let mut version = 0;
    // SAFETY: an integer to write to.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(Facts {
        name: context.name()?,
        compute_capability: (major.max(0) as u32, minor.max(0) as u32),
        multiprocessors: fact(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        memory_bytes: context.total_mem()?,
        cache_bytes: fact(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
        shared_bytes_max: fact(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
        bus_bits: fact(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH),
        memory_clock_khz: fact(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
        clock_khz: fact(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
        driver: format!("{}.{}", version / 1000, version % 1000 / 10),
    })
}

/// The driver's name of an error and its own words.
fn spoken(error: DriverError) -> String {
    let words = error.error_string().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{:?} ({words})", error.0)
}
