//! How far a backend may be off, op by op: the one table.
//!
//! A number may be off by `units(op, n) * U32 * magnitude`, where the magnitude is that of the terms
//! that were summed (`sum |w x|`, not `|sum w x|`, so cancellation is paid for), given with each op
//! below; plus what the op's own inputs may be off, carried through the op (as independent errors,
//! in quadrature); and is then rounded to its element. In a graph of several ops the whole is taken
//! `GRAPH` times, for errors in quadrature are one deviation and a batch has many elements.
//!
//! | op | units | of what | why |
//! |---|---|---|---|
//! | gather, positions, slice, concat, cast, relu, pool cls and max, hashes, bucketise | 0 | | nothing is computed, or in integers |
//! | add, add_bias, dequantise | 1 | the result | one rounding |
//! | standardise | 4 | `(\|x\| + \|mean\|) / \|deviation\|` | may be a product with the reciprocal |
//! | gelu | 8 | `\|x\|` | `1 + erf` cancels below zero |
//! | gelu_tanh | 16 | `\|x\|` | the same, with two more roundings inside tanh |
//! | silu | 8 + 2\|x\| | the result | the error of `exp` grows with its argument |
//! | matmul, dot, cosine, L2 | 4 + n/64 | `sum \|w x\| + \|bias\|` | sums in any order, no fewer than 16 of them side by side for long ones; L2 may be `\|q\|^2 - 2 q r + \|r\|^2` |
//! | pool mean | 4 + tokens/8 | mean of `\|x\|` | a column has one sum, token by token, and where all are of one sign roundings lean one way |
//! | layer_norm | 8 + n/64 | `(\|x\| + mean \|x\|) / deviation` | the variance is of what is left after the mean is taken away |
//! | softmax, attention | 8 + n/64 + 2\|x - max\| | the result | the error of `exp`, then a sum |
//! | l2_normalise | 8 + n/64 | the result | a sum, a root and a quotient |
//! | quantise | 4 | `\|x\| / scale` | may be a product with `127 / max`: a value near a half may round either way |
//!
//! Where the element is `f16`, weights and reference matrices may be held in `f16` too, and attention
//! may round its probabilities to it: one `U16` of the same magnitude more. A product may store its
//! sum in `f16` before its activation: `U16_SMALL` more, which counts only where the sum is next to 0.

use thalweg_tensor::op::{Activation, Op, Pooling};

/// Half the distance between 1 and the next `f32`.
pub const U32: f64 = 1.0 / (1u64 << 24) as f64;
/// Half the distance between 1 and the next `f16`.
pub const U16: f64 = 1.0 / (1u64 << 11) as f64;
/// Half the distance between 0 and the next `f16`.
pub const U16_SMALL: f64 = 1.0 / (1u64 << 25) as f64;
/// A result so small may be flushed to zero, or be lost in an intermediate that is.
pub const FLUSHED: f64 = 1e-36;
/// How often the slack of a whole graph is taken.
pub const GRAPH: f64 = 4.0;

/// How many units of the op's magnitude a number may be off, with sums of `n` terms.
pub fn units(op: &Op, n: usize) -> f64 {
    let sum = n as f64 / 64.0;
    match op {
        Op::Gather { .. }
        | Op::Positions { .. }
        | Op::Slice { .. }
        | Op::Concat
        | Op::Cast { .. }
        | Op::MinHash { .. }
        | Op::SimHash { .. }
        | Op::FeatureHash { .. }
        | Op::Bucketise { .. }
        | Op::Pool(Pooling::Cls | Pooling::Max) => 0.0,
        Op::Add | Op::AddBias { .. } | Op::Dequantise { .. } => 1.0,
        Op::Standardise { .. } | Op::Quantise => 4.0,
        Op::Activate(activation) => activation_units(*activation),
        Op::MatMul { .. } | Op::TopK { .. } => 4.0 + sum,
        Op::Pool(Pooling::Mean) => 4.0 + n as f64 / 8.0,
        Op::LayerNorm { .. } | Op::Softmax | Op::Attention { .. } | Op::L2Normalise { .. } => 8.0 + sum,
    }
}

/// How many units of `|x|` (of the result, for silu) an activation may be off.
pub fn activation_units(activation: Activation) -> f64 {
    match activation {
        Activation::Relu => 0.0,
        Activation::Gelu | Activation::Silu => 8.0,
        Activation::GeluTanh => 16.0,
    }
}
