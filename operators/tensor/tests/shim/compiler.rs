//! Kernels under a host compiler: one shared object for the kernels of a program, kept by its hash.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use libloading::Library;
use thalweg_tensor::cuda::{Kernel, kernel};

const SHIM: &str = include_str!("shim.h");
const OPTIONS: [&str; 9] =
    ["-std=c++17", "-O1", "-fPIC", "-shared", "-fno-strict-aliasing", "-ffp-contract=off", "-w", "-x", "c++"];

type Launch = unsafe extern "C" fn(*mut c_void, *const u32, u32, *const u64, *mut u8) -> bool;

/// Arguments that the shim passes, whatever a kernel takes.
const ARGUMENTS_MAX: usize = 48;
/// Stacks of a block's threads: 256 of 1 MiB, of which a kernel touches little.
const STACKS_BYTES: usize = 256 << 20;

/// The stacks. Shared memory of the kernels is static: one launch at a time.
static STACKS: Mutex<Option<Vec<u128>>> = Mutex::new(None);

/// The compiled kernels of a program.
pub struct Kernels(Library);

impl Kernels {
    /// Compiles them, unless that was done before.
    pub fn compile(kernels: &[Kernel]) -> Kernels {
        let source = format!("{SHIM}\n{}", kernel::source(kernels));
        let mut hash = blake3::Hasher::new();
        hash.update(source.as_bytes());
        OPTIONS.iter().for_each(|option| {
            hash.update(option.as_bytes());
        });
        let directory = std::env::temp_dir().join(format!("thalweg-shim-{}", user()));
        std::fs::create_dir_all(&directory).expect("the directory for temporary files can be written");
        let object = directory.join(format!("{}.so", &hash.finalize().to_hex()[..32]));
        if !object.exists() {
            build(&source, &directory, &object);
        }
        // SAFETY: an object that we have just built, whose initialisers do nothing.
        Kernels(unsafe { Library::new(&object) }.expect("the compiled kernels can be loaded"))
    }

    /// Runs a kernel over a grid.
    ///
    /// # Safety
    /// The arguments are as the kernel's parameters, and point to what it reads and writes.
    pub unsafe fn launch(&self, name: &str, grid: [u32; 3], block: u32, arguments: &[u64]) {
        let mut stacks = STACKS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let stacks = stacks.get_or_insert_with(|| vec![0; STACKS_BYTES / size_of::<u128>()]);
        let mut arguments = arguments.to_vec();
        assert!(arguments.len() <= ARGUMENTS_MAX, "{name} takes too many arguments");
        arguments.resize(ARGUMENTS_MAX, 0);
        // SAFETY: both symbols are of this source; the rest is the caller's promise.
        let done = unsafe {
            let kernel = self.0.get::<*mut c_void>(name.as_bytes()).expect("a kernel of this program");
            let launch = self.0.get::<Launch>(b"shim_launch").expect("part of the shim");
            launch(*kernel, grid.as_ptr(), block, arguments.as_ptr(), stacks.as_mut_ptr().cast())
        };
        assert!(done, "the shim cannot launch {name}");
    }
}

/// Users of a machine do not share what they compile.
fn user() -> String {
    std::env::var("USER").unwrap_or_else(|_| "nobody".to_owned())
}

/// Compiles to a name of its own first, so that nobody loads half an object.
fn build(source: &str, directory: &Path, object: &Path) {
    let scratch = tempfile::Builder::new().tempdir_in(directory).expect("a directory in our own");
    let text: PathBuf = scratch.path().join("kernels.cpp");
    let made = scratch.path().join("kernels.so");
    std::fs::write(&text, source).expect("a file in our own directory");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(&compiler).args(OPTIONS).arg(&text).arg("-o").arg(&made).output();
    let output = output.unwrap_or_else(|error| panic!("no compiler `{compiler}` ({error}): see dev/install"));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} does not compile the kernels\n{log}\n{source}");
    std::fs::rename(&made, object).expect("both in our own directory");
}
