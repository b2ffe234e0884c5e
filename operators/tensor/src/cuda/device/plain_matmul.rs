//! Products by a plain kernel, for the few shapes that cuBLASLt has no algorithm for (it promises one
//! for none; a single column or an odd stride of `f16` beside a bias are the likely ones). Slow, and
//! right: the alternative is a job that fails.

use cudarc::driver::CudaStream;

use super::failure::Failure;
use super::kernels::Kernels;
use super::matmul::{MatmulAddresses, MatmulShape};
use crate::cuda::kernel::{Kernel, Library, c_type};
use crate::cuda::program::Epilogue;

const THREADS: u32 = 256;

/// A thread per element of the output.
const BODY: &str = "
  i64 at = (i64)blockIdx.x * THREADS + threadIdx.x;
  if (at >= rows * columns) return;
  const X* mine = x + at / columns * inner;
  const X* other = w + at % columns * inner;
  float sum = 0.0f;
  for (i64 i = 0; i < inner; ++i) {
    float a, b;
    get(a, mine[i]);
    get(b, other[i]);
    sum += a * b;
  }
  if (bias) {
    float addend;
    get(addend, bias[at % columns]);
    sum += addend;
  }
";

/// The kernel for a shape's elements and epilogue.
pub(super) fn kernel(shape: &MatmulShape) -> Kernel {
    let (x, out) = (c_type(shape.element), c_type(shape.out_element));
    let store = match shape.epilogue {
        Epilogue::None => "  put(out[at], sum);\n",
        Epilogue::GeluTanh => "  put(out[at], gelu_tanh(sum));\n",
    };
    Kernel::entry(
        "plain_matmul",
        Library::Row,
        THREADS,
        &format!(
            "const {x}* __restrict__ x, const {x}* __restrict__ w, const {out}* __restrict__ bias, \
             {out}* __restrict__ out, i64 rows, i64 columns, i64 inner"
        ),
        &format!("  typedef {x} X;{BODY}{store}"),
    )
}

/// Blocks for a shape; nothing where that is more than a device takes.
fn blocks(shape: &MatmulShape) -> Option<u32> {
    let blocks = shape.rows.checked_mul(shape.columns)?.div_ceil(THREADS as usize);
    i32::try_from(blocks).ok().map(i32::unsigned_abs)
}

/// Starts the product on the stream.
///
/// # Safety
/// As [`Matmuls::start`](super::matmul::Matmuls::start).
pub(super) unsafe fn start(
    kernels: &Kernels,
    shape: &MatmulShape,
    at: &MatmulAddresses,
    stream: &CudaStream,
) -> Result<(), Failure> {
    let Some(blocks) = blocks(shape) else {
        return Err(Failure::Refused(format!("{shape:?} is more than a device takes")));
    };
    let bias = if shape.bias { at.bias } else { 0 };
    let counts = [shape.rows, shape.columns, shape.inner].map(|count| count as u64);
    let mut arguments = [at.x, at.w, bias, at.out, counts[0], counts[1], counts[2]];
    let kernel = kernels.get(&kernel(shape))?;
    // SAFETY: the caller's promise; the kernel is kept loaded by `kernels`.
    unsafe { kernel.launch([blocks, 1, 1], THREADS, &mut arguments, stream) }
}

#[cfg(test)]
mod tests {
    use super::super::compiler;
    use super::super::libraries::tests::nvrtc;
    use super::*;
    use crate::Element;
    use crate::cuda::kernel::NVRTC_OPTIONS;

    fn shape(element: Element, out_element: Element, epilogue: Epilogue) -> MatmulShape {
        MatmulShape { rows: 100_000, columns: 3, inner: 1, element, out_element, bias: true, epilogue }
    }

    #[test]
    fn nvrtc_compiles_it_for_every_pair_of_elements_and_epilogue() {
        let libraries = nvrtc();
        let options = NVRTC_OPTIONS.map(str::to_owned);
        let pairs =
            [(Element::F32, Element::F32), (Element::F16, Element::F16), (Element::F16, Element::F32)];
        for (element, out_element) in pairs {
            for epilogue in [Epilogue::None, Epilogue::GeluTanh] {
                let kernel = kernel(&shape(element, out_element, epilogue));
                let compiled = compiler::compile(libraries, &kernel.source(), "sm_90", &options);
                assert_eq!(&compiled.unwrap()[..4], b"\x7fELF");
            }
        }
    }

    #[test]
    fn there_is_a_thread_for_every_element_or_none_at_all() {
        let shape = shape(Element::F16, Element::F16, Epilogue::None);
        assert_eq!(blocks(&shape), Some(1_172));
        assert_eq!(blocks(&MatmulShape { rows: 1 << 40, ..shape }), None);
    }
}
