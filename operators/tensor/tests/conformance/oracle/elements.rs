//! Ops that work on each element alone.

use thalweg_tensor::Element;
use thalweg_tensor::op::{Activation, Op, WeightId};

use super::{Oracle, stored_slack, u32s};
use crate::tolerance::{activation_units, units};
use crate::value::Value;

pub fn add(op: &Op, left: &Value, right: &Value, out: &mut Value) {
    for index in 0..left.numbers.len() {
        let ((a, da), (b, db)) = (left.at(index), right.at(index));
        out.push(a + b, da.hypot(db) + u32s(units(op, 1), (a + b).abs()));
    }
}

pub fn activate(activation: Activation, x: &Value, out: &mut Value) {
    for index in 0..x.numbers.len() {
        let (number, slack) = x.at(index);
        let (made, slack) = activated(activation, number, slack);
        out.push(made, slack);
    }
}

/// An activation's result and what it may be off, its input's slack carried through.
pub fn activated(activation: Activation, x: f64, slack: f64) -> (f64, f64) {
    let own = activation_units(activation);
    let made = apply(activation, x);
    // No activation is steeper than 1.13.
    let carried = 1.13 * slack;
    let magnitude = match activation {
        Activation::Relu => 0.0,
        Activation::Gelu | Activation::GeluTanh => x.abs().min(8.0).max(made.abs()),
        Activation::Silu => {
            let exp = (-x).exp().min(1e300);
            made.abs() * (1.0 + 2.0 * x.abs().min(100.0) / own * exp / (1.0 + exp))
        }
    };
    (made, carried + u32s(own, magnitude))
}

fn apply(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => {
            if x.is_nan() || x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Activation::Gelu => x * (1.0 + erf(x / 2f64.sqrt())) / 2.0,
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x / 2.0 * (1.0 + inner.tanh())
        }
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

/// By a series of positive terms, so nothing cancels: `2 x exp(-x^2) / sqrt(pi) * sum (2 x^2)^n / (2n + 1)!!`.
fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 6.5 {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum, mut odd) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    2.0 * x * (-x * x).exp() / std::f64::consts::PI.sqrt() * sum
}

pub fn dequantise(op: &Op, values: &Value, scales: &Value, out: &mut Value) {
    let last = values.last();
    for index in 0..values.numbers.len() {
        let ((number, off), (scale, scale_off)) = (values.at(index), scales.at(index / last));
        let made = number * scale;
        let carried = (off * scale).hypot(number * scale_off);
        out.push(made, carried + u32s(units(op, 1), made.abs()));
    }
}

impl Oracle<'_> {
    pub fn add_bias(&self, op: &Op, x: &Value, bias: WeightId, out: &mut Value) {
        let bias = self.weight(bias);
        for index in 0..x.numbers.len() {
            let (number, slack) = x.at(index);
            let bias = bias[index % bias.len()];
            let made = number + bias;
            let stored = stored_slack(x.element) * bias.abs();
            out.push(made, slack + stored + u32s(units(op, 1), made.abs()));
        }
    }

    pub fn standardise(&self, op: &Op, x: &Value, (mean, deviation): (WeightId, WeightId), out: &mut Value) {
        let (means, deviations) = (self.weight(mean), self.weight(deviation));
        for index in 0..x.numbers.len() {
            let (number, slack) = x.at(index);
            let (mean, deviation) = (means[index % means.len()], deviations[index % means.len()]);
            let magnitude = (number.abs() + mean.abs()) / deviation.abs();
            let own = units(op, 1);
            let stored = stored_slack(x.element) * magnitude * 2.0;
            out.push((number - mean) / deviation, slack / deviation.abs() + stored + u32s(own, magnitude));
        }
    }

    pub fn cast(&self, to: Element, x: &Value, out: &mut Value) {
        for index in 0..x.numbers.len() {
            let (number, slack) = x.at(index);
            let limits = match to {
                Element::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
                Element::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
                _ => {
                    out.push(number, slack);
                    continue;
                }
            };
            if number.is_nan() {
                out.push(0.0, 0.0);
                continue;
            }
            let integer = |x: f64| x.round_ties_even().clamp(limits.0, limits.1);
            self.push_integer(integer, number, slack, out);
        }
    }

    pub fn bucketise(&self, x: &Value, boundaries: &[f32], out: &mut Value) {
        for index in 0..x.numbers.len() {
            let (number, slack) = x.at(index);
            if number.is_nan() {
                out.push(boundaries.len() as f64, 0.0);
                continue;
            }
            let bucket = |x: f64| boundaries.iter().filter(|&&b| f64::from(b) < x).count() as f64;
            self.push_integer(bucket, number, slack, out);
        }
    }

    /// An integer that a rising function makes of a float: off by as much as the float's slack makes.
    pub fn push_integer(&self, rising: impl Fn(f64) -> f64, number: f64, slack: f64, out: &mut Value) {
        let (made, slack) = (rising(number), slack * self.safety);
        match slack > 0.0 && number.is_finite() {
            true => out.push(made, (rising(number + slack) - made).max(made - rising(number - slack))),
            false => out.push(made, 0.0),
        }
    }
}
