//! Kernels on a device: compiled once, kept on disk, loaded once.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaStream, result, sys};

use super::compiler;
use super::context::Device;
use super::failure::Failure;
use super::kernel_cache::{KernelCache, Recipe};
use crate::cuda::kernel::{Kernel, NVRTC_OPTIONS};

/// The kernels of one device.
pub(super) struct Kernels {
    device: Arc<Device>,
    cache: KernelCache,
    compiler: String,
    loaded: Mutex<HashMap<blake3::Hash, Arc<LoadedKernel>>>,
}

/// A kernel that can be launched.
pub(super) struct LoadedKernel {
    device: Arc<Device>,
    module: sys::CUmodule,
    function: sys::CUfunction,
}

// SAFETY: handles that any thread may use while the context is current on it.
unsafe impl Send for LoadedKernel {}
// SAFETY: as above.
unsafe impl Sync for LoadedKernel {}

impl Kernels {
    pub(super) fn new(device: &Arc<Device>, cache: KernelCache) -> Result<Kernels, Failure> {
        let compiler = compiler::version(device.libraries())
            .map_err(|error| Failure::Refused(format!("NVRTC: {error}")))?;
        Ok(Kernels { device: Arc::clone(device), cache, compiler, loaded: Mutex::default() })
    }

    /// The kernel, from memory, from disk, or compiled now.
    pub(super) fn get(&self, kernel: &Kernel) -> Result<Arc<LoadedKernel>, Failure> {
        let (source, arch) = (kernel.source(), self.device.arch());
        let options: Vec<String> = NVRTC_OPTIONS.iter().map(|option| (*option).to_owned()).collect();
        let recipe = Recipe { source: &source, arch: &arch, options: &options, compiler: &self.compiler };
        let hash = recipe.hash();
        // Held while compiling: tasks that start together want the same kernels.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = loaded.get(&hash) {
            return Ok(Arc::clone(kernel));
        }
        let made = Arc::new(self.load(hash, &recipe, &kernel.name)?);
        loaded.insert(hash, Arc::clone(&made));
        Ok(made)
    }

    fn load(&self, hash: blake3::Hash, recipe: &Recipe<'_>, name: &str) -> Result<LoadedKernel, Failure> {
        if let Some(image) = self.cache.load(hash) {
            match LoadedKernel::load(&self.device, &image, name) {
                // Whole, and yet not for this driver: made again below.
                Err(Failure::Refused(_)) => {}
                loaded => return loaded,
            }
        }
        let image = compiler::compile(self.device.libraries(), recipe.source, recipe.arch, recipe.options)
            .map_err(|log| Failure::Refused(format!("compiling kernel {name}: {log}")))?;
        // A cache that cannot be written costs the next start its time, and this one nothing.
        let _ = self.cache.store(hash, &image);
        LoadedKernel::load(&self.device, &image, name)
    }
}

impl LoadedKernel {
    fn load(device: &Arc<Device>, image: &[u8], name: &str) -> Result<LoadedKernel, Failure> {
        let entry = CString::new(name).map_err(|error| Failure::Refused(error.to_string()))?;
        let doing = format!("loading kernel {name}");
        // SAFETY: the context is current; the image is a whole cubin, which says its own length.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }
            .map_err(|error| Failure::from(error).while_doing(&doing))?;
        let mut loaded = LoadedKernel { device: Arc::clone(device), module, function: std::ptr::null_mut() };
        // SAFETY: the module is loaded.
        loaded.function = unsafe { result::module::get_function(module, entry) }
            .map_err(|error| Failure::from(error).while_doing(&doing))?;
        Ok(loaded)
    }

    /// Starts it on the stream. `arguments` are 8 bytes each: addresses, or `i64`.
    ///
    /// # Safety
    /// They are what the kernel takes, and what they point to stays until the stream is past it.
    pub(super) unsafe fn launch(
        &self,
        grid: [u32; 3],
        block: u32,
        arguments: &mut [u64],
        stream: &CudaStream,
    ) -> Result<(), Failure> {
        let mut pointers: Vec<*mut c_void> =
            arguments.iter_mut().map(|argument| (&raw mut *argument).cast()).collect();
        // SAFETY: the caller's promise; the driver copies the arguments before the call is back.
        unsafe {
            result::launch_kernel(
                self.function,
                (grid[0], grid[1], grid[2]),
                (block, 1, 1),
                0,
                stream.cu_stream(),
                &mut pointers,
            )
        }?;
        Ok(())
    }
}

impl Drop for LoadedKernel {
    fn drop(&mut self) {
        if self.device.check().is_ok() {
            // SAFETY: loaded by `load`, unloaded here only, when nothing can launch it any more.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}
