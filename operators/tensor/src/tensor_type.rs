//! What is known of a value before there is a batch.

use std::fmt;
use std::sync::Arc;

use crate::Element;

/// The type of a value: one tensor per row.
///
/// With an `axis`, a row's tensor has a leading dimension of varying length (its tokens), and two
/// values with the same axis have the same lengths in every row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// What it is made of.
    pub element: Element,
    /// The input whose lengths the leading dimension has.
    pub axis: Option<Arc<str>>,
    /// The fixed dimensions, outermost first; none for a scalar.
    pub dims: Vec<usize>,
}

impl TensorType {
    /// A tensor of fixed dimensions.
    pub fn fixed(element: Element, dims: impl Into<Vec<usize>>) -> TensorType {
        TensorType { element, axis: None, dims: dims.into() }
    }

    /// A tensor with a leading dimension as long as the rows of input `axis`.
    pub fn ragged(element: Element, axis: &str, dims: impl Into<Vec<usize>>) -> TensorType {
        TensorType { element, axis: Some(axis.into()), dims: dims.into() }
    }

    /// Elements of the fixed dimensions: of a row, or of a token where there is an axis.
    pub fn width(&self) -> usize {
        self.dims.iter().product()
    }

    /// The innermost fixed dimension, 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// The same with another element.
    #[must_use]
    pub fn with_element(&self, element: Element) -> TensorType {
        TensorType { element, ..self.clone() }
    }

    /// The same with another innermost dimension; a scalar gets one.
    #[must_use]
    pub fn with_last(&self, last: usize) -> TensorType {
        let mut changed = self.clone();
        match changed.dims.last_mut() {
            Some(dim) => *dim = last,
            None => changed.dims.push(last),
        }
        changed
    }

    /// The same without its innermost dimension.
    #[must_use]
    pub fn without_last(&self) -> TensorType {
        let mut changed = self.clone();
        changed.dims.pop();
        changed
    }
}

/// `f32[384]`, `i32[title]` (as long as the rows of input `title`), `f16[title, 384]`, `f32[]`.
impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims = self.dims.iter().map(usize::to_string);
        let all: Vec<String> = self.axis.iter().map(|axis| axis.to_string()).chain(dims).collect();
        write!(f, "{}[{}]", self.element, all.join(", "))
    }
}
