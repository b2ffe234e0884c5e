//! Kernels as text: CUDA C++ without any header, the same bytes for the same graph.
//!
//! A kernel is an entry point over templates of a few library files (`source/*.cu`). Text that is
//! known when the graph is built (shapes, element types, the ops of a fused group) is a constant in
//! the entry point; what depends on the batch is an argument.

/// One kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Its entry point, which no other text has: what it does and a hash of all its text.
    pub name: String,
    entry: String,
    library: Library,
}

/// The library files that an entry point stands on; all have `prelude`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Library {
    /// Nothing else.
    Prelude,
}

impl Library {
    fn text(self) -> &'static str {
        match self {
            Library::Prelude => "",
        }
    }
}

impl Kernel {
    /// What to compile for this kernel alone.
    pub fn source(&self) -> String {
        source(std::slice::from_ref(self))
    }

    /// The kernel of an entry point that calls itself `KERNEL`.
    pub(crate) fn new(what: &str, library: Library, entry: &str) -> Kernel {
        let mut hash = blake3::Hasher::new();
        hash.update(library.text().as_bytes());
        hash.update(entry.as_bytes());
        let name = format!("{what}_{}", &hash.finalize().to_hex()[..16]);
        Kernel { entry: entry.replace("KERNEL", &name), name, library }
    }
}

/// What to compile for several kernels at once: each of the library files once, then the entry
/// points, which are `extern "C"`.
pub fn source(kernels: &[Kernel]) -> String {
    let mut libraries: Vec<Library> = kernels.iter().map(|kernel| kernel.library).collect();
    libraries.sort_unstable();
    libraries.dedup();
    let mut text = String::new();
    for library in libraries {
        text.push_str(library.text());
    }
    for kernel in kernels {
        text.push_str(&kernel.entry);
    }
    text
}

/// What NVRTC is told beside `--gpu-architecture=sm_XX` (the device's own, so that no driver compiles
/// again).
pub const NVRTC_OPTIONS: [&str; 2] = ["--std=c++17", "--fmad=true"];
