//! The weights of a graph: named tensors, memory-mapped from safetensors files.

use std::collections::BTreeMap;

use arrow::buffer::Buffer;
use half::f16;

use crate::{Element, Error, Graph, Result};

/// One stored tensor.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// `f32` or `f16`.
    pub element: Element,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Its memory: part of a mapped file, or of an allocation. May be unaligned.
    pub data: Buffer,
}

/// Named tensors.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    tensors: BTreeMap<String, StoredTensor>,
}

impl Weights {
    /// Adds or replaces a tensor.
    ///
    /// # Errors
    /// When it is not of floats, or its memory is not as long as its shape says.
    pub fn insert(&mut self, name: impl Into<String>, tensor: StoredTensor) -> Result<()> {
        let name = name.into();
        let want = tensor.dims.iter().product::<usize>().saturating_mul(tensor.element.bytes());
        if !tensor.element.is_float() || tensor.data.len() != want {
            return Err(Error::weights(
                format!("weight `{name}`"),
                format!(
                    "{}{:?} needs {want} bytes of f32 or f16, it has {}",
                    tensor.element,
                    tensor.dims,
                    tensor.data.len()
                ),
            ));
        }
        self.tensors.insert(name, tensor);
        Ok(())
    }

    /// A tensor.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor as `f32`, in its stored order.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::weights(format!("weight `{name}`"), "is not among the weights"));
        };
        Ok(match tensor.element {
            Element::F16 => tensor
                .data
                .chunks_exact(2)
                .map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32())
                .collect(),
            _ => tensor
                .data
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                .collect(),
        })
    }

    /// Whether every weight of the graph is here with its shape.
    ///
    /// # Errors
    /// Names the first that is not, with both shapes.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        for weight in graph.weights() {
            match self.get(&weight.name) {
                None => {
                    return Err(Error::weights(
                        format!("weight `{}`", weight.name),
                        format!("the graph needs it with shape {:?}, and it is not there", weight.dims),
                    ));
                }
                Some(stored) if stored.dims != weight.dims => {
                    return Err(Error::weights(
                        format!("weight `{}`", weight.name),
                        format!("the graph needs shape {:?}, it has {:?}", weight.dims, stored.dims),
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
