//! NVRTC: CUDA C++ to machine code for one architecture. Needs the library and no device.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{result, sys};

use super::libraries::Libraries;

/// A program inside NVRTC, destroyed when dropped.
struct Unit(sys::nvrtcProgram);

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: made by `create_program`, and destroyed here only. There is nothing to be done
        // about a failure.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// `12.9`: part of the name under which a compiled kernel is kept.
pub(super) fn version(_: Libraries) -> Result<String, String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: two integers to write to.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().map_err(|error| error.to_string())?;
    Ok(format!("{major}.{minor}"))
}

/// Compiles `source` to a cubin.
///
/// # Errors
/// What the compiler says, with its log.
pub(super) fn compile(_: Libraries, source: &str, arch: &str, options: &[String]) -> Result<Vec<u8>, String> {
    let text = CString::new(source).map_err(|error| error.to_string())?;
    let unit = Unit(result::create_program(&text, Some(c"thalweg.cu")).map_err(|error| error.to_string())?);
    let options: Vec<CString> = std::iter::once(format!("--gpu-architecture={arch}"))
        .chain(options.iter().cloned())
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    let count = i32::try_from(pointers.len()).map_err(|error| error.to_string())?;
    // SAFETY: the unit lives, and so do the options, until the call is back.
    let compiled = unsafe { sys::nvrtcCompileProgram(unit.0, count, pointers.as_ptr()) }.result();
    match compiled {
        Ok(()) => machine_code(&unit).map_err(|error| format!("reading the machine code: {error}")),
        Err(error) => Err(format!("{error}\n{}", log(&unit))),
    }
}

fn machine_code(unit: &Unit) -> Result<Vec<u8>, result::NvrtcError> {
    let mut size = 0;
    // SAFETY: the unit lives and is compiled; the buffer has the size that NVRTC asks for.
    unsafe {
        sys::nvrtcGetCUBINSize(unit.0, &mut size).result()?;
        let mut bytes = vec![0_u8; size];
        sys::nvrtcGetCUBIN(unit.0, bytes.as_mut_ptr().cast()).result()?;
        Ok(bytes)
    }
}

fn log(unit: &Unit) -> String {
    // SAFETY: the unit lives.
    let Ok(bytes) = (unsafe { result::get_program_log(unit.0) }) else {
        return "there is no log".to_owned();
    };
    let bytes: Vec<u8> = bytes.into_iter().map(|byte| byte as u8).collect();
    CStr::from_bytes_until_nul(&bytes).unwrap_or_default().to_string_lossy().into_owned()
}
