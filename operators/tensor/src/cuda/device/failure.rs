//! What a driver or library call answers, sorted by what can be done about it.

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::sys::cublasStatus_t;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The device's memory, or what the plan may use of it, is too small: less may do.
    OutOfMemory(String),
    /// The context is gone for good, every further call fails: a new process or at least a new
    /// context is needed.
    Lost(String),
    /// This call alone is refused.
    Refused(String),
}

impl Failure {
    /// Says what was being done.
    pub(super) fn while_doing(self, what: &str) -> Failure {
        match self {
            Failure::OutOfMemory(reason) => Failure::OutOfMemory(format!("{what}: {reason}")),
            Failure::Lost(reason) => Failure::Lost(format!("{what}: {reason}")),
            Failure::Refused(reason) => Failure::Refused(format!("{what}: {reason}")),
        }
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Failure {
        // The driver's own words come from the driver: no call of it without one.
        let reason = format!("{:?}", error.0);
        match severity(error.0) {
            Severity::OutOfMemory => Failure::OutOfMemory(reason),
            Severity::Lost => Failure::Lost(reason),
            Severity::Refused => Failure::Refused(reason),
        }
    }
}

impl From<CublasError> for Failure {
    fn from(error: CublasError) -> Failure {
        let reason = format!("cuBLASLt: {:?}", error.0);
        match error.0 {
            cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => Failure::OutOfMemory(reason),
            // What it launches fails when an earlier kernel has broken the context.
            cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED | cublasStatus_t::CUBLAS_STATUS_MAPPING_ERROR => {
                Failure::Lost(reason)
            }
            _ => Failure::Refused(reason),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    OutOfMemory,
    Lost,
    Refused,
}

/// Which errors stay: the driver's manual says of these that "the process must be terminated and
/// relaunched" or that the context cannot be used any more (CUDA Driver API, `CUresult`).
fn severity(code: CUresult) -> Severity {
    use CUresult::*;
    match code {
        CUDA_ERROR_OUT_OF_MEMORY => Severity::OutOfMemory,
        CUDA_ERROR_DEINITIALIZED
        | CUDA_ERROR_DEVICE_UNAVAILABLE
        | CUDA_ERROR_NO_DEVICE
        | CUDA_ERROR_ECC_UNCORRECTABLE
        | CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUDA_ERROR_CONTAINED
        | CUDA_ERROR_ILLEGAL_ADDRESS
        | CUDA_ERROR_LAUNCH_TIMEOUT
        | CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUDA_ERROR_ASSERT
        | CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUDA_ERROR_MISALIGNED_ADDRESS
        | CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUDA_ERROR_INVALID_PC
        | CUDA_ERROR_LAUNCH_FAILED
        | CUDA_ERROR_TENSOR_MEMORY_LEAK
        | CUDA_ERROR_SYSTEM_NOT_READY
        | CUDA_ERROR_MPS_CONNECTION_FAILED
        | CUDA_ERROR_MPS_RPC_FAILURE
        | CUDA_ERROR_MPS_CLIENT_TERMINATED
        | CUDA_ERROR_EXTERNAL_DEVICE
        | CUDA_ERROR_UNKNOWN => Severity::Lost,
        _ => Severity::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_context_is_told_from_a_refused_call_and_from_memory() {
        let lost = |code| matches!(Failure::from(DriverError(code)), Failure::Lost(_));
        assert!(lost(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert!(lost(CUresult::CUDA_ERROR_ECC_UNCORRECTABLE));
        assert!(lost(CUresult::CUDA_ERROR_LAUNCH_FAILED));
        assert!(lost(CUresult::CUDA_ERROR_CONTAINED));
        assert!(!lost(CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES));
        assert!(!lost(CUresult::CUDA_ERROR_INVALID_VALUE));
        let failure = Failure::from(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(
            failure.while_doing("allocating 12 bytes"),
            Failure::OutOfMemory("allocating 12 bytes: CUDA_ERROR_OUT_OF_MEMORY".into())
        );
    }
}
