//! Ops that know of tokens: look-ups, attention, pooling, hashes of token sets.

use thalweg_tensor::hashing;
use thalweg_tensor::op::{Op, Pooling, WeightId};

use super::vectors::shares;
use super::{Oracle, in_quadrature, u32s};
use crate::tolerance::{U16, U32, units};
use crate::value::Value;

pub fn attention(op: &Op, inputs: &[&Value], (heads, causal): (usize, bool), out: &mut Value) {
    let [query, key, value] = inputs else { unreachable!("attention reads three values") };
    let width = query.last();
    out.numbers = vec![0.0; query.numbers.len()];
    out.slack = vec![0.0; query.numbers.len()];
    for row in 0..query.rows {
        let tokens = query.tokens(row);
        for head in 0..heads {
            let d = width / heads;
            for token in tokens.clone() {
                let end = if causal { token + 1 } else { tokens.end };
                let at = |token: usize| token * width + head * d;
                let seen: Vec<usize> = (tokens.start..end).map(at).collect();
                attend(op, (query, at(token)), key, value, (&seen, d), out);
            }
        }
    }
}

fn attend(
    op: &Op,
    (query, at): (&Value, usize),
    key: &Value,
    value: &Value,
    (seen, d): (&[usize], usize),
    out: &mut Value,
) {
    let root = (d as f64).sqrt();
    let (mut scores, mut slack) = (Vec::new(), Vec::new());
    for &other in seen {
        let (mut sum, mut magnitude, mut carried) = (0.0, 0.0, 0.0);
        for index in 0..d {
            let ((q, dq), (k, dk)) = (query.at(at + index), key.at(other + index));
            sum += q * k;
            magnitude += (q * k).abs();
            carried += (q * dk).powi(2) + (k * dq).powi(2);
        }
        scores.push(sum / root);
        slack.push((in_quadrature(carried) + u32s(units(op, d), magnitude)) / root);
    }
    let (shares, off) = shares(op, &scores, &slack);
    let rounded = if query.element == thalweg_tensor::Element::F16 { U16 } else { 0.0 };
    for index in 0..d {
        let (mut sum, mut carried, mut magnitude) = (0.0, 0.0, 0.0);
        for (position, &other) in seen.iter().enumerate() {
            let (v, dv) = value.at(other + index);
            sum += shares[position] * v;
            magnitude += (shares[position] * v).abs();
            carried += (shares[position] * dv).powi(2) + (off[position] * v).powi(2);
        }
        out.numbers[at + index] = sum;
        let own = magnitude * (units(op, seen.len()) * U32 + rounded);
        let slack = in_quadrature(carried) + own;
        out.slack[at + index] = if slack.is_nan() { 0.0 } else { slack };
    }
}

pub fn pool(op: &Op, pooling: Pooling, x: &Value, out: &mut Value) {
    let width = x.width();
    for row in 0..x.rows {
        let tokens = x.tokens(row);
        for column in 0..width {
            let element = |token: usize| x.at(token * width + column);
            let (made, off) = match pooling {
                _ if tokens.is_empty() => (0.0, 0.0),
                Pooling::Cls => (x.numbers[tokens.start * width + column], element(tokens.start).1),
                Pooling::Max => tokens.clone().map(element).fold((f64::NEG_INFINITY, 0.0), greater),
                Pooling::Mean => {
                    let count = tokens.len() as f64;
                    let (mut sum, mut magnitude, mut carried) = (0.0, 0.0, 0.0);
                    for (number, off) in tokens.clone().map(element) {
                        sum += number;
                        magnitude += number.abs();
                        carried += off * off;
                    }
                    let own = u32s(units(op, tokens.len()), magnitude);
                    (sum / count, (in_quadrature(carried) + own) / count)
                }
            };
            out.push(made, off);
        }
    }
}

fn greater(best: (f64, f64), next: (f64, f64)) -> (f64, f64) {
    let number = if best.0.is_nan() || best.0 >= next.0 { best.0 } else { next.0 };
    (number, best.1.max(next.1))
}

pub fn min_hash(x: &Value, hashes: usize, seed: u64, out: &mut Value) {
    for row in 0..x.rows {
        for index in 0..hashes {
            let parameters = hashing::min_hash_parameters(seed, index as u64);
            let hash = |token: usize| hashing::min_hash(x.numbers[token] as i32, parameters);
            let least = x.tokens(row).map(hash).min().unwrap_or(u32::MAX);
            out.push(f64::from(least as i32), 0.0);
        }
    }
}

pub fn sim_hash(x: &Value, words: usize, seed: u64, out: &mut Value) {
    for row in 0..x.rows {
        for word in 0..words {
            let key = hashing::token_key(seed, word as u64);
            let mut votes = [0i64; 64];
            for token in x.tokens(row) {
                let hash = hashing::token_hash(x.numbers[token] as i32, key);
                votes
                    .iter_mut()
                    .enumerate()
                    .for_each(|(bit, votes)| *votes += (hash >> bit & 1) as i64 * 2 - 1);
            }
            let set = (0..64).filter(|&bit| votes[bit] > 0).fold(0u64, |bits, bit| bits | 1 << bit);
            out.integers.push(set as i64);
        }
    }
}

pub fn feature_hash(x: &Value, width: usize, seed: u64, out: &mut Value) {
    let key = hashing::token_key(seed, 0);
    for row in 0..x.rows {
        let mut counts = vec![0i32; width];
        for token in x.tokens(row) {
            let (column, sign) = hashing::feature(x.numbers[token] as i32, key, width);
            counts[column] += sign;
        }
        counts.into_iter().for_each(|count| out.push(f64::from(count), 0.0));
    }
}

impl Oracle<'_> {
    pub fn gather(&self, ids: &Value, table: WeightId, out: &mut Value) {
        let (table, width) = (self.weight(table), out.last());
        for index in 0..ids.numbers.len() {
            let (id, off) = (ids.numbers[index] as usize, ids.slack[index] as usize);
            let others = id.saturating_sub(off)..=(id + off).min(table.len() / width - 1);
            for column in 0..width {
                let number = table[id * width + column];
                // Where a bucket may be its neighbour, so may be what it looks up.
                let apart = |other: usize| (table[other * width + column] - number).abs();
                out.push(number, others.clone().map(apart).fold(0.0, f64::max));
            }
        }
    }

    pub fn positions(&self, tokens: &Value, table: WeightId, out: &mut Value) {
        let (table, width) = (self.weight(table), out.last());
        for row in 0..tokens.rows {
            for position in 0..tokens.tokens(row).len() {
                table[position * width..(position + 1) * width].iter().for_each(|&x| out.push(x, 0.0));
            }
        }
    }
}
