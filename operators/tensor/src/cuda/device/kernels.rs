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
    loaded: Mutex<HashMap<blake3::Hash, Arc<Entry>>>,
}

/// Held while its kernel is compiled: tasks that start together want the same kernels, and others may
/// be compiled meanwhile.
type Entry = Mutex<Option<Arc<LoadedKernel>>>;

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
        let entry = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(loaded.entry(hash).or_default())
        };
        let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = &*entry {
            return Ok(Arc::clone(kernel));
        }
        let made = Arc::new(self.load(hash, &recipe, &kernel.name)?);
        *entry = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Makes the device's context that of this thread.
    pub(super) fn bind(&self) -> Result<(), Failure> {
        Ok(self.device.context().bind_to_thread()?)
    }

    /// All of them, compiled by up to so many threads at once where they must be.
    pub(super) fn get_all(
        &self,
        kernels: &[Kernel],
        threads: usize,
    ) -> Result<Vec<Arc<LoadedKernel>>, Failure> {
        let each = kernels.len().div_ceil(threads.max(1)).max(1);
        let get = |kernel: &Kernel| self.get(kernel);
        std::thread::scope(|scope| {
            let mut parts = kernels.chunks(each);
            let first = parts.next().unwrap_or_default();
            let others: Vec<_> = parts
                .map(|part| {
                    scope.spawn(move || {
                        self.bind()?;
                        part.iter().map(get).collect::<Result<Vec<_>, Failure>>()
                    })
                })
                .collect();
            let mut all = first.iter().map(get).collect::<Result<Vec<_>, Failure>>();
            for other in others {
                let ended = || Failure::Refused("a thread that compiles kernels has ended".to_owned());
                let part = other.join().unwrap_or_else(|_| Err(ended()));
                all = all.and_then(|mut all| {
                    all.extend(part?);
                    Ok(all)
                });
            }
            all
        })
    }

    fn load(&self, hash: blake3::Hash, recipe: &Recipe<'_>, name: &str) -> Result<LoadedKernel, Failure> {
        let compile = || {
            compiler::compile(self.device.libraries(), recipe.source, recipe.arch, recipe.options)
                .map_err(|log| Failure::Refused(format!("compiling kernel {name}: {log}")))
        };
        kept_or_compiled(&self.cache, hash, compile, |image| LoadedKernel::load(&self.device, image, name))
    }
}

/// Loads what the cache keeps under that hash; where there is nothing, or nothing that loads, what is
/// compiled now, which is kept.
fn kept_or_compiled<T>(
    cache: &KernelCache,
    hash: blake3::Hash,
    compile: impl FnOnce() -> Result<Vec<u8>, Failure>,
    load: impl Fn(&[u8]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if let Some(image) = cache.load(hash) {
        match load(&image) {
            // Whole, and yet not for this driver: made again below.
            Err(Failure::Refused(_)) => {}
            loaded => return loaded,
        }
    }
    let image = compile()?;
    // A cache that cannot be written costs the next start its time, and this one nothing.
    let _ = cache.store(hash, &image);
    load(&image)
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

#[cfg(test)]
mod tests {
    use super::super::libraries::tests::nvrtc;
    use super::*;

    const SOURCE: &str = "extern \"C\" __global__ void twice(float *x) { x[threadIdx.x] *= 2.0f; }";

    fn load(image: &[u8]) -> Result<Vec<u8>, Failure> {
        Ok(image.to_vec())
    }

    #[test]
    fn a_kernel_is_compiled_once_and_again_when_its_file_is_damaged_or_does_not_load() {
        let directory = tempfile::tempdir().unwrap();
        let cache = KernelCache::in_directory(directory.path());
        let hash = blake3::hash(b"recipe");
        let compiled = std::cell::Cell::new(0_u8);
        let get = |load: &dyn Fn(&[u8]) -> Result<Vec<u8>, Failure>| {
            let compile = || {
                compiled.set(compiled.get() + 1);
                Ok(vec![compiled.get()])
            };
            kept_or_compiled(&cache, hash, compile, load)
        };
        assert_eq!(get(&load), Ok(vec![1]));
        assert_eq!(get(&load), Ok(vec![1]));
        let file = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&file, b"damaged").unwrap();
        assert_eq!(get(&load), Ok(vec![2]));
        let refuses_the_second = |image: &[u8]| match image {
            [2] => Err(Failure::Refused("of another driver".into())),
            image => load(image),
        };
        assert_eq!(get(&refuses_the_second), Ok(vec![3]));
        assert_eq!(get(&load), Ok(vec![3]));
        let lost = |_: &[u8]| Err(Failure::Lost("gone".into()));
        assert_eq!(get(&lost), Err(Failure::Lost("gone".into())));
        assert_eq!(compiled.get(), 3);
    }

    #[test]
    fn nvrtc_makes_machine_code_that_the_cache_keeps_and_says_what_is_wrong_with_bad_source() {
        let libraries = nvrtc();
        let version = compiler::version(libraries).unwrap();
        assert!(version.starts_with("12."), "{version}");
        let options: Vec<String> = NVRTC_OPTIONS.iter().map(|option| (*option).to_owned()).collect();
        let recipe = Recipe { source: SOURCE, arch: "sm_90", options: &options, compiler: &version };
        let directory = tempfile::tempdir().unwrap();
        let cache = KernelCache::in_directory(directory.path());
        let compile = || {
            compiler::compile(libraries, recipe.source, recipe.arch, recipe.options).map_err(Failure::Refused)
        };
        let image = kept_or_compiled(&cache, recipe.hash(), compile, load).unwrap();
        assert_eq!(&image[..4], b"\x7fELF");
        assert_eq!(cache.load(recipe.hash()), Some(image));
        let error = compiler::compile(libraries, "__global__ void f( {", "sm_90", &options).unwrap_err();
        assert!(error.contains("thalweg.cu(1)") && error.contains("error"), "{error}");
    }
}
