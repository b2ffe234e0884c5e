//! Matrix products by cuBLASLt, with bias and activation in the epilogue.
//!
//! Everything here is row-major, `out[r, c] = activation(sum_i x[r, i] * w[c, i] + bias[c])`, which
//! is column-major `out^T = w * x^T`: to cuBLASLt `w` is A (transposed), `x` is B, and its rows are
//! our columns. Sums are in `f32`, in one order for one shape, so that a batch always has the same
//! bits: reductions that round to the output's element between their parts are not allowed.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUdeviceptr;

use super::failure::Failure;
use super::kernels::Kernels;
use super::libraries::Libraries;
use super::plain_matmul;
use crate::Element;
use crate::cuda::program::Epilogue;

/// All that choosing an algorithm depends on. Rows are dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MatmulShape {
    /// Rows of `x` and `out`.
    pub(super) rows: usize,
    /// Rows of `w`, columns of `out`.
    pub(super) columns: usize,
    /// Columns of `x` and `w`.
    pub(super) inner: usize,
    /// Of `x` and `w`: `f32` or `f16`.
    pub(super) element: Element,
    /// Of `out` and the bias: `f32` or `f16`.
    pub(super) out_element: Element,
    pub(super) bias: bool,
    pub(super) epilogue: Epilogue,
}

/// Where the matrices are.
#[derive(Clone, Copy, Debug)]
pub(super) struct MatmulAddresses {
    pub(super) x: CUdeviceptr,
    pub(super) w: CUdeviceptr,
    pub(super) out: CUdeviceptr,
    pub(super) bias: CUdeviceptr,
    pub(super) workspace: CUdeviceptr,
    pub(super) workspace_bytes: usize,
}

/// cuBLASLt on one device, with the algorithms that it chose before.
pub(super) struct Matmuls {
    handle: sys::cublasLtHandle_t,
    kernels: Arc<Kernels>,
    /// None where cuBLASLt has none.
    chosen: Mutex<HashMap<Question, Option<sys::cublasLtMatmulAlgo_t>>>,
}

// SAFETY: a cuBLASLt handle may be used by several threads at once (its manual, Thread Safety).
unsafe impl Send for Matmuls {}
// SAFETY: as above.
unsafe impl Sync for Matmuls {}

/// What an algorithm was chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question {
    shape: MatmulShape,
    x_alignment: u32,
    w_alignment: u32,
    out_alignment: u32,
    workspace_bytes: usize,
}

/// Algorithms that are remembered; beyond them all are forgotten, and asked for anew.
const CHOSEN_MAX: usize = 8_192;

impl Matmuls {
    pub(super) fn new(_: Libraries, kernels: &Arc<Kernels>) -> Result<Matmuls, Failure> {
        let handle = result::create_handle()?;
        Ok(Matmuls { handle, kernels: Arc::clone(kernels), chosen: Mutex::default() })
    }

    /// Starts a product on the stream.
    ///
    /// # Safety
    /// The addresses have what the shape says, and keep it until the stream is past it.
    pub(super) unsafe fn start(
        &self,
        shape: &MatmulShape,
        at: &MatmulAddresses,
        stream: &CudaStream,
    ) -> Result<(), Failure> {
        if shape.rows == 0 || shape.columns == 0 {
            return Ok(());
        }
        let bucket = MatmulShape { rows: bucket(shape.rows), ..*shape };
        let exact = Prepared::new(shape, at)?;
        let unsupported = |started: &Result<(), CublasError>| started.is_err_and(is_unsupported);
        // SAFETY: the caller's promise.
        let mut started = unsafe { self.run(&exact, &bucket, at, stream) };
        if bucket.rows != shape.rows && started.is_err_and(is_of_the_algorithm) {
            // An algorithm of the bucket that cannot do this very number of rows: ask for its own.
            // SAFETY: the caller's promise; nothing was started before.
            started = unsafe { self.run(&exact, shape, at, stream) };
        }
        if unsupported(&started) {
            // SAFETY: as above.
            return unsafe { plain_matmul::start(&self.kernels, shape, at, stream) };
        }
        started.map_err(|error| Failure::from(error).while_doing(&format!("multiplying {shape:?}")))
    }

    /// Runs the product as it was chosen for `asked`.
    ///
    /// # Safety
    /// As [`Matmuls::start`].
    unsafe fn run(
        &self,
        prepared: &Prepared,
        asked: &MatmulShape,
        at: &MatmulAddresses,
        stream: &CudaStream,
    ) -> Result<(), CublasError> {
        let Some(algorithm) = self.choice(asked, at)? else {
            return Err(CublasError(UNSUPPORTED));
        };
        let (alpha, beta) = (1_f32, 0_f32);
        let pointer = |address: CUdeviceptr| address as usize as *mut c_void;
        // SAFETY: the caller's promise for the matrices; descriptions and scalars live until the
        // call is back, which is when cuBLASLt has read them.
        unsafe {
            result::matmul(
                self.handle,
                prepared.product.0,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(at.w),
                prepared.w.0,
                pointer(at.x),
                prepared.x.0,
                pointer(at.out),
                prepared.out.0,
                pointer(at.out),
                prepared.out.0,
                &raw const algorithm,
                pointer(at.workspace),
                at.workspace_bytes,
                stream.cu_stream().cast(),
            )
        }
    }

    fn choice(
        &self,
        shape: &MatmulShape,
        at: &MatmulAddresses,
    ) -> Result<Option<sys::cublasLtMatmulAlgo_t>, CublasError> {
        let question = Question {
            shape: *shape,
            x_alignment: alignment(at.x),
            w_alignment: alignment(at.w),
            out_alignment: alignment(at.out),
            workspace_bytes: at.workspace_bytes,
        };
        let chosen = || self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = chosen().get(&question) {
            return Ok(*known);
        }
        let choice = match self.choose(&question, at) {
            Ok(algorithm) => Some(algorithm),
            Err(error) if is_unsupported(error) => None,
            Err(error) => return Err(error),
        };
        let mut chosen = chosen();
        if chosen.len() >= CHOSEN_MAX {
            chosen.clear();
        }
        chosen.insert(question, choice);
        Ok(choice)
    }

    fn choose(
        &self,
        question: &Question,
        at: &MatmulAddresses,
    ) -> Result<sys::cublasLtMatmulAlgo_t, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let prepared = Prepared::new(&question.shape, at)?;
        let preference = Preference::new()?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &question.workspace_bytes)?;
        preference.set(
            Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            &(sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32),
        )?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &question.w_alignment)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &question.x_alignment)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &question.out_alignment)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &question.out_alignment)?;
        // SAFETY: all descriptions live.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                self.handle,
                prepared.product.0,
                prepared.w.0,
                prepared.x.0,
                prepared.out.0,
                prepared.out.0,
                preference.0,
            )
        }?;
        Ok(found.algo)
    }
}

impl Drop for Matmuls {
    fn drop(&mut self) {
        // On whatever thread this is: what cuBLASLt gives back is this device's. There is nothing to
        // be done about a failure.
        let _ = self.kernels.bind();
        // SAFETY: made by `new`, destroyed here only.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

const UNSUPPORTED: sys::cublasStatus_t = sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED;

/// Whether there is no algorithm, or this one cannot do it. A value that cuBLASLt calls invalid is not
/// among them: that is a mistake of ours, and must not hide behind a slow kernel.
fn is_unsupported(error: CublasError) -> bool {
    error.0 == UNSUPPORTED
}

/// Whether an algorithm that was chosen for other rows may be to blame: cuBLASLt calls it invalid where
/// it wants more scratch than there is.
fn is_of_the_algorithm(error: CublasError) -> bool {
    is_unsupported(error) || error.0 == sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE
}

/// The number of rows for which an algorithm is asked: packed batches have any number of tokens,
/// and asking takes longer than a small product.
fn bucket(rows: usize) -> usize {
    match rows {
        0..=16 => rows,
        17..=256 => rows.next_multiple_of(16),
        257..=4_096 => rows.next_multiple_of(128),
        _ => rows.next_multiple_of(2_048),
    }
}

/// The greatest power of two, up to 256, that divides an address.
fn alignment(address: CUdeviceptr) -> u32 {
    1 << address.trailing_zeros().min(8)
}

/// `CUBLAS_OP_T`, which cudarc's bindings of cuBLASLt do not have.
const TRANSPOSED: i32 = 1;

/// The descriptions of one product.
struct Prepared {
    product: Product,
    w: Layout,
    x: Layout,
    out: Layout,
}

impl Prepared {
    fn new(shape: &MatmulShape, at: &MatmulAddresses) -> Result<Prepared, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let product = Product::new()?;
        product.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        product.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &(epilogue(shape) as u32))?;
        if shape.bias {
            product.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &at.bias)?;
        }
        Ok(Prepared {
            product,
            w: Layout::new(shape.element, shape.inner, shape.columns)?,
            x: Layout::new(shape.element, shape.inner, shape.rows)?,
            out: Layout::new(shape.out_element, shape.columns, shape.rows)?,
        })
    }
}

fn epilogue(shape: &MatmulShape) -> sys::cublasLtEpilogue_t {
    use sys::cublasLtEpilogue_t::*;
    match (shape.epilogue, shape.bias) {
        (Epilogue::None, false) => CUBLASLT_EPILOGUE_DEFAULT,
        (Epilogue::None, true) => CUBLASLT_EPILOGUE_BIAS,
        (Epilogue::GeluTanh, false) => CUBLASLT_EPILOGUE_GELU,
        (Epilogue::GeluTanh, true) => CUBLASLT_EPILOGUE_GELU_BIAS,
    }
}

/// A dense column-major matrix.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(element: Element, rows: usize, columns: usize) -> Result<Layout, CublasError> {
        let element = match element {
            Element::F16 => sys::cudaDataType_t::CUDA_R_16F,
            _ => sys::cudaDataType_t::CUDA_R_32F,
        };
        Ok(Layout(result::create_matrix_layout(element, rows as u64, columns as u64, rows as i64)?))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed here only.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Product(sys::cublasLtMatmulDesc_t);

impl Product {
    fn new() -> Result<Product, CublasError> {
        // Sums and scalars in f32, and no TF32: an f32 product is one.
        result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType_t::CUDA_R_32F,
        )
        .map(Product)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &T) -> Result<(), CublasError> {
        // SAFETY: the description lives, the value is copied before the call is back.
        unsafe {
            result::set_matmul_desc_attribute(self.0, attribute, (&raw const *value).cast(), size_of::<T>())
        }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed here only.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new() -> Result<Preference, CublasError> {
        result::create_matmul_pref().map(Preference)
    }

    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> Result<(), CublasError> {
        // SAFETY: as for `Product`.
        unsafe {
            result::set_matmul_pref_attribute(self.0, attribute, (&raw const *value).cast(), size_of::<T>())
        }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed here only.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_rows_rise_and_are_few() {
        let mut buckets = std::collections::BTreeSet::new();
        let mut last = 0;
        for rows in 1..=100_000 {
            let bucket = bucket(rows);
            assert!(bucket >= rows && bucket >= last && bucket < rows + 2_048, "{rows}: {bucket}");
            last = bucket;
            buckets.insert(bucket);
        }
        assert!(buckets.len() < 120, "{}", buckets.len());
    }

    #[test]
    fn alignment_is_that_of_the_address_up_to_256() {
        assert_eq!(alignment(0x1000), 256);
        assert_eq!(alignment(0x1010), 16);
        assert_eq!(alignment(0x1006), 2);
    }
}
