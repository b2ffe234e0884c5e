//! Ops over elements and vectors of fixed or varying rows.

use arrow::buffer::Buffer;
use thalweg_tensor::op::{Activation, ValueId};
use thalweg_tensor::{Element, GraphBuilder, Result, Tensor, TensorBatch};

use super::{FLOATS, ROWS_MANY, Runner, WIDTHS, graph_of};
use crate::generate::{KINDS, Kind, buffer};

pub const ACTIVATIONS: [Activation; 4] =
    [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu];

/// An op on a value that is there already; `n` is its innermost dimension.
type Append = fn(&mut GraphBuilder, ValueId, usize) -> Result<Vec<ValueId>>;

/// Name, op, whether integers stay exact, whether it takes values without a fixed dimension.
const OPS: [(&str, Append, bool, bool); 16] = [
    ("relu", |b, x, _| Ok(vec![b.activate(x, Activation::Relu)?]), true, true),
    ("gelu", |b, x, _| Ok(vec![b.activate(x, Activation::Gelu)?]), false, true),
    ("gelu_tanh", |b, x, _| Ok(vec![b.activate(x, Activation::GeluTanh)?]), false, true),
    ("silu", |b, x, _| Ok(vec![b.activate(x, Activation::Silu)?]), false, true),
    ("add itself", |b, x, _| Ok(vec![b.add(x, x)?]), true, true),
    ("add_bias", add_bias, true, false),
    ("layer_norm", layer_norm, false, false),
    ("softmax", |b, x, _| Ok(vec![b.softmax(x)?]), false, false),
    ("l2_normalise", |b, x, _| Ok(vec![b.l2_normalise(x)?]), false, false),
    ("quantise", |b, x, _| b.quantise(x).map(|(values, scales)| vec![values, scales]), false, false),
    ("standardise", standardise, true, false),
    ("bucketise", bucketise, true, true),
    ("cast to f32", |b, x, _| Ok(vec![b.cast(x, Element::F32)?]), true, true),
    ("cast to f16", |b, x, _| Ok(vec![b.cast(x, Element::F16)?]), true, true),
    ("cast to i8", |b, x, _| Ok(vec![b.cast(x, Element::I8)?]), true, true),
    ("cast to i32", |b, x, _| Ok(vec![b.cast(x, Element::I32)?]), true, true),
];

fn add_bias(builder: &mut GraphBuilder, x: ValueId, n: usize) -> Result<Vec<ValueId>> {
    let bias = builder.weight("bias", [n])?;
    Ok(vec![builder.add_bias(x, bias)?])
}

fn layer_norm(builder: &mut GraphBuilder, x: ValueId, n: usize) -> Result<Vec<ValueId>> {
    let (gamma, beta) = (builder.weight("gamma", [n])?, builder.weight("beta", [n])?);
    Ok(vec![builder.layer_norm(x, gamma, beta, 1e-12)?])
}

fn standardise(builder: &mut GraphBuilder, x: ValueId, n: usize) -> Result<Vec<ValueId>> {
    let (mean, deviation) = (builder.weight("mean", [n])?, builder.weight("deviation", [n])?);
    Ok(vec![builder.standardise(x, mean, deviation)?])
}

fn bucketise(builder: &mut GraphBuilder, x: ValueId, _: usize) -> Result<Vec<ValueId>> {
    let boundaries = vec![f32::NEG_INFINITY, -1.0, -0.5, 0.0, 1e-3, 1.0, 2.0, f32::INFINITY];
    Ok(vec![builder.bucketise(x, vec![])?, builder.bucketise(x, boundaries)?])
}

pub fn run(runner: &mut Runner<'_>) {
    light(runner);
    for element in FLOATS {
        matmul(runner, element);
    }
    for element in [Element::F32, Element::F16, Element::I8, Element::I32] {
        moved(runner, element);
    }
    quantise_ties(runner);
    dequantise(runner);
}

/// The ops that read a value once.
pub fn light(runner: &mut Runner<'_>) {
    for element in FLOATS {
        for (name, append, exact, scalar) in OPS {
            for n in WIDTHS {
                fixed(runner, (name, append), element, &[n]);
            }
            fixed(runner, (name, append), element, &[5, 17]);
            if scalar {
                fixed(runner, (name, append), element, &[]);
            }
            if exact {
                integers(runner, (name, append), element);
            }
            ragged(runner, (name, append), element);
        }
    }
}

fn fixed(runner: &mut Runner<'_>, (name, append): (&str, Append), element: Element, dims: &[usize]) {
    let n = dims.last().copied().unwrap_or(1);
    let graph = graph_of(|builder| {
        let x = builder.tensor("x", element, dims)?;
        append(builder, x, n)
    });
    let rows: &[usize] = if dims == [3] { &[0, 1, 33, ROWS_MANY] } else { &[0, 1, 33] };
    let batches = runner.fixed_batches(&graph, &KINDS, rows);
    let how = (Kind::Normal, element, 1.0);
    runner.case(format!("{name} {element}{dims:?}"), graph, how, vec![], batches);
}

/// Arithmetic that rounds nothing must be exact.
fn integers(runner: &mut Runner<'_>, (name, append): (&str, Append), element: Element) {
    let graph = graph_of(|builder| {
        let x = builder.tensor("x", element, [19])?;
        append(builder, x, 19)
    });
    let batches = runner.fixed_batches(&graph, &[Kind::Integers], &[]);
    let how = (Kind::Integers, element, 0.0);
    runner.case(format!("{name} {element} of integers"), graph, how, vec![], batches);
}

/// Of tokens: the numbers come from a table.
fn ragged(runner: &mut Runner<'_>, (name, append): (&str, Append), element: Element) {
    for (n, kind) in [(17, Kind::Normal), (17, Kind::Nan), (384, Kind::Infinite)] {
        let graph = graph_of(|builder| {
            let tokens = builder.tokens("tokens", 64)?;
            let table = builder.weight("table", [50, n])?;
            let x = builder.gather(tokens, table, element)?;
            append(builder, x, n)
        });
        let batches = runner.ragged_batches(&graph, kind, 64);
        let how = (kind, element, 1.0);
        runner.case(format!("{name} {element}[tokens, {n}]"), graph, how, vec![], batches);
    }
}

fn matmul(runner: &mut Runner<'_>, element: Element) {
    let shapes = [(1, 1), (3, 17), (17, 3), (32, 32), (384, 33), (33, 384), (32, 1000), (1000, 17)];
    for (index, (n, columns)) in shapes.into_iter().enumerate() {
        for with_bias in [false, true] {
            let mut activations = vec![None, Some(ACTIVATIONS[index % 4])];
            if (n, columns) == (32, 32) {
                activations.extend(ACTIVATIONS.map(Some));
            }
            for activation in activations {
                let name = format!("matmul {element}[{n}] to {columns}, bias {with_bias}, {activation:?}");
                one_matmul(runner, name, element, (n, columns), with_bias, activation);
            }
        }
    }
}

fn one_matmul(
    runner: &mut Runner<'_>,
    name: String,
    element: Element,
    (n, columns): (usize, usize),
    with_bias: bool,
    activation: Option<Activation>,
) {
    let graph = graph_of(|builder| {
        let x = builder.tensor("x", element, [n])?;
        let weight = builder.weight("weight", [columns, n])?;
        let bias = if with_bias { Some(builder.weight("bias", [columns])?) } else { None };
        Ok(vec![builder.matmul(x, weight, bias, activation)?])
    });
    let rows: &[usize] = if n == 3 { &[0, 1, 33, 1_000, ROWS_MANY] } else { &[0, 1, 33, 130] };
    let batches = runner.fixed_batches(&graph, &KINDS, rows);
    runner.case(name.clone(), graph.clone(), (Kind::Normal, element, 1.0), vec![], batches);
    if activation.is_none_or(|activation| activation == Activation::Relu) {
        let batches = runner.fixed_batches(&graph, &[Kind::Integers], &[]);
        runner.case(format!("{name} of integers"), graph, (Kind::Integers, element, 0.0), vec![], batches);
    }
}

/// Ops that move elements and compute nothing.
fn moved(runner: &mut Runner<'_>, element: Element) {
    for (left, right) in [(1, 1), (3, 17), (384, 16), (33, 1000)] {
        let graph = graph_of(|builder| {
            let x = builder.tensor("x", element, [left])?;
            let y = builder.tensor("y", element, [right])?;
            let wide = builder.concat(&[x, y, x])?;
            let middle = builder.slice(wide, left / 2, right)?;
            Ok(vec![wide, middle, builder.slice(x, left - 1, 1)?, builder.concat(&[y])?])
        });
        let batches = runner.fixed_batches(&graph, &KINDS, &[0, 1, 33]);
        let how = (Kind::Normal, element, 0.0);
        runner.case(format!("concat, slice {element}[{left}], [{right}]"), graph, how, vec![], batches);
    }
    for to in [Element::F32, Element::F16, Element::I8, Element::I32] {
        let graph = graph_of(|builder| {
            let x = builder.tensor("x", element, [4, 5])?;
            Ok(vec![builder.cast(x, to)?])
        });
        let batches = runner.fixed_batches(&graph, &KINDS, &[0, 1, 33]);
        let how = (Kind::Normal, element, 0.0);
        runner.case(format!("cast {element} to {to}"), graph, how, vec![], batches);
    }
}

/// Vectors whose scale is a power of two, so that halves are halves: they round to even.
pub fn quantise_ties(runner: &mut Runner<'_>) {
    for element in FLOATS {
        let graph = graph_of(|builder| {
            let x = builder.tensor("x", element, [23])?;
            builder.quantise(x).map(|(values, scales)| vec![values, scales])
        });
        let mut numbers = Vec::new();
        for row in 0..40 {
            let scale = [0.5f32, 1.0, 2.0, 4.0][row % 4];
            numbers.push(127.0 * scale * if row % 3 == 0 { -1.0 } else { 1.0 });
            numbers.extend((0..22).map(|_| (runner.generate.below(507) as f32 - 253.0) / 2.0 * scale));
        }
        let x = Tensor::fixed(element, [23], 40, buffer(element, &numbers)).unwrap();
        let batches = vec![("halves".to_owned(), TensorBatch { rows: 40, tensors: vec![x] })];
        runner.case(format!("quantise {element} ties"), graph, (Kind::Normal, element, 0.0), vec![], batches);
    }
}

fn dequantise(runner: &mut Runner<'_>) {
    for to in FLOATS {
        for n in WIDTHS {
            let graph = graph_of(|builder| {
                let values = builder.tensor("values", Element::I8, [n])?;
                let scales = builder.tensor("scales", Element::F32, [])?;
                Ok(vec![builder.dequantise(values, scales, to)?])
            });
            let mut batches = runner.fixed_batches(&graph, &KINDS, &[0, 1, 33]);
            let none = vec![
                Tensor::fixed(Element::I8, [n], 1, Buffer::from_vec(vec![0i8; n])).unwrap(),
                Tensor::fixed(Element::F32, [], 1, Buffer::from_vec(vec![f32::NAN])).unwrap(),
            ];
            batches.push(("zeros with scale NaN".to_owned(), TensorBatch { rows: 1, tensors: none }));
            runner.case(format!("dequantise {n} to {to}"), graph, (Kind::Normal, to, 1.0), vec![], batches);
        }
    }
    for element in FLOATS {
        let graph = graph_of(|builder| {
            let x = builder.tensor("x", element, [31])?;
            let y = builder.tensor("y", element, [31])?;
            Ok(vec![builder.add(x, y)?])
        });
        let batches = runner.fixed_batches(&graph, &KINDS, &[0, 1, 33, 1_000]);
        runner.case(format!("add {element}"), graph, (Kind::Normal, element, 1.0), vec![], batches);
    }
}
