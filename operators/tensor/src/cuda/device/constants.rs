//! A program's constants on the device: weights, converted as they are uploaded. Plans of the same
//! graph and weights on one device share them.

use std::sync::Arc;

use super::context::Device;
use super::conversion::convert;
use super::device_memory::{ALIGNMENT, DeviceMemory};
use super::failure::Failure;
use super::memory_budget::MemoryBudget;
use super::upload::Uploader;
use crate::cuda::program::{Constant, Program};
use crate::op::WeightId;
use crate::weights::StoredTensor;
use crate::{Error, Graph, Result, Weights};

/// All constants of a program, in one allocation.
pub(super) struct Constants {
    _memory: DeviceMemory,
    addresses: Vec<u64>,
    made_from: Origin,
}

/// What constants are made from. Tensors are compared by where they lie, not by what they hold;
/// they are held, so that nothing else can come to lie there.
pub(super) struct Origin {
    specs: Vec<Constant>,
    tensors: Vec<StoredTensor>,
}

impl Origin {
    /// # Errors
    /// When a weight is missing or of another shape.
    pub(super) fn new(program: &Program, graph: &Graph, weights: &Weights) -> Result<Origin> {
        weights.check(graph)?;
        let tensor = |name: &str| {
            weights.get(name).cloned().ok_or_else(|| Error::weights(format!("weight `{name}`"), "is missing"))
        };
        let tensors = graph.weights().iter().map(|weight| tensor(&weight.name)).collect::<Result<_>>()?;
        Ok(Origin { specs: program.constants.clone(), tensors })
    }

    fn tensor(&self, weight: WeightId) -> Result<&StoredTensor, Failure> {
        self.tensors
            .get(weight.0 as usize)
            .ok_or_else(|| Failure::Refused(format!("the program names {weight:?}, which it does not have")))
    }

    fn bytes_of(&self, spec: &Constant) -> Result<usize, Failure> {
        match spec {
            Constant::Bytes(bytes) => Ok(bytes.len()),
            Constant::Weights { weights, element } => weights.iter().try_fold(0, |sum, weight| {
                Ok(sum + self.tensor(*weight)?.dims.iter().product::<usize>() * element.bytes())
            }),
        }
    }

    /// Where each begins, and the bytes of all.
    fn layout(&self) -> Result<(Vec<usize>, usize), Failure> {
        let mut end = 0_usize;
        let mut begins = Vec::with_capacity(self.specs.len());
        for spec in &self.specs {
            begins.push(end);
            end += self.bytes_of(spec)?.next_multiple_of(ALIGNMENT);
        }
        Ok((begins, end))
    }

    /// Bytes that the constants take.
    pub(super) fn bytes(&self) -> Result<usize, Failure> {
        Ok(self.layout()?.1)
    }

    fn is_same(&self, other: &Origin) -> bool {
        let same = |(left, right): (&StoredTensor, &StoredTensor)| {
            left.element == right.element
                && left.data.as_ptr() == right.data.as_ptr()
                && left.data.len() == right.data.len()
        };
        self.specs == other.specs
            && self.tensors.len() == other.tensors.len()
            && self.tensors.iter().zip(&other.tensors).all(same)
    }
}

impl Constants {
    /// Uploads them, and waits until they are there.
    pub(super) fn upload(
        device: &Arc<Device>,
        uploader: &mut Uploader,
        origin: Origin,
    ) -> Result<Constants, Failure> {
        let (begins, bytes) = origin.layout()?;
        // Counted in each plan's budget; see `CudaBackend::constants`.
        let memory = DeviceMemory::allocate(device, &MemoryBudget::new(usize::MAX), bytes)?;
        let addresses: Vec<u64> = begins.iter().map(|begin| memory.address() + *begin as u64).collect();
        let filled = Constants::fill(&origin, &addresses, uploader);
        // Whatever became of it: nothing is freed under a copy.
        let finished = uploader.finish();
        filled.and(finished)?;
        Ok(Constants { _memory: memory, addresses, made_from: origin })
    }

    fn fill(origin: &Origin, addresses: &[u64], uploader: &mut Uploader) -> Result<(), Failure> {
        for (spec, address) in origin.specs.iter().zip(addresses) {
            let bytes = origin.bytes_of(spec)?;
            match spec {
                Constant::Bytes(content) => {
                    // SAFETY: the layout has room for it, and nothing else knows the memory yet.
                    unsafe {
                        uploader.upload(*address, bytes, |first, chunk| {
                            chunk.copy_from_slice(&content[first..first + chunk.len()]);
                        })
                    }?;
                }
                Constant::Weights { weights, element } => {
                    let parts: Vec<&StoredTensor> =
                        weights.iter().map(|weight| origin.tensor(*weight)).collect::<Result<_, _>>()?;
                    // SAFETY: as above.
                    unsafe {
                        uploader.upload(*address, bytes, |first, chunk| {
                            convert(&parts, *element, first / element.bytes(), chunk);
                        })
                    }?;
                }
            }
        }
        Ok(())
    }

    /// Where each constant is.
    pub(super) fn addresses(&self) -> &[u64] {
        &self.addresses
    }

    /// Whether they are what `origin` would make.
    pub(super) fn is_of(&self, origin: &Origin) -> bool {
        self.made_from.is_same(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Element;
    use arrow::buffer::Buffer;

    fn tensor(values: usize) -> StoredTensor {
        StoredTensor {
            element: Element::F32,
            dims: vec![values],
            data: Buffer::from_vec(vec![0_u8; values * 4]),
        }
    }

    fn origin(tensors: &[StoredTensor]) -> Origin {
        let weights = vec![WeightId(0), WeightId(1)];
        Origin {
            specs: vec![
                Constant::Weights { weights: weights.clone(), element: Element::F16 },
                Constant::Bytes(vec![1, 2, 3]),
                Constant::Weights { weights, element: Element::F32 },
            ],
            tensors: tensors.to_vec(),
        }
    }

    #[test]
    fn constants_are_aligned_and_as_long_as_their_element_makes_them() {
        let (begins, bytes) = origin(&[tensor(100), tensor(50)]).layout().unwrap();
        assert_eq!((begins, bytes), (vec![0, 512, 768], 768 + 768));
        assert!(origin(&[tensor(100)]).layout().is_err());
    }

    #[test]
    fn the_same_memory_is_the_same_weights_and_equal_values_elsewhere_are_not() {
        let (left, right) = (tensor(10), tensor(10));
        let of = |right: &StoredTensor| origin(&[left.clone(), right.clone()]);
        assert!(of(&right).is_same(&of(&right.clone())));
        assert!(!of(&right).is_same(&of(&tensor(10))));
    }
}
