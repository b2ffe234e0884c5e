//! What a tensor is made of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The type of one element of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision: stored as such, computed with in `f32`.
    F16,
    /// Signed bytes, as `quantise` makes them.
    I8,
    /// Signed 32-bit integers: token ids, buckets, MinHash signatures (bits of a `u32`).
    I32,
    /// Signed 64-bit integers: ids of a reference matrix, SimHash words (bits of a `u64`).
    I64,
}

impl Element {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Element::I8 => 1,
            Element::F16 => 2,
            Element::F32 | Element::I32 => 4,
            Element::I64 => 8,
        }
    }

    /// Whether arithmetic ops take it.
    pub const fn is_float(self) -> bool {
        matches!(self, Element::F32 | Element::F16)
    }

    /// `f32`, `f16`, `i8`, `i32` or `i64`.
    pub const fn name(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::I8 => "i8",
            Element::I32 => "i32",
            Element::I64 => "i64",
        }
    }

    /// The element of that name.
    pub fn from_name(name: &str) -> Option<Element> {
        [Element::F32, Element::F16, Element::I8, Element::I32, Element::I64]
            .into_iter()
            .find(|element| element.name() == name)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
