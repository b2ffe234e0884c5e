//! What must be on the machine: the driver, NVRTC and cuBLASLt, looked for before they are used.
//!
//! `cudarc` loads a library at the first call of one of its functions and panics where library or
//! function is missing. So nothing in this crate calls it before [`Libraries::find`] has found
//! every library and every function that is called here. A new function belongs into its list.

use cudarc::{cublaslt, driver, nvrtc};

use super::timing::ELAPSED_TIME;

/// Proof that all libraries are loaded; what calls them asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Libraries(());

/// What is known of one library.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Presence {
    /// It is loaded and has every function.
    Complete,
    /// No file of any of its names can be loaded.
    Absent,
    /// It is loaded but older than what this crate was written for.
    Lacks(&'static str),
}

struct Library {
    name: &'static str,
    files: &'static [&'static str],
    from: &'static str,
    functions: &'static [&'static str],
    is_present: unsafe fn() -> bool,
    has: fn(&str) -> bool,
}

const LIBRARIES: [Library; 3] = [
    Library {
        name: "the CUDA driver",
        files: &["cuda", "nvcuda"],
        from: "NVIDIA's driver package",
        functions: &DRIVER_FUNCTIONS,
        is_present: driver::sys::is_culib_present,
        // SAFETY: called only for a library that is present; a symbol is looked up, not used.
        has: |name| unsafe { driver::sys::culib().get::<*const ()>(name.as_bytes()).is_ok() },
    },
    Library {
        name: "NVRTC",
        files: &["nvrtc"],
        from: "the CUDA toolkit 12 or 13, or the Python package nvidia-cuda-nvrtc(-cu12)",
        functions: &NVRTC_FUNCTIONS,
        is_present: nvrtc::sys::is_culib_present,
        // SAFETY: as above.
        has: |name| unsafe { nvrtc::sys::culib().get::<*const ()>(name.as_bytes()).is_ok() },
    },
    Library {
        name: "cuBLASLt",
        files: &["cublasLt"],
        from: "the CUDA toolkit 12 or 13, or the Python package nvidia-cublas(-cu12)",
        functions: &CUBLASLT_FUNCTIONS,
        is_present: cublaslt::sys::is_culib_present,
        // SAFETY: as above.
        has: |name| unsafe { cublaslt::sys::culib().get::<*const ()>(name.as_bytes()).is_ok() },
    },
];

const DRIVER_FUNCTIONS: [&str; 33] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorString",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamDestroy_v2",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    ELAPSED_TIME,
    "cuEventDestroy_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuLaunchKernel",
];

const NVRTC_FUNCTIONS: [&str; 8] = [
    "nvrtcVersion",
    "nvrtcCreateProgram",
    "nvrtcCompileProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetCUBINSize",
    "nvrtcGetCUBIN",
    "nvrtcGetProgramLogSize",
    "nvrtcGetProgramLog",
];

const CUBLASLT_FUNCTIONS: [&str; 13] = [
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
    "cublasLtMatrixLayoutSetAttribute",
];

impl Libraries {
    /// Loads them all.
    ///
    /// # Errors
    /// Names every library that is missing, the files that were looked for, and where it comes from.
    pub(super) fn find() -> Result<Libraries, String> {
        complaint(&LIBRARIES, presence).map_or(Ok(Libraries(())), Err)
    }
}

fn presence(library: &Library) -> Presence {
    // SAFETY: loads a library that the system's loader trusts and runs its initialisers, as any
    // program that links it would.
    if !unsafe { (library.is_present)() } {
        return Presence::Absent;
    }
    match library.functions.iter().find(|name| !(library.has)(name)) {
        Some(name) => Presence::Lacks(name),
        None => Presence::Complete,
    }
}

fn complaint(libraries: &[Library], presence: impl Fn(&Library) -> Presence) -> Option<String> {
    let complaints: Vec<String> = libraries
        .iter()
        .filter_map(|library| match presence(library) {
            Presence::Complete => None,
            Presence::Absent => Some(format!(
                "{} is not there: looked for {} in the loader's path and LD_LIBRARY_PATH ({}); it comes with {}",
                library.name,
                file_names(library).join(", "),
                std::env::var("LD_LIBRARY_PATH").unwrap_or_else(|_| "not set".to_owned()),
                library.from
            )),
            Presence::Lacks(function) => Some(format!(
                "{} is too old: it has no function {function}; a newer one comes with {}",
                library.name, library.from
            )),
        })
        .collect();
    (!complaints.is_empty()).then(|| complaints.join("; "))
}

/// The names that a reader would look for herself; the loader is asked for more.
fn file_names(library: &Library) -> Vec<String> {
    let plain = |file: &&str| {
        cudarc::get_lib_name_candidates(file)
            .into_iter()
            .filter(|name| [".so", ".1", ".12", ".13"].iter().any(|end| name.ends_with(end)))
            .filter(|name| !name.contains("64"))
            .collect::<Vec<_>>()
    };
    let mut names: Vec<String> = library.files.iter().take(1).flat_map(plain).collect();
    names.dedup();
    names
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;

    /// NVRTC alone, as `dev/nvrtc fetch` has fetched it: kernels can be compiled where none can run.
    pub(in super::super) fn nvrtc() -> Libraries {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let cache = variable("THALWEG_CACHE").unwrap_or_else(|| {
            let home = || variable("HOME").unwrap().join(".cache");
            variable("XDG_CACHE_HOME").unwrap_or_else(home).join("thalweg")
        });
        let path = cache.join("nvrtc-12.9.86/libnvrtc.so.12");
        // The loader knows a library that is loaded by its own name, whatever its path.
        // SAFETY: NVIDIA's library, at a checked version.
        let library = unsafe { libloading::Library::new(&path) };
        std::mem::forget(library.unwrap_or_else(|error| panic!("{error}; `dev/nvrtc fetch` fetches it")));
        complaint(&LIBRARIES[1..2], presence).map_or(Libraries(()), |reason| panic!("{reason}"))
    }

    #[test]
    fn every_missing_library_is_named_with_its_files_and_its_origin() {
        let text = complaint(&LIBRARIES, |_| Presence::Absent).unwrap();
        for part in [
            "CUDA driver",
            "libcuda.so.1",
            "NVRTC",
            "libnvrtc.so.12",
            "libnvrtc.so.13",
            "nvidia-cuda-nvrtc",
            "cuBLASLt",
            "libcublasLt.so.12",
            "libcublasLt.so.13",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn an_old_library_is_named_with_the_function_it_lacks() {
        let text = complaint(&LIBRARIES, |library| match library.name {
            "NVRTC" => Presence::Lacks("nvrtcGetCUBIN"),
            _ => Presence::Complete,
        });
        assert!(text.unwrap().contains("NVRTC is too old: it has no function nvrtcGetCUBIN"));
    }

    #[test]
    fn nothing_is_said_where_all_are_there() {
        assert_eq!(complaint(&LIBRARIES, |_| Presence::Complete), None);
    }
}
