//! The ops of a graph, and what each means.
//!
//! Arithmetic is in `f32` (accumulated in `f32` or better) whatever the element; an `f16` value is
//! rounded to nearest even where it is stored. A backend may keep the inner values of a fused
//! chain unrounded. NaN in a row's tensor stays in what that row makes, and touches no other row.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Element;

/// A value of a graph, by its place in [`Graph::values`](crate::Graph::values).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// A weight of a graph, by its place in [`Graph::weights`](crate::Graph::weights).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// A reference matrix of a graph, by its place in [`Graph::references`](crate::Graph::references).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReferenceId(pub u32);

/// What is applied to each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`; NaN stays.
    Relu,
    /// `x * (1 + erf(x / sqrt(2))) / 2` (Hendrycks, Gimpel 2016).
    Gelu,
    /// Its approximation `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
}

/// How the tokens of a row become one tensor. A row without tokens gets zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over the tokens.
    Mean,
    /// The first token's.
    Cls,
    /// The greatest of each element; NaN where one is.
    Max,
}

/// How a query is compared with the vectors of a reference matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Dot product, the greatest first.
    Dot,
    /// Dot product over the product of the norms, the greatest first; 0 where a norm is 0.
    Cosine,
    /// Squared Euclidean distance, the least first.
    L2,
}

/// One op. Its inputs and outputs are values; see [`Node`](crate::graph::Node).
///
/// `last` is a value's innermost fixed dimension; an op over vectors works on each of them alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `i32[..] -> element[.., width]`: the rows of `table` (`[rows, width]`) that the ids name.
    /// Ids come from an input or from `bucketise`, and are known to be in range before they reach
    /// a backend.
    Gather {
        /// `[rows, width]`.
        table: WeightId,
        /// `f32` or `f16`: what the model is computed in from here on.
        element: Element,
    },
    /// `i32[axis] -> element[axis, width]`: row `t` of `table` for each row's `t`-th token.
    /// No row is longer than the table when it reaches a backend.
    Positions {
        /// `[length_max, width]`.
        table: WeightId,
        /// `f32` or `f16`.
        element: Element,
    },
    /// `[.., in] -> [.., out]`: `activation(x * weight^T + bias)`.
    MatMul {
        /// `[out, in]`, as PyTorch's `Linear` keeps it.
        weight: WeightId,
        /// `[out]`.
        bias: Option<WeightId>,
        /// Applied last.
        activation: Option<Activation>,
    },
    /// `(t, t) -> t`, element by element.
    Add,
    /// `[.., n] -> [.., n]`: adds the same vector (`[n]`) everywhere.
    AddBias {
        /// `[n]`.
        bias: WeightId,
    },
    /// Element by element.
    Activate(Activation),
    /// Over the innermost dimension: `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, with
    /// the variance over n (Ba, Kiros, Hinton 2016).
    LayerNorm {
        /// `[n]`.
        gamma: WeightId,
        /// `[n]`.
        beta: WeightId,
        /// Added to the variance.
        epsilon: f32,
    },
    /// Over the innermost dimension, the greatest subtracted first. All `-inf` makes NaN.
    Softmax,
    /// `(query, key, value)`, each `[axis, heads * d]`, to the same type: scaled dot-product
    /// attention, scaled by `1 / sqrt(d)`, of each row's tokens over that row's tokens alone
    /// (Vaswani et al. 2017).
    Attention {
        /// Divides the width.
        heads: usize,
        /// Whether a token sees only itself and those before it.
        causal: bool,
    },
    /// `[axis, ..] -> [..]`.
    Pool(Pooling),
    /// Over the innermost dimension: `x / max(norm, epsilon)`, as PyTorch's `normalize`.
    L2Normalise {
        /// The least norm that is divided by.
        epsilon: f32,
    },
    /// `[.., n] -> (i8[.., n], f32[..])`: `scale = max |x| / 127` over the innermost dimension,
    /// `x / scale` rounded to nearest even. A vector of zeros has scale 0 and zeros; one with a
    /// NaN or an infinity has scale NaN and zeros.
    Quantise,
    /// `(i8[.., n], f32[..]) -> element[.., n]`: value times scale.
    Dequantise {
        /// `f32` or `f16`.
        to: Element,
    },
    /// Between `f32`, `f16`, `i8` and `i32`. To integers: rounded to nearest even, saturating,
    /// NaN to 0. To `f16`: nearest even, overflow to infinity.
    Cast {
        /// What it becomes.
        to: Element,
    },
    /// Several values, alike but for the innermost dimension, one behind the other along it.
    Concat,
    /// `[.., n] -> [.., length]`: a part of the innermost dimension.
    Slice {
        /// The first element.
        start: usize,
        /// How many.
        length: usize,
    },
    /// `[d] -> (i64[k], f32[k])`: ids and scores of the nearest vectors, the nearest first; of
    /// equal scores the one that stands earlier in the matrix. A NaN score comes after every
    /// other. Where the matrix has fewer than `k` vectors the rest has id -1 and score NaN.
    TopK {
        /// Its width is `d`.
        reference: ReferenceId,
        /// What near means.
        metric: Metric,
        /// How many.
        k: usize,
    },
    /// `i32[axis] -> i32[hashes]`, see [`hashing`](crate::hashing).
    MinHash {
        /// How many hashes.
        hashes: usize,
        /// Makes the hashes.
        seed: u64,
    },
    /// `i32[axis] -> i64[words]`, 64 bits each, see [`hashing`](crate::hashing).
    SimHash {
        /// Bits over 64.
        words: usize,
        /// Makes the hashes.
        seed: u64,
    },
    /// `i32[axis] -> f32[width]`: signed counts, see [`hashing`](crate::hashing).
    FeatureHash {
        /// Columns.
        width: usize,
        /// Makes the hash.
        seed: u64,
    },
    /// `float[..] -> i32[..]`: how many `boundaries` are less than the element, as PyTorch's
    /// `bucketize`; NaN is in the last bucket. Boundaries rise.
    Bucketise {
        /// Rising, none of them NaN.
        boundaries: Vec<f32>,
    },
    /// `[.., n] -> [.., n]`: `(x - mean) / deviation`, element by element.
    Standardise {
        /// `[n]`.
        mean: WeightId,
        /// `[n]`.
        deviation: WeightId,
    },
}

impl Op {
    /// The op's name in errors, `explain` and YAML.
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Gather { .. } => "gather",
            Op::Positions { .. } => "positions",
            Op::MatMul { .. } => "matmul",
            Op::Add => "add",
            Op::AddBias { .. } => "add_bias",
            Op::Activate(_) => "activate",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Softmax => "softmax",
            Op::Attention { .. } => "attention",
            Op::Pool(_) => "pool",
            Op::L2Normalise { .. } => "l2_normalise",
            Op::Quantise => "quantise",
            Op::Dequantise { .. } => "dequantise",
            Op::Cast { .. } => "cast",
            Op::Concat => "concat",
            Op::Slice { .. } => "slice",
            Op::TopK { .. } => "top_k",
            Op::MinHash { .. } => "min_hash",
            Op::SimHash { .. } => "sim_hash",
            Op::FeatureHash { .. } => "feature_hash",
            Op::Bucketise { .. } => "bucketise",
            Op::Standardise { .. } => "standardise",
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activation::Relu => "relu",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::Silu => "silu",
        })
    }
}
