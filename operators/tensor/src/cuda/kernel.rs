//! Kernels as text: CUDA C++ without any header, the same bytes for the same graph.
//!
//! A kernel is an entry point over templates of a few library files (`source/*.cu`). Text that is
//! known when the graph is built (shapes, element types, the ops of a fused group) is a constant in
//! the entry point; what depends on the batch is an argument.

use crate::Element;

/// One kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Its entry point, which no other text has: what it does and a hash of all its text.
    pub name: String,
    entry: String,
    library: Library,
}

/// The library files that an entry point stands on, each on `prelude`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Library {
    /// Vectors in registers.
    Row,
    /// Hashes over tokens.
    Hash,
    /// Attention on the ordinary cores.
    Attention,
    /// Attention on the tensor cores.
    AttentionMma,
    /// Top-k.
    Select,
}

/// What every kernel stands on.
const PRELUDE: &str = include_str!("source/prelude.cu");

impl Library {
    const fn text(self) -> &'static str {
        match self {
            Library::Row => include_str!("source/row.cu"),
            Library::Hash => include_str!("source/hash.cu"),
            Library::Attention => include_str!("source/attention.cu"),
            Library::AttentionMma => include_str!("source/attention_mma.cu"),
            Library::Select => include_str!("source/select.cu"),
        }
    }
}

impl Kernel {
    /// What to compile for this kernel alone.
    pub fn source(&self) -> String {
        source(std::slice::from_ref(self))
    }

    /// What it stands on.
    pub fn library(&self) -> Library {
        self.library
    }

    /// The kernel of a parameter list and a body.
    pub(crate) fn entry(what: &str, library: Library, threads: u32, parameters: &str, body: &str) -> Kernel {
        let bounds = format!("__launch_bounds__({threads})");
        let entry = format!("\nextern \"C\" __global__ void {bounds} KERNEL({parameters}) {{\n{body}}}\n");
        Kernel::new(what, library, &entry)
    }

    /// The kernel of an entry point that calls itself `KERNEL`.
    fn new(what: &str, library: Library, entry: &str) -> Kernel {
        let mut hash = blake3::Hasher::new();
        hash.update(PRELUDE.as_bytes());
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
    let mut text = String::from(PRELUDE);
    for library in libraries {
        text.push_str(library.text());
    }
    for kernel in kernels {
        text.push_str(&kernel.entry);
    }
    text
}

/// What the kernels call an element in memory.
pub(crate) const fn c_type(element: Element) -> &'static str {
    match element {
        Element::F32 => "float",
        Element::F16 => "f16",
        Element::I8 => "i8",
        Element::I32 => "int",
        Element::I64 => "i64",
    }
}

/// What NVRTC is told beside `--gpu-architecture=sm_XX` (the device's own, so that no driver compiles
/// again).
pub const NVRTC_OPTIONS: [&str; 2] = ["--std=c++17", "--fmad=true"];
