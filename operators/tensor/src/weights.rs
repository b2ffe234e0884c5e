//! The weights of a graph: named tensors, memory-mapped from safetensors files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow::buffer::Buffer;
use bytes::Bytes;
use half::{bf16, f16};
use safetensors::tensor::Dtype;

use crate::safetensors_file::{FileTensor, SafetensorsFile};
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
    /// Of what came from files, and of what is in files but no float: from which, and what it is.
    origins: BTreeMap<String, Origin>,
    hash: OnceLock<[u8; 32]>,
}

#[derive(Clone, Debug)]
struct Origin {
    file: Arc<str>,
    dtype: Dtype,
}

impl Weights {
    /// Maps safetensors files. `f32` and `f16` stay where they are, `bf16` is widened to `f32`;
    /// tensors of other types are left out.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged, or when two have a tensor of the same name.
    pub fn open<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Weights> {
        let mut weights = Weights::default();
        for path in paths {
            weights.add_file(&SafetensorsFile::open(path.as_ref())?)?;
        }
        Ok(weights)
    }

    /// The same of a file that is in memory; its name is for errors.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn from_bytes(name: &str, bytes: Bytes) -> Result<Weights> {
        let mut weights = Weights::default();
        weights.add_bytes(name, bytes)?;
        Ok(weights)
    }

    /// Adds the tensors of a further file that is in memory.
    ///
    /// # Errors
    /// When it is damaged, or has a tensor that is there already.
    pub fn add_bytes(&mut self, name: &str, bytes: Bytes) -> Result<()> {
        self.add_file(&SafetensorsFile::from_bytes(name, bytes))
    }

    fn add_file(&mut self, file: &SafetensorsFile) -> Result<()> {
        let name: Arc<str> = file.name().into();
        for tensor in file.tensors()? {
            if let Some(known) = self.origins.get(&tensor.name) {
                let known = &known.file;
                return Err(Error::weights(
                    &*name,
                    format!("its tensor `{}` is in {known} already", tensor.name),
                ));
            }
            let origin = Origin { file: name.clone(), dtype: tensor.dtype };
            self.origins.insert(tensor.name.clone(), origin);
            if let Some((name, tensor)) = stored(tensor) {
                self.insert(name, tensor)?;
            }
        }
        Ok(())
    }

    /// Adds or replaces a tensor.
    ///
    /// # Errors
    /// When it is not of floats, or its memory is not as long as its shape says.
    pub fn insert(&mut self, name: impl Into<String>, tensor: StoredTensor) -> Result<()> {
        let name = name.into();
        let want = tensor.dims.iter().product::<usize>().saturating_mul(tensor.element.bytes());
        if !tensor.element.is_float() || tensor.data.len() != want {
            return Err(Error::weights(
                self.called(&name),
                format!(
                    "{}{:?} needs {want} bytes of f32 or f16, it has {}",
                    tensor.element,
                    tensor.dims,
                    tensor.data.len()
                ),
            ));
        }
        self.tensors.insert(name, tensor);
        self.hash = OnceLock::new();
        Ok(())
    }

    /// Adds all tensors of others, as when a graph has a model and layers of its own.
    ///
    /// # Errors
    /// When both have a tensor of the same name, and not the same one.
    pub fn merge(&mut self, others: &Weights) -> Result<()> {
        for (name, tensor) in &others.tensors {
            match self.tensors.get(name) {
                Some(known) if known.dims == tensor.dims && known.data == tensor.data => continue,
                Some(_) => {
                    let reason = format!("is another one than {}", self.called(name));
                    return Err(Error::weights(others.called(name), reason));
                }
                None => self.insert(name.clone(), tensor.clone())?,
            }
        }
        for (name, origin) in &others.origins {
            self.origins.entry(name.clone()).or_insert_with(|| origin.clone());
        }
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
            return Err(Error::weights(self.called(name), "is not among the weights"));
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
    /// Names the first that is not, its file, and both shapes.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        for weight in graph.weights() {
            let called = || self.called(&weight.name);
            match (self.get(&weight.name), self.origins.get(&weight.name)) {
                (Some(stored), _) if stored.dims == weight.dims => {}
                (Some(stored), _) => {
                    let reason = format!("the graph needs shape {:?}, it has {:?}", weight.dims, stored.dims);
                    return Err(Error::weights(called(), reason));
                }
                (None, Some(origin)) => {
                    let reason = format!("is of {:?}, not of f32, f16 or bf16", origin.dtype);
                    return Err(Error::weights(called(), reason));
                }
                (None, None) => {
                    let reason =
                        format!("the graph needs it with shape {:?}, and it is not there", weight.dims);
                    return Err(Error::weights(called(), reason));
                }
            }
        }
        Ok(())
    }

    /// BLAKE3 over names, elements, shapes and bytes of all tensors, in the order of names; computed
    /// when first asked for. The same weights in other files, or in another order, have the same.
    pub fn hash(&self) -> [u8; 32] {
        *self.hash.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            for (name, tensor) in &self.tensors {
                let shape = format!("{name}\0{}{:?}\0", tensor.element, tensor.dims);
                hasher.update(&(shape.len() as u64).to_le_bytes());
                hasher.update(shape.as_bytes());
                hasher.update(&tensor.data);
            }
            *hasher.finalize().as_bytes()
        })
    }

    /// A weight's name in an error, with its file where it has one.
    fn called(&self, name: &str) -> String {
        match self.origins.get(name) {
            Some(origin) => format!("weight `{name}` of {}", origin.file),
            None => format!("weight `{name}`"),
        }
    }
}

/// A file's tensor as weights hold it, unless it is of another type.
fn stored(tensor: FileTensor) -> Option<(String, StoredTensor)> {
    let FileTensor { name, dtype, dims, data } = tensor;
    let (element, data) = match dtype {
        Dtype::F32 => (Element::F32, data),
        Dtype::F16 => (Element::F16, data),
        Dtype::BF16 => {
            let widen = |bytes: &[u8]| bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            (Element::F32, Buffer::from_vec(data.chunks_exact(2).map(widen).collect::<Vec<f32>>()))
        }
        _ => return None,
    };
    Some((name, StoredTensor { element, dims, data }))
}
