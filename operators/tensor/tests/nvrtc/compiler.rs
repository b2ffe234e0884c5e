//! NVRTC, loaded from the cache that `dev/nvrtc fetch` fills.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr::null;

use libloading::Library;
use thalweg_tensor::cuda::kernel::NVRTC_OPTIONS;

const VERSION: &str = "12.9.86";

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type GetSize = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Get = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

/// The loaded library; may be called from several threads.
pub struct Compiler(Library);

fn directory() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("THALWEG_CACHE").unwrap_or_else(|| {
        let home = || variable("HOME").expect("HOME is set").join(".cache");
        variable("XDG_CACHE_HOME").unwrap_or_else(home).join("thalweg")
    });
    cache.join(format!("nvrtc-{VERSION}"))
}

impl Compiler {
    pub fn load() -> Compiler {
        let path = directory().join("libnvrtc.so.12");
        // SAFETY: NVIDIA's library, at a checked version; its initialisers touch nothing of ours.
        match unsafe { Library::new(&path) } {
            Ok(library) => Compiler(library),
            Err(error) => panic!("no NVRTC at {}: {error}; `dev/nvrtc fetch` fetches it", path.display()),
        }
    }

    /// Machine code for `sm_90`.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, source: &str) -> Result<Vec<u8>, String> {
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let options = ["--gpu-architecture=sm_90"].into_iter().chain(NVRTC_OPTIONS);
        let options: Vec<CString> = options.map(|option| CString::new(option).expect("no zeros")).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the signatures are those of `nvrtc.h`; the strings outlive the calls; buffers have
        // the sizes that the library asks for.
        unsafe {
            let mut program: Program = std::ptr::null_mut();
            let create = self.0.get::<Create>(b"nvrtcCreateProgram\0").expect("in every version");
            let created = create(&mut program, source.as_ptr(), null(), 0, null(), null());
            assert_eq!(created, 0, "nvrtcCreateProgram");
            let compile = self.0.get::<Compile>(b"nvrtcCompileProgram\0").expect("in every version");
            let rc = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let result = match rc {
                0 => Ok(self.get(program, b"nvrtcGetCUBINSize\0", b"nvrtcGetCUBIN\0")),
                _ => {
                    let log = self.get(program, b"nvrtcGetProgramLogSize\0", b"nvrtcGetProgramLog\0");
                    let log = CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned());
                    Err(log.unwrap_or_else(|_| format!("fails with {rc}, without a log")))
                }
            };
            self.0.get::<Destroy>(b"nvrtcDestroyProgram\0").expect("in every version")(&mut program);
            result
        }
    }

    unsafe fn get(&self, program: Program, size: &[u8], get: &[u8]) -> Vec<u8> {
        // SAFETY: as the caller's.
        unsafe {
            let mut bytes = 0;
            self.0.get::<GetSize>(size).expect("in every version")(program, &mut bytes);
            let mut out = vec![0u8; bytes];
            self.0.get::<Get>(get).expect("in every version")(program, out.as_mut_ptr().cast());
            out
        }
    }
}
