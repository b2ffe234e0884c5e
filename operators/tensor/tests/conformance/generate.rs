//! Batches and weights of every kind, from a seed.

use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use half::f16;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use thalweg_tensor::weights::StoredTensor;
use thalweg_tensor::{Element, Graph, Tensor, TensorBatch, Weights};

/// What numbers a tensor is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Like activations: a bell around 0.
    Normal,
    /// A bell far from 0: what one-pass variances fail on.
    Offset,
    /// As great as squares of them still fit.
    Large,
    /// As small as squares of them still count.
    Small,
    /// Too small for a normal number.
    Denormal,
    /// Normal with NaN in some vectors.
    Nan,
    /// Normal with infinities in some vectors.
    Infinite,
    /// Zeros, both signs.
    Zeros,
    /// Small integers, of which many are equal: all sums are exact and ties are real.
    Integers,
}

pub const KINDS: [Kind; 9] = [
    Kind::Normal,
    Kind::Offset,
    Kind::Large,
    Kind::Small,
    Kind::Denormal,
    Kind::Nan,
    Kind::Infinite,
    Kind::Zeros,
    Kind::Integers,
];

/// Makes everything that a case needs.
pub struct Generate {
    pub random: StdRng,
}

impl Generate {
    pub fn new(seed: u64) -> Generate {
        Generate { random: StdRng::seed_from_u64(seed) }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    pub fn normal(&mut self) -> f32 {
        let sum: f32 = (0..6).map(|_| self.random.random_range(-1.0f32..1.0)).sum();
        sum / 2f32.sqrt()
    }

    fn number(&mut self, kind: Kind, element: Element) -> f32 {
        let half = element == Element::F16;
        let normal = self.normal();
        match kind {
            Kind::Normal => normal,
            Kind::Offset => 100.0 + normal,
            Kind::Large => normal * if half { 1e4 } else { 1e15 },
            Kind::Small => normal * if half { 1e-4 } else { 1e-14 },
            Kind::Denormal => normal * if half { 1e-6 } else { 1e-41 },
            Kind::Nan if self.below(24) == 0 => f32::NAN,
            Kind::Infinite if self.below(24) == 0 => f32::INFINITY * normal.signum(),
            Kind::Nan | Kind::Infinite => normal,
            Kind::Zeros => 0.0 * normal.signum(),
            Kind::Integers => self.random.random_range(-4i32..=4) as f32,
        }
    }

    /// `tensors` of `width`, in the element. Vectors of NaN and infinity kinds are spoiled by halves,
    /// so clean ones stand between them.
    pub fn floats(&mut self, kind: Kind, element: Element, tensors: usize, width: usize) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(tensors * width);
        for _ in 0..tensors {
            let spoiled = self.below(2) == 0;
            let kind = match kind {
                Kind::Nan | Kind::Infinite if !spoiled => Kind::Normal,
                kind => kind,
            };
            numbers.extend((0..width).map(|_| self.number(kind, element)));
        }
        numbers
    }

    pub fn data(&mut self, kind: Kind, element: Element, tensors: usize, width: usize) -> Buffer {
        match element {
            Element::I32 => {
                let wild = kind != Kind::Normal;
                let mut id =
                    || if wild { self.random.random::<i32>() } else { self.random.random_range(0..50) };
                Buffer::from_vec((0..tensors * width).map(|_| id()).collect())
            }
            Element::I8 => {
                Buffer::from_vec((0..tensors * width).map(|_| self.random.random::<i8>()).collect())
            }
            _ => buffer(element, &self.floats(kind, element, tensors, width)),
        }
    }

    /// Lengths of rows: among them 0, 1 and a long one.
    pub fn lengths(&mut self, rows: usize, longest: usize) -> Vec<usize> {
        let length = |row: usize| match row {
            0 => longest.min(7),
            1 => 0,
            2 => longest,
            3 => 1,
            _ => self.below(longest + 1),
        };
        (0..rows).map(length).collect()
    }

    /// A batch for the graph, its ids in range. `lengths` are of every input that has tokens.
    pub fn batch(&mut self, graph: &Graph, kind: Kind, rows: usize, lengths: &[usize]) -> TensorBatch {
        let mut tensors = Vec::new();
        for input in graph.inputs() {
            let ty = graph.value(input.value);
            let is_ragged = ty.axis.is_some();
            let count = if is_ragged { lengths.iter().sum() } else { rows };
            let data = match input.id_bound {
                Some(bound) => {
                    Buffer::from_vec((0..count * ty.width()).map(|_| self.below(bound) as i32).collect())
                }
                None => self.data(kind, ty.element, count, ty.width()),
            };
            tensors.push(match is_ragged {
                true => Tensor::ragged(ty.element, ty.dims.clone(), offsets(lengths), data).unwrap(),
                false => Tensor::fixed(ty.element, ty.dims.clone(), rows, data).unwrap(),
            });
        }
        TensorBatch { rows, tensors }
    }

    /// Weights for the graph. Those called `table` are of the kind, as inputs are. Of the others
    /// matrices are scaled so that products stay of the size of what comes in, and those called
    /// `deviation` are positive; with `Kind::Integers` all are integers, deviations powers of two.
    pub fn weights(&mut self, graph: &Graph, kind: Kind, element: Element) -> Weights {
        let mut weights = Weights::default();
        for weight in graph.weights() {
            let count: usize = weight.dims.iter().product();
            let numbers = match weight.name.contains("table") {
                true => self.floats(kind, element, weight.dims[0], weight.dims[1]),
                false => (0..count).map(|_| self.weight(&weight.name, &weight.dims, kind)).collect(),
            };
            let (dims, data) = (weight.dims.clone(), buffer(element, &numbers));
            weights.insert(weight.name.clone(), StoredTensor { element, dims, data }).unwrap();
        }
        weights
    }

    fn weight(&mut self, name: &str, dims: &[usize], kind: Kind) -> f32 {
        let scale = if dims.len() == 2 { (dims[1] as f32).sqrt().recip() } else { 1.0 };
        match (kind, name.contains("deviation")) {
            (Kind::Integers, true) => [0.5, 1.0, 2.0, 4.0][self.below(4)],
            (Kind::Integers, false) => self.number(Kind::Integers, Element::F32),
            (_, true) => 0.5 + self.normal().abs(),
            (_, false) => self.normal() * scale,
        }
    }
}

pub fn buffer(element: Element, numbers: &[f32]) -> Buffer {
    match element {
        Element::F16 => Buffer::from_vec(numbers.iter().map(|&x| f16::from_f32(x)).collect()),
        _ => Buffer::from_vec(numbers.to_vec()),
    }
}

pub fn offsets(lengths: &[usize]) -> OffsetBuffer<i32> {
    let mut end = 0;
    let ends = lengths.iter().map(|length| {
        end += *length as i32;
        end
    });
    OffsetBuffer::new(ScalarBuffer::from(std::iter::once(0).chain(ends).collect::<Vec<i32>>()))
}
