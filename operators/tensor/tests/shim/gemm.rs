//! The library's products, as it does them: `f32` in `f32`; `f16` accumulated in `f32`, biased there,
//! and rounded once.

use half::f16;
use thalweg_tensor::Element;
use thalweg_tensor::cuda::program::Epilogue;

/// `input[m, k] * weight[n, k]^T`.
pub fn product(input: &[f32], weight: &[f32], [m, n, k]: [usize; 3]) -> Vec<f32> {
    assert!(input.len() == m * k && weight.len() == n * k);
    let mut out = vec![0f32; m * n];
    let (columns, inner) = (n as isize, k as isize);
    // SAFETY: the three are dense and as large as the dimensions say.
    unsafe {
        let (input, weight, out) = (input.as_ptr(), weight.as_ptr(), out.as_mut_ptr());
        matrixmultiply::sgemm(m, k, n, 1.0, input, inner, 1, weight, 1, inner, 0.0, out, columns, 1);
    }
    out
}

/// Bias and epilogue.
pub fn finish(sums: &mut [f32], bias: Option<&[f32]>, epilogue: Epilogue) {
    if let Some(bias) = bias {
        for row in sums.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
        }
    }
    if epilogue == Epilogue::GeluTanh {
        for x in sums {
            *x = 0.5 * *x * (1.0 + (0.797_884_6 * (*x + 0.044_715 * *x * *x * *x)).tanh());
        }
    }
}

/// Stored floats as `f32`.
pub fn floats(bytes: &[u8], element: Element) -> Vec<f32> {
    match element {
        Element::F16 => {
            bytes.chunks_exact(2).map(|half| f16::from_le_bytes([half[0], half[1]]).to_f32()).collect()
        }
        _ => bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect(),
    }
}

/// Floats as they are stored.
pub fn stored(floats: &[f32], element: Element) -> Vec<u8> {
    match element {
        Element::F16 => floats.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        _ => floats.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}
