//! Whole graphs, as jobs have them.

use thalweg_tensor::op::{Activation, Metric, Pooling, ValueId};
use thalweg_tensor::{Backend, Element, Graph, GraphBuilder, Result};

use crate::cases::look_up::matrix;
use crate::cases::{FLOATS, graph_of};
use crate::generate::{Generate, Kind};
use crate::suite::{self, Case, Report};
use crate::tolerance::GRAPH;

/// The graphs that people run, small.
pub fn run_graphs(backend: &dyn Backend) -> Report {
    let mut generate = Generate::new(2);
    let mut report = Report::default();
    for element in FLOATS {
        let sizes = [Sizes { hidden: 32, heads: 4, inner: 64 }, Sizes { hidden: 48, heads: 3, inner: 100 }];
        for sizes in sizes {
            let graph = encoder(element, &sizes);
            let batches = [vec![], vec![1], vec![5, 0, 40, 1, 12, 12], vec![3; 40], vec![17, 2, 33]];
            let batches = batches.map(|lengths| {
                let batch = generate.batch(&graph, Kind::Normal, lengths.len(), &lengths);
                (format!("lengths {lengths:?}"), batch)
            });
            let weights = generate.weights(&graph, Kind::Normal, element);
            let name = format!("encoder {element}, {} wide", sizes.hidden);
            let case =
                Case { name, graph, weights, references: vec![], batches: batches.into(), safety: GRAPH };
            suite::run(backend, &case, &mut report);
        }
        let case = features(&mut generate, element);
        suite::run(backend, &case, &mut report);
    }
    report
}

/// How large an encoder is.
pub struct Sizes {
    pub hidden: usize,
    pub heads: usize,
    pub inner: usize,
}

/// Two layers of BERT over tokens, mean-pooled and normalised.
pub fn encoder(element: Element, sizes: &Sizes) -> Graph {
    graph_of(|builder| {
        let tokens = builder.tokens("tokens", 64)?;
        let mut x = embed(builder, tokens, element, sizes.hidden)?;
        for layer in 0..2 {
            x = encoder_layer(builder, x, layer, sizes)?;
        }
        let pooled = builder.pool(x, Pooling::Mean)?;
        Ok(vec![builder.l2_normalise(pooled)?, builder.pool(x, Pooling::Cls)?])
    })
}

fn embed(builder: &mut GraphBuilder, tokens: ValueId, element: Element, hidden: usize) -> Result<ValueId> {
    let words = builder.weight("words table", [100, hidden])?;
    let places = builder.weight("positions table", [64, hidden])?;
    let segment = builder.weight("segment", [hidden])?;
    let (words, places) =
        (builder.gather(tokens, words, element)?, builder.positions(tokens, places, element)?);
    let sum = builder.add(words, places)?;
    let sum = builder.add_bias(sum, segment)?;
    norm(builder, sum, "embeddings")
}

fn norm(builder: &mut GraphBuilder, x: ValueId, name: &str) -> Result<ValueId> {
    let n = builder.typed(x).last();
    let gamma = builder.weight(&format!("{name} gamma"), [n])?;
    let beta = builder.weight(&format!("{name} beta"), [n])?;
    builder.layer_norm(x, gamma, beta, 1e-12)
}

fn dense(
    builder: &mut GraphBuilder,
    x: ValueId,
    name: &str,
    columns: usize,
    activation: Option<Activation>,
) -> Result<ValueId> {
    let n = builder.typed(x).last();
    let weight = builder.weight(&format!("{name} weight"), [columns, n])?;
    let bias = builder.weight(&format!("{name} bias"), [columns])?;
    builder.matmul(x, weight, Some(bias), activation)
}

fn encoder_layer(builder: &mut GraphBuilder, x: ValueId, layer: usize, sizes: &Sizes) -> Result<ValueId> {
    let name = |part: &str| format!("{layer} {part}");
    let query = dense(builder, x, &name("query"), sizes.hidden, None)?;
    let key = dense(builder, x, &name("key"), sizes.hidden, None)?;
    let value = dense(builder, x, &name("value"), sizes.hidden, None)?;
    let seen = builder.attention([query, key, value], sizes.heads, false)?;
    let seen = dense(builder, seen, &name("attention"), sizes.hidden, None)?;
    let sum = builder.add(seen, x)?;
    let x = norm(builder, sum, &name("attention"))?;
    let inner = dense(builder, x, &name("inner"), sizes.inner, Some(Activation::Gelu))?;
    let outer = dense(builder, inner, &name("outer"), sizes.hidden, None)?;
    let sum = builder.add(outer, x)?;
    norm(builder, sum, &name("output"))
}

/// Features of a row: buckets looked up, joined with hashed tokens and numbers, projected, and both
/// quantised and looked up among references.
fn features(generate: &mut Generate, element: Element) -> Case {
    let graph = graph_of(|builder| {
        let price = builder.tensor("price", element, [])?;
        let numbers = builder.tensor("numbers", element, [12])?;
        let tokens = builder.tokens("words", 64)?;
        let buckets = builder.bucketise(price, vec![-1.0, -0.5, 0.0, 0.5, 1.0])?;
        let table = builder.weight("price table", [6, 8])?;
        let price = builder.gather(buckets, table, element)?;
        let hashed = builder.feature_hash(tokens, 20, 11)?;
        let hashed = builder.cast(hashed, element)?;
        let wide = builder.concat(&[price, numbers, hashed])?;
        let (mean, deviation) = (builder.weight("mean", [40])?, builder.weight("deviation", [40])?);
        let wide = builder.standardise(wide, mean, deviation)?;
        let projected = dense(builder, wide, "projection", 24, Some(Activation::Silu))?;
        let normal = builder.l2_normalise(projected)?;
        let (values, scales) = builder.quantise(normal)?;
        let back = builder.dequantise(values, scales, element)?;
        let reference = builder.reference("catalogue", 24)?;
        let (ids, scores) = builder.top_k(normal, reference, Metric::Cosine, 7)?;
        Ok(vec![values, scales, back, ids, scores, builder.min_hash(tokens, 9, 3)?])
    });
    let batches = [0, 1, 9, 200].map(|rows| {
        let lengths = generate.lengths(rows, 30);
        (format!("{rows} rows"), generate.batch(&graph, Kind::Normal, rows, &lengths))
    });
    let weights = generate.weights(&graph, Kind::Normal, element);
    let references = vec![matrix(generate, Kind::Normal, 500, 24)];
    let name = format!("features {element}");
    Case { name, graph, weights, references, batches: batches.into(), safety: GRAPH }
}
