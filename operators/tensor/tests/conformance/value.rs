//! What the oracle computes with: numbers in `f64`, each with how far an honest backend may be off.

use std::rc::Rc;

use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use half::f16;
use thalweg_tensor::{Element, Tensor, TensorType};

/// A value of a batch. Numbers are as the op makes them, before they are rounded to the element.
#[derive(Clone, Debug)]
pub struct Value {
    pub element: Element,
    pub dims: Vec<usize>,
    pub rows: usize,
    pub offsets: Option<Rc<Vec<i32>>>,
    /// All but `i64`.
    pub numbers: Vec<f64>,
    /// How far each number may be off, before the rounding of its own element.
    pub slack: Vec<f64>,
    /// `i64` alone.
    pub integers: Vec<i64>,
    /// Of the ids and scores of a top-k: what they were chosen from.
    pub ranking: Option<Rc<Ranking>>,
}

/// The scores of every vector of a reference matrix, for each query.
#[derive(Debug)]
pub struct Ranking {
    pub ids: Vec<i64>,
    /// Query after query.
    pub scores: Vec<f64>,
    pub slack: Vec<f64>,
    pub k: usize,
}

impl Value {
    /// An empty value of that type, as long as `like`.
    pub fn new(ty: &TensorType, like: &Value) -> Value {
        let offsets = if ty.axis.is_some() { like.offsets.clone() } else { None };
        Value {
            element: ty.element,
            dims: ty.dims.clone(),
            rows: like.rows,
            offsets,
            numbers: Vec::new(),
            slack: Vec::new(),
            integers: Vec::new(),
            ranking: None,
        }
    }

    pub fn of(tensor: &Tensor) -> Value {
        let numbers: Vec<f64> = match tensor.element() {
            Element::F32 => tensor.values::<f32>().unwrap().iter().map(|&x| f64::from(x)).collect(),
            Element::F16 => tensor.values::<f16>().unwrap().iter().map(|x| x.to_f64()).collect(),
            Element::I8 => tensor.values::<i8>().unwrap().iter().map(|&x| f64::from(x)).collect(),
            Element::I32 => tensor.values::<i32>().unwrap().iter().map(|&x| f64::from(x)).collect(),
            Element::I64 => Vec::new(),
        };
        let integers = match tensor.element() {
            Element::I64 => tensor.values::<i64>().unwrap().to_vec(),
            _ => Vec::new(),
        };
        Value {
            element: tensor.element(),
            dims: tensor.dims().to_vec(),
            rows: tensor.rows(),
            offsets: tensor.offsets().map(|offsets| Rc::new(offsets.to_vec())),
            slack: vec![0.0; numbers.len()],
            numbers,
            integers,
            ranking: None,
        }
    }

    /// Rounded to its element.
    pub fn to_tensor(&self) -> Tensor {
        let numbers = || self.numbers.iter();
        let data = match self.element {
            Element::F32 => Buffer::from_vec(numbers().map(|&x| x as f32).collect()),
            Element::F16 => Buffer::from_vec(numbers().map(|&x| f16::from_f64(x)).collect()),
            Element::I8 => Buffer::from_vec(numbers().map(|&x| x as i8).collect()),
            Element::I32 => Buffer::from_vec(numbers().map(|&x| x as i32).collect()),
            Element::I64 => Buffer::from_vec(self.integers.clone()),
        };
        match &self.offsets {
            None => Tensor::fixed(self.element, self.dims.clone(), self.rows, data).unwrap(),
            Some(offsets) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from((**offsets).clone()));
                Tensor::ragged(self.element, self.dims.clone(), offsets, data).unwrap()
            }
        }
    }

    pub fn push(&mut self, number: f64, slack: f64) {
        self.numbers.push(number);
        self.slack.push(if slack.is_nan() { 0.0 } else { slack });
    }

    pub fn last(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    pub fn width(&self) -> usize {
        self.dims.iter().product()
    }

    /// Where a row's tokens lie.
    pub fn tokens(&self, row: usize) -> std::ops::Range<usize> {
        let offsets = self.offsets.as_ref().expect("rows vary in length");
        offsets[row] as usize..offsets[row + 1] as usize
    }

    /// Whether the next op reads it rounded to its element or not is the backend's to choose.
    pub fn inner_slack(&self, index: usize) -> f64 {
        let (number, slack) = (self.numbers[index], self.slack[index]);
        match !number.is_finite() || (slack == 0.0 && round_to(self.element, number) == number) {
            true => slack,
            false => slack + half_ulp(self.element, number),
        }
    }

    pub fn at(&self, index: usize) -> (f64, f64) {
        (self.numbers[index], self.inner_slack(index))
    }
}

/// The nearest number that the element can hold; beyond it, infinity.
pub fn round_to(element: Element, number: f64) -> f64 {
    match element {
        Element::F32 => f64::from(number as f32),
        Element::F16 => f16::from_f64(number).to_f64(),
        _ => number,
    }
}

/// How far the nearest number of the element can be.
pub fn half_ulp(element: Element, number: f64) -> f64 {
    let (bits, least) = match element {
        Element::F32 => (24, -126),
        Element::F16 => (11, -14),
        _ => return 0.0,
    };
    let exponent = ((number.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    2f64.powi(exponent.max(least) - bits)
}
