//! Ops over the innermost dimension, and matrix products.

use thalweg_tensor::op::{Activation, Op, WeightId};

use super::elements::activated;
use super::{Oracle, in_quadrature, stored_slack, stored_small, u32s};
use crate::tolerance::{U32, units};
use crate::value::Value;

/// A divisor that may be off by more than this share of itself says nothing of the quotient but its
/// bounds.
const BLURRED: f64 = 0.2;

pub fn softmax(op: &Op, x: &Value, out: &mut Value) {
    let n = x.last();
    for vector in (0..x.numbers.len()).step_by(n) {
        let numbers = &x.numbers[vector..vector + n];
        let slack: Vec<f64> = (vector..vector + n).map(|index| x.inner_slack(index)).collect();
        let (shares, off) = shares(op, numbers, &slack);
        for (share, off) in shares.into_iter().zip(off) {
            out.push(share, off);
        }
    }
}

/// The softmax of some numbers, and what each share may be off.
pub fn shares(op: &Op, numbers: &[f64], slack: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let any_nan = numbers.iter().any(|x| x.is_nan());
    let greatest = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if any_nan {
        return (vec![f64::NAN; numbers.len()], vec![0.0; numbers.len()]);
    }
    let exp: Vec<f64> = numbers.iter().map(|x| (x - greatest).exp()).collect();
    let sum: f64 = exp.iter().sum();
    let shares: Vec<f64> = exp.iter().map(|e| e / sum).collect();
    let own = units(op, numbers.len());
    let relative = |index: usize| slack[index] + U32 * (own + 2.0 * (numbers[index] - greatest).abs());
    // What the sum may be off: the shares' own errors, in proportion.
    let shift: f64 = (0..numbers.len())
        .filter(|&index| shares[index] > 0.0)
        .map(|index| (shares[index] * relative(index)).powi(2))
        .sum();
    let shift = in_quadrature(shift);
    let off = (0..numbers.len()).map(|index| match shares[index] > 0.0 {
        true => (shares[index] * (relative(index) + shift).min(1.0).exp_m1()).min(1.0),
        false => 0.0,
    });
    let off = off.collect();
    (shares, off)
}

pub fn l2_normalise(op: &Op, x: &Value, epsilon: f64, out: &mut Value) {
    let n = x.last();
    for vector in (0..x.numbers.len()).step_by(n) {
        let numbers = &x.numbers[vector..vector + n];
        let norm = numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
        // A NaN is no maximum's to drop, as PyTorch's `clamp_min`.
        let divisor = if norm.is_nan() { norm } else { norm.max(epsilon) };
        let norm_off = if norm > epsilon {
            let carried: f64 = (0..n).map(|i| (numbers[i] * x.inner_slack(vector + i) / norm).powi(2)).sum();
            in_quadrature(carried) / norm
        } else {
            0.0
        };
        for (index, number) in numbers.iter().enumerate() {
            let made = number / divisor;
            let carried = (x.inner_slack(vector + index) / divisor).hypot(made * norm_off);
            let carried = if norm_off > BLURRED { 2.0 } else { carried };
            out.push(made, carried + u32s(units(op, n), made.abs()));
        }
    }
}

pub fn concat(inputs: &[&Value], out: &mut Value) {
    let vectors = inputs[0].numbers.len().max(inputs[0].integers.len()) / inputs[0].last();
    for vector in 0..vectors {
        for input in inputs {
            let range = vector * input.last()..(vector + 1) * input.last();
            copy(input, range, out);
        }
    }
}

pub fn slice(x: &Value, start: usize, length: usize, out: &mut Value) {
    let n = x.last();
    for vector in 0..x.numbers.len().max(x.integers.len()) / n {
        copy(x, vector * n + start..vector * n + start + length, out);
    }
}

fn copy(from: &Value, range: std::ops::Range<usize>, out: &mut Value) {
    match from.numbers.is_empty() {
        true => out.integers.extend_from_slice(&from.integers[range]),
        false => range.for_each(|index| out.push(from.numbers[index], from.slack[index])),
    }
}

impl Oracle<'_> {
    pub fn matmul(
        &self,
        op: &Op,
        x: &Value,
        (weight, bias, activation): (WeightId, Option<WeightId>, Option<Activation>),
        out: &mut Value,
    ) {
        let (n, columns) = (x.last(), out.last());
        let (weight, bias) = (self.weight(weight), bias.map(|bias| self.weight(bias)));
        let (own, stored) = (units(op, n), stored_slack(x.element));
        for vector in (0..x.numbers.len()).step_by(n) {
            let slack: Vec<f64> = (vector..vector + n).map(|index| x.inner_slack(index)).collect();
            let exact = slack.iter().all(|&slack| slack == 0.0);
            for column in 0..columns {
                let row = &weight[column * n..(column + 1) * n];
                let bias = bias.map_or(0.0, |bias| bias[column]);
                let (mut sum, mut magnitude, mut carried) = (bias, bias.abs(), 0.0);
                for (index, w) in row.iter().enumerate() {
                    let product = w * x.numbers[vector + index];
                    sum += product;
                    magnitude += product.abs();
                    if !exact {
                        carried += (w * slack[index]).powi(2);
                    }
                }
                let off = in_quadrature(carried) + magnitude * (own * U32 + stored);
                let (made, off) = match activation {
                    Some(activation) => activated(activation, sum, off + stored_small(x.element)),
                    None => (sum, off),
                };
                out.push(made, off);
            }
        }
    }

    pub fn layer_norm(
        &self,
        op: &Op,
        x: &Value,
        (gamma, beta, epsilon): (WeightId, WeightId, f32),
        out: &mut Value,
    ) {
        let (n, gamma, beta) = (x.last(), self.weight(gamma), self.weight(beta));
        let own = units(op, n);
        for vector in (0..x.numbers.len()).step_by(n) {
            let numbers = &x.numbers[vector..vector + n];
            let mean = numbers.iter().sum::<f64>() / n as f64;
            let size = numbers.iter().map(|x| x.abs()).sum::<f64>() / n as f64;
            let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            let deviation = (variance + f64::from(epsilon)).sqrt();
            // What a centred element may be off, and what that makes of mean and variance.
            let off = |index: usize| x.inner_slack(vector + index) + u32s(own, numbers[index].abs() + size);
            let squares: f64 = (0..n).map(|index| off(index).powi(2)).sum();
            let shift = in_quadrature(squares) / n as f64 + u32s(own, size);
            for index in 0..n {
                let normal = (numbers[index] - mean) / deviation;
                let made = normal * gamma[index] + beta[index];
                let centred = (off(index) + shift) / deviation;
                let scaled = normal.abs() * shift / deviation;
                let terms = (normal * gamma[index]).abs() + beta[index].abs();
                let own = terms * (own * U32 + stored_slack(x.element));
                let blurred = (shift / deviation > BLURRED).then_some(2.0 * (n as f64).sqrt());
                out.push(made, gamma[index].abs() * blurred.unwrap_or(centred + scaled) + own);
            }
        }
    }

    pub fn quantise(&self, op: &Op, x: &Value, made: &mut [Value]) {
        let (n, own) = (x.last(), units(op, 1));
        let [values, scales] = made else { unreachable!("quantise makes two values") };
        for vector in (0..x.numbers.len()).step_by(n) {
            let numbers = &x.numbers[vector..vector + n];
            if !numbers.iter().all(|x| x.is_finite()) {
                scales.push(f64::NAN, 0.0);
                (0..n).for_each(|_| values.push(0.0, 0.0));
                continue;
            }
            let greatest = numbers.iter().fold(0f64, |greatest, x| greatest.max(x.abs()));
            let worst = (vector..vector + n).map(|index| x.inner_slack(index)).fold(0.0, f64::max);
            let scale = greatest / 127.0;
            let scale_off = worst / 127.0 + u32s(own, scale);
            scales.push(scale, scale_off);
            // A scale that is no normal number loses digits of its own, or all of them.
            let lost = 2f64.powi(-126) / scale * if scale < 2f64.powi(-118) { 1.0 } else { U32 };
            for (index, number) in numbers.iter().enumerate() {
                if scale == 0.0 {
                    values.push(0.0, 0.0);
                    continue;
                }
                let exact = number / scale;
                let carried = (x.inner_slack(vector + index) + exact.abs() * worst / 127.0) / scale;
                let off = carried + exact.abs() * (own * U32 + lost);
                let off = if worst > greatest * BLURRED { 254.0 } else { off };
                let integer = |x: f64| x.round_ties_even().clamp(-127.0, 127.0);
                self.push_integer(integer, exact, off, values);
            }
        }
    }
}
