//! Opens a device and makes plans for it; what plans share lives here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::constants::{Constants, Origin};
use super::context::{Device, Facts};
use super::device_reference::{DeviceReference, Filling, HeldReference};
use super::failure::Failure;
use super::kernel_cache::KernelCache;
use super::kernels::{Kernels, LoadedKernel};
use super::matmul::Matmuls;
use super::memory_budget::{MemoryBudget, Share};
use super::pipeline::Pipeline;
use super::plan::{CudaPlan, check_width};
use super::probe::Probe;
use super::slot::Slot;
use super::upload::Uploader;
use crate::cuda::program::{Program, ReferenceSlot, Step};
use crate::cuda::{Kernel, lower};
use crate::{Backend, Error, Graph, Limits, Plan, ReferenceMatrix, Result, Weights};

/// A CUDA device.
pub struct CudaBackend {
    shared: Arc<Shared>,
}

/// What the plans of a device share.
pub(super) struct Shared {
    // Kernels and products end before their context.
    pub(super) kernels: Arc<Kernels>,
    pub(super) matmuls: Matmuls,
    uploads: Mutex<Uploads>,
    uploader: Arc<Mutex<Uploader>>,
    pub(super) device: Arc<Device>,
}

/// What was uploaded and still is there, so that the next plan need not.
#[derive(Default)]
struct Uploads {
    constants: Vec<Weak<Constants>>,
    references: Vec<Weak<DeviceReference>>,
}

impl CudaBackend {
    /// How many devices there are.
    ///
    /// # Errors
    /// Why there is none: a library that is missing, by name, or what the driver says.
    pub fn devices() -> Result<usize, String> {
        Device::count()
    }

    /// Opens the device with that number, from 0 on.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the driver, NVRTC or cuBLASLt is missing (names
    /// what was looked for), when there is no such device, or when the driver refuses it.
    pub fn open(ordinal: usize) -> Result<CudaBackend> {
        let device = Arc::new(Device::open(ordinal)?);
        let shared = Shared::new(&device).map_err(|failure| device.error(failure))?;
        Ok(CudaBackend { shared: Arc::new(shared) })
    }

    /// The device with that number, shared by all tasks of the process that ask for it: they share
    /// its kernels, weights and reference matrices. A device that was lost is opened anew once the
    /// last plan of its old context is gone.
    ///
    /// # Errors
    /// As [`CudaBackend::open`].
    pub fn shared(ordinal: usize) -> Result<Arc<CudaBackend>> {
        static OPENED: Mutex<Vec<(usize, Weak<CudaBackend>)>> = Mutex::new(Vec::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|(_, backend)| backend.strong_count() > 0);
        let of_ordinal = opened.iter().filter(|(number, _)| *number == ordinal);
        let usable =
            of_ordinal.filter_map(|(_, backend)| backend.upgrade()).find(|backend| backend.is_usable());
        if let Some(backend) = usable {
            return Ok(backend);
        }
        let backend = Arc::new(CudaBackend::open(ordinal)?);
        opened.push((ordinal, Arc::downgrade(&backend)));
        Ok(backend)
    }

    fn is_usable(&self) -> bool {
        self.shared.device.check().is_ok()
    }

    /// Compiles kernels ahead of the plans that want them, by up to so many threads at once; they are
    /// kept, in memory and on disk.
    ///
    /// # Errors
    /// When one does not compile, or the device fails.
    pub fn prepare(&self, kernels: &[Kernel], threads: usize) -> Result<()> {
        let shared = &self.shared;
        shared.device.check()?;
        let made = shared.kernels.get_all(kernels, threads);
        made.map(drop).map_err(|failure| shared.device.error(failure))
    }

    /// The rates that this device reaches, for benchmarks.
    ///
    /// # Errors
    /// When the device fails, or has less than a few GiB left.
    pub fn probe(&self) -> Result<Probe> {
        let shared = &self.shared;
        shared.device.check()?;
        Probe::measure(&shared.device, &shared.matmuls).map_err(|failure| shared.device.error(failure))
    }

    /// What the driver says of the device.
    pub fn facts(&self) -> &Facts {
        self.shared.device.facts()
    }
}

impl Backend for CudaBackend {
    fn device(&self) -> String {
        self.shared.device.label().to_owned()
    }

    fn compile(
        &self,
        graph: &Graph,
        weights: &Weights,
        references: &[Arc<ReferenceMatrix>],
        limits: &Limits,
    ) -> Result<Box<dyn Plan>> {
        let shared = &self.shared;
        shared.device.check()?;
        check_references(graph, references)?;
        let program = Arc::new(lower(graph)?);
        let kernels = shared
            .kernels
            .get_all(&program.kernels, limits.threads)
            .map_err(|failure| shared.device.error(failure))?;
        let budget = MemoryBudget::new(limits.memory_bytes_max);
        let constants = shared.constants(&budget, Origin::new(&program, graph, weights)?)?;
        let held = (0..program.references.len())
            .map(|slot| {
                let reference = program.references[slot].reference;
                let matrix = &references[reference.0 as usize];
                shared.reference(&budget, &program, &kernels, ReferenceSlot(slot), matrix).map(Arc::new)
            })
            .collect::<Result<Vec<_>>>()?;
        for reference in &held {
            reference.reference.wait().map_err(|failure| shared.device.error(failure))?;
        }
        let in_flight_max = limits.in_flight_max.max(1);
        let workspace_bytes =
            workspace_bytes(&program, shared.device.facts(), budget.bytes_left(), in_flight_max);
        let searches = program.steps.iter().any(|step| matches!(step, Step::Scan(_)));
        let idle = (0..in_flight_max)
            .map(|_| Slot::new(&shared.device, &budget, workspace_bytes, searches))
            .collect::<Result<Vec<_>, Failure>>()
            .map_err(|failure| shared.device.error(failure))?;
        Ok(Box::new(CudaPlan {
            shared: Arc::clone(shared),
            program,
            kernels,
            limits: limits.clone(),
            budget,
            pipeline: Pipeline::new(in_flight_max),
            idle,
            expected: vec![None; held.len()],
            references: held,
            reference_widths: graph.references().iter().map(|reference| reference.width).collect(),
            constants,
            last_end: None,
        }))
    }
}

impl Shared {
    fn new(device: &Arc<Device>) -> Result<Shared, Failure> {
        let uploader = Arc::new(Mutex::new(Uploader::new(device)?));
        let kernels = Arc::new(Kernels::new(device, KernelCache::of_the_user())?);
        Ok(Shared {
            matmuls: Matmuls::new(device.libraries(), &kernels)?,
            kernels,
            uploads: Mutex::default(),
            uploader,
            device: Arc::clone(device),
        })
    }

    fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The constants, counted in the plan's budget; from another plan where it has the same.
    fn constants(&self, budget: &MemoryBudget, origin: Origin) -> Result<(Arc<Constants>, Share)> {
        let device = &self.device;
        let bytes = origin.bytes().map_err(|failure| device.error(failure))?;
        let share = take(budget, bytes, "the weights").map_err(|failure| device.error(failure))?;
        let mut uploads = self.uploads();
        uploads.constants.retain(|constants| constants.strong_count() > 0);
        let there =
            uploads.constants.iter().filter_map(Weak::upgrade).find(|constants| constants.is_of(&origin));
        if let Some(constants) = there {
            return Ok((constants, share));
        }
        let mut uploader = self.uploader.lock().unwrap_or_else(PoisonError::into_inner);
        let constants = Constants::upload(device, &mut uploader, origin)
            .map_err(|failure| device.error(failure.while_doing("uploading the weights")))?;
        let constants = Arc::new(constants);
        uploads.constants.push(Arc::downgrade(&constants));
        Ok((constants, share))
    }

    /// A reference matrix, counted in the plan's budget; from another plan where it has the same. Its
    /// content may still be on its way.
    pub(super) fn reference(
        &self,
        budget: &MemoryBudget,
        program: &Arc<Program>,
        kernels: &[Arc<LoadedKernel>],
        slot: ReferenceSlot,
        matrix: &Arc<ReferenceMatrix>,
    ) -> Result<HeldReference> {
        let device = &self.device;
        let spec = &program.references[slot.0];
        let bytes = DeviceReference::bytes_of(spec, matrix.rows());
        let what = format!("reference matrix `{}`", matrix.name());
        let share = take(budget, bytes, &what).map_err(|failure| device.error(failure))?;
        let mut uploads = self.uploads();
        uploads.references.retain(|reference| reference.strong_count() > 0);
        let there = uploads
            .references
            .iter()
            .filter_map(Weak::upgrade)
            .find(|reference| reference.is_of(matrix, spec));
        if let Some(reference) = there {
            return Ok(HeldReference { reference, _share: share });
        }
        let reference = kernels
            .get(spec.prepare.kernel.0)
            .ok_or_else(|| Failure::Refused(format!("the program has no {:?}", spec.prepare.kernel)))
            .and_then(|prepare| {
                DeviceReference::start(Filling {
                    device: Arc::clone(device),
                    uploader: Arc::clone(&self.uploader),
                    program: Arc::clone(program),
                    slot,
                    prepare: Arc::clone(prepare),
                    matrix: Arc::clone(matrix),
                })
            })
            .map_err(|failure| device.error(failure.while_doing(&format!("uploading {what}"))))?;
        uploads.references.push(Arc::downgrade(&reference));
        Ok(HeldReference { reference, _share: share })
    }
}

fn check_references(graph: &Graph, references: &[Arc<ReferenceMatrix>]) -> Result<()> {
    if references.len() != graph.references().len() {
        return Err(Error::weights(
            "reference matrices",
            format!("the graph needs {}, {} were given", graph.references().len(), references.len()),
        ));
    }
    let mut pairs = graph.references().iter().zip(references);
    pairs.try_for_each(|(wanted, matrix)| check_width(Some(wanted.width), matrix))
}

fn take(budget: &MemoryBudget, bytes: usize, what: &str) -> Result<Share, Failure> {
    budget.try_take(bytes).ok_or_else(|| {
        Failure::OutOfMemory(format!(
            "{what} need {bytes} bytes, {} of {} that may be used are left",
            budget.bytes_left(),
            budget.bytes_max()
        ))
    })
}

/// Scratch for cuBLASLt, per slot: what NVIDIA advises (32 MiB from Hopper on, 8 MiB before), but
/// never more than a sixteenth of what is left; cuBLASLt does without, more slowly.
fn workspace_bytes(program: &Program, facts: &Facts, bytes_left: usize, slots: usize) -> usize {
    let multiplies = program.steps.iter().any(|step| matches!(step, Step::Gemm(_) | Step::Scan(_)));
    let advised = if facts.compute_capability.0 >= 9 { 32 << 20 } else { 8 << 20 };
    let affordable = bytes_left / 16 / slots.max(1);
    let bytes = advised.min(affordable) & !0xffff;
    if multiplies { bytes } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine with a device this shows nothing; `make test-gpu` is for those.
    #[test]
    fn without_a_driver_opening_says_what_was_looked_for_and_does_not_panic() {
        if CudaBackend::devices().is_ok() {
            return;
        }
        let Err(Error::Device { device, reason }) = CudaBackend::open(0) else {
            panic!("opened, or another error");
        };
        assert_eq!(device, "cuda:0");
        assert_eq!(reason, CudaBackend::devices().unwrap_err());
    }
}
