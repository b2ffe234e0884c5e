//! Graphs that nobody thought of: ops put together from a seed.
//!
//! A seed that fails is printed; `THALWEG_SEED=<seed>` runs it alone.

use thalweg_tensor::op::{Metric, Pooling, ValueId};
use thalweg_tensor::{Backend, Element, GraphBuilder, Result};

use crate::cases::look_up::matrix;
use crate::cases::over_vectors::ACTIVATIONS;
use crate::generate::{Generate, Kind};
use crate::suite::{self, Case, Report};
use crate::tolerance::GRAPH;

/// As many seeds, or the one that is asked for.
pub fn run_random(backend: &dyn Backend, seeds: u64) -> Report {
    let mut report = Report::default();
    let only = std::env::var("THALWEG_SEED").ok().map(|seed| seed.parse().expect("THALWEG_SEED is a number"));
    for seed in only.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        let before = report.failures.len();
        suite::run(backend, &random_case(seed), &mut report);
        for failure in &mut report.failures[before..] {
            failure.push_str(&format!("; replay with THALWEG_SEED={seed}"));
        }
    }
    report
}

fn random_case(seed: u64) -> Case {
    let mut generate = Generate::new(seed ^ 0x7468_616c_7765_6721);
    let element = if generate.below(2) == 0 { Element::F32 } else { Element::F16 };
    let mut builder = GraphBuilder::new();
    let mut values = inputs(&mut builder, element).expect("inputs are right");
    let mut made: Vec<ValueId> = Vec::new();
    let steps = 4 + generate.below(12);
    while made.len() < steps {
        let x = values[generate.below(values.len())];
        let y = values[generate.below(values.len())];
        // Most ops take few types: what does not fit is not added.
        if let Ok(new) = step(&mut builder, &mut generate, (x, y), made.len()) {
            values.extend(&new);
            made.extend(new);
        }
    }
    for (index, value) in made.iter().enumerate() {
        if index + 3 >= made.len() || generate.below(4) == 0 {
            builder.output(&format!("out{index}"), *value).expect("names differ");
        }
    }
    let graph = builder.build().expect("has outputs");
    let weights = generate.weights(&graph, Kind::Normal, element);
    let references = graph.references().iter().map(|reference| reference.width).collect::<Vec<_>>();
    let references =
        references.into_iter().map(|width| matrix(&mut generate, Kind::Normal, 200, width)).collect();
    let batches = [0, 1, 12].map(|rows| {
        let lengths = generate.lengths(rows, 20);
        (format!("{rows} rows"), generate.batch(&graph, Kind::Normal, rows, &lengths))
    });
    let name = format!("random graph\n{}", graph.describe());
    Case { name, graph, weights, references, batches: batches.into(), safety: GRAPH }
}

fn inputs(builder: &mut GraphBuilder, element: Element) -> Result<Vec<ValueId>> {
    let tokens = builder.tokens("tokens", 20)?;
    let table = builder.weight("token table", [30, 16])?;
    let embedded = builder.gather(tokens, table, element)?;
    let x = builder.tensor("x", element, [16])?;
    let y = builder.tensor("y", element, [3, 8])?;
    Ok(vec![tokens, embedded, x, y])
}

/// One op on `x` (and `y`), chosen at random; it may not fit.
fn step(
    builder: &mut GraphBuilder,
    generate: &mut Generate,
    (x, y): (ValueId, ValueId),
    place: usize,
) -> Result<Vec<ValueId>> {
    let n = builder.typed(x).last();
    let to = [Element::F32, Element::F16, Element::I8, Element::I32][generate.below(4)];
    let choice = generate.below(22);
    Ok(vec![match choice {
        0 | 1 => return dense(builder, generate, x, place),
        2 => builder.add(x, y)?,
        3 => builder.add(x, x)?,
        4 => vector(builder, "bias", n, place).and_then(|bias| builder.add_bias(x, bias))?,
        5 | 6 => builder.activate(x, ACTIVATIONS[generate.below(4)])?,
        7 => {
            let (gamma, beta) = (vector(builder, "gamma", n, place)?, vector(builder, "beta", n, place)?);
            builder.layer_norm(x, gamma, beta, 1e-5)?
        }
        8 => builder.softmax(x)?,
        9 | 10 => builder.attention([x, y, x], [1, 2, 4][generate.below(3)], generate.below(2) == 0)?,
        11 => builder.pool(x, [Pooling::Mean, Pooling::Cls, Pooling::Max][generate.below(3)])?,
        12 => builder.l2_normalise(x)?,
        13 => {
            let (values, scales) = builder.quantise(x)?;
            return Ok(vec![values, scales, builder.dequantise(values, scales, Element::F32)?]);
        }
        14 => builder.cast(x, to)?,
        15 => builder.concat(&[x, y, x])?,
        16 => builder.slice(x, n / 3, (n / 2).max(1))?,
        17 => {
            let reference = builder.reference(&format!("reference {n}"), n)?;
            let metric = [Metric::Dot, Metric::Cosine, Metric::L2][generate.below(3)];
            let (ids, scores) = builder.top_k(x, reference, metric, 1 + generate.below(20))?;
            return Ok(vec![scores, ids]);
        }
        18 => builder.feature_hash(x, 16, place as u64)?,
        19 => builder.min_hash(x, 5, place as u64)?,
        20 => {
            let buckets = builder.bucketise(x, vec![-1.0, 0.0, 1.0])?;
            let table = builder.weight(&format!("table {place}"), [4, 16])?;
            builder.gather(buckets, table, Element::F32)?
        }
        _ => {
            let mean = vector(builder, "mean", n, place)?;
            let deviation = vector(builder, "deviation", n, place)?;
            builder.standardise(x, mean, deviation)?
        }
    }])
}

fn dense(
    builder: &mut GraphBuilder,
    generate: &mut Generate,
    x: ValueId,
    place: usize,
) -> Result<Vec<ValueId>> {
    let (n, columns) = (builder.typed(x).last(), [16, 16, 5, 8][generate.below(4)]);
    let weight = builder.weight(&format!("weight {place}: {n} to {columns}"), [columns, n])?;
    let bias = vector(builder, "bias", columns, place)?;
    let activation = [None, Some(ACTIVATIONS[generate.below(4)])][generate.below(2)];
    Ok(vec![builder.matmul(x, weight, Some(bias), activation)?])
}

fn vector(
    builder: &mut GraphBuilder,
    what: &str,
    n: usize,
    place: usize,
) -> Result<thalweg_tensor::op::WeightId> {
    builder.weight(&format!("{what} {place}: {n}"), [n])
}
