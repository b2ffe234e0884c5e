//! Whether what a backend made is what the oracle made, within the slack.

use std::collections::HashMap;

use half::f16;
use thalweg_tensor::{Element, Tensor};

use crate::tolerance::FLUSHED;
use crate::value::{Ranking, Value, round_to};

/// Why `got` is not `want`, or nothing. Slack is taken `safety` times; with 0 all must be exact.
pub fn difference(want: &Value, got: &Tensor, safety: f64) -> Option<String> {
    if got.element() != want.element || got.dims() != want.dims || got.rows() != want.rows {
        let (element, dims, rows) = (got.element(), got.dims(), got.rows());
        return Some(format!(
            "{rows} rows of {element}{dims:?}, not {} of {}{:?}",
            want.rows, want.element, want.dims
        ));
    }
    let lengths = got.offsets().map(|offsets| offsets.to_vec());
    if lengths != want.offsets.as_ref().map(|offsets| offsets.to_vec()) {
        return Some("its rows have other lengths".to_owned());
    }
    match (&want.ranking, want.element) {
        (Some(ranking), Element::I64) => ranked_ids(want, ranking, got.values().ok()?, safety),
        (None, Element::I64) => {
            let got: &[i64] = got.values().ok()?;
            first(got.len(), |index| match got[index] == want.integers[index] {
                true => None,
                false => Some(format!("{:#x}, not {:#x}", got[index], want.integers[index])),
            })
        }
        _ => {
            let numbers = numbers(got);
            first(numbers.len(), |index| number(want, index, numbers[index], safety))
        }
    }
}

fn first(count: usize, check: impl Fn(usize) -> Option<String>) -> Option<String> {
    (0..count).find_map(|index| check(index).map(|reason| format!("at {index}: {reason}")))
}

fn number(want: &Value, index: usize, got: f64, safety: f64) -> Option<String> {
    let (wanted, slack) = (want.numbers[index], want.slack[index] * safety);
    let is_right = match want.element.is_float() {
        true => is_within(want.element, wanted, slack, got),
        false => (got - wanted).abs() <= slack,
    };
    match is_right {
        true => None,
        false => Some(format!("{got:e}, not {wanted:e} (may be {slack:e} off)")),
    }
}

/// Whether a float is the rounding of a number that is no farther than `slack` from the wanted one.
pub fn is_within(element: Element, wanted: f64, slack: f64, got: f64) -> bool {
    if wanted.is_nan() || got.is_nan() {
        return wanted.is_nan() == got.is_nan();
    }
    if wanted.is_infinite() {
        return got == wanted;
    }
    let slack = if slack > 0.0 { slack + FLUSHED } else { 0.0 };
    round_to(element, wanted - slack) <= got && got <= round_to(element, wanted + slack)
}

pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    let data = tensor.data();
    match tensor.element() {
        Element::F32 => data.typed_data::<f32>().iter().map(|&x| f64::from(x)).collect(),
        Element::F16 => data.typed_data::<f16>().iter().map(|x| x.to_f64()).collect(),
        Element::I8 => data.typed_data::<i8>().iter().map(|&x| f64::from(x)).collect(),
        Element::I32 => data.typed_data::<i32>().iter().map(|&x| f64::from(x)).collect(),
        Element::I64 => Vec::new(),
    }
}

/// An id may stand where another should if the scores of both are within slack of each other.
fn ranked_ids(want: &Value, ranking: &Ranking, got: &[i64], safety: f64) -> Option<String> {
    let rows = ranking.ids.len();
    let place_of: HashMap<i64, usize> = ranking.ids.iter().enumerate().map(|(row, &id)| (id, row)).collect();
    for (query, ids) in got.chunks(ranking.k).enumerate() {
        let wanted = &want.integers[query * ranking.k..];
        let mut taken = vec![false; rows];
        for (place, &id) in ids.iter().enumerate() {
            if id == wanted[place] && id == -1 {
                continue;
            }
            let says = |reason: &str| {
                Some(format!("query {query}, place {place}: id {id}, not {} ({reason})", wanted[place]))
            };
            let (Some(&row), Some(&right)) = (place_of.get(&id), place_of.get(&wanted[place])) else {
                return says("no vector's");
            };
            if std::mem::replace(&mut taken[row], true) {
                return says("twice");
            }
            let at = |row: usize| query * rows + row;
            let (score, best) = (ranking.scores[at(row)], ranking.scores[at(right)]);
            let slack = (ranking.slack[at(row)] + ranking.slack[at(right)]) * safety;
            let is_near = row == right || (slack > 0.0 && (score - best).abs() <= slack + FLUSHED);
            if !is_near {
                return says(&format!("scores {score:e} and {best:e}, may be {slack:e} off"));
            }
        }
    }
    None
}
