//! What the conformance suite's graphs do not have: widths that need another kind of kernel, and the
//! shapes of real models.

use thalweg_tensor::op::{Activation, Metric, Pooling, ValueId};
use thalweg_tensor::{Element, Graph, GraphBuilder, Result};

/// One, odd ones, a warp's, models' widths, a block's, and more than its registers hold.
const WIDTHS: [usize; 8] = [1, 3, 4, 32, 384, 1_000, 4_096, 30_522];
const HEADS: [usize; 13] = [1, 5, 16, 24, 32, 48, 64, 80, 96, 128, 160, 161, 300];

/// Graphs of every kind of kernel.
pub fn graphs() -> Vec<Graph> {
    let mut graphs = Vec::new();
    for element in [Element::F32, Element::F16] {
        graphs.extend(WIDTHS.map(|width| over_vectors(element, width)));
        graphs.extend(WIDTHS.map(|width| fused(element, width)));
        for d in HEADS {
            graphs.extend([false, true].map(|causal| attention(element, d, causal)));
            graphs.push(merged_attention(element, d));
        }
        for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
            graphs.extend(
                [(1, 1), (384, 10), (768, 10), (33, 100), (3, 1_024)]
                    .map(|(d, k)| top_k(element, metric, d, k)),
            );
        }
    }
    graphs.extend([(1, 1), (128, 4), (500, 1_000)].map(|(hashes, width)| hashes_of(hashes, width)));
    graphs
}

fn graph_of(build: impl FnOnce(&mut GraphBuilder) -> Result<Vec<ValueId>>) -> Graph {
    let mut builder = GraphBuilder::new();
    let values = build(&mut builder).expect("the graph is right");
    for (index, value) in values.into_iter().enumerate() {
        builder.output(&format!("out{index}"), value).expect("names differ");
    }
    builder.build().expect("has inputs and outputs")
}

/// Each op alone, of its own input: nothing is fused.
fn over_vectors(element: Element, n: usize) -> Graph {
    graph_of(|b| {
        let of = |b: &mut GraphBuilder, name: &str| b.tensor(name, element, [2, n]);
        let [p, q] = [b.weight("p", [n])?, b.weight("q", [n])?];
        let table = b.weight("table", [7, n])?;
        let mut out = Vec::new();
        for (index, activation) in
            [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu]
                .into_iter()
                .enumerate()
        {
            let x = of(b, &format!("a{index}"))?;
            out.push(b.activate(x, activation)?);
        }
        let (x, y) = (of(b, "x")?, of(b, "y")?);
        out.push(b.add(x, y)?);
        let x = of(b, "bias")?;
        out.push(b.add_bias(x, p)?);
        let x = of(b, "standardise")?;
        out.push(b.standardise(x, p, q)?);
        let x = of(b, "norm")?;
        out.push(b.layer_norm(x, p, q, 1e-12)?);
        let x = of(b, "softmax")?;
        out.push(b.softmax(x)?);
        let x = of(b, "l2")?;
        out.push(b.l2_normalise(x)?);
        let x = of(b, "quantise")?;
        let (values, scales) = b.quantise(x)?;
        out.extend([values, scales]);
        let values = b.tensor("values", Element::I8, [2, n])?;
        let scales = b.tensor("scales", Element::F32, [2])?;
        out.push(b.dequantise(values, scales, element)?);
        let x = of(b, "bucketise")?;
        out.push(b.bucketise(x, vec![-1.0, 0.5, 2.0])?);
        for to in [Element::F32, Element::F16, Element::I8, Element::I32] {
            let x = of(b, &format!("to {to}"))?;
            out.push(b.cast(x, to)?);
        }
        for from in [Element::I8, Element::I32] {
            let x = b.tensor(&format!("from {from}"), from, [n])?;
            out.push(b.cast(x, element)?);
            let y = b.tensor(&format!("and from {from}"), from, [3, n])?;
            out.push(b.concat(&[y, y])?);
        }
        let x = of(b, "slice")?;
        out.push(b.slice(x, n / 3, n.div_ceil(2))?);
        let tokens = b.tokens("tokens", 7)?;
        let words = b.gather(tokens, table, element)?;
        let positions = b.positions(tokens, table, element)?;
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Max] {
            out.push(b.pool(words, pooling)?);
        }
        out.extend([words, positions]);
        Ok(out)
    })
}

/// Chains as models have them: each becomes one kernel.
fn fused(element: Element, n: usize) -> Graph {
    graph_of(|b| {
        let tokens = b.tokens("tokens", 7)?;
        let [p, q] = [b.weight("p", [n])?, b.weight("q", [n])?];
        let table = b.weight("table", [7, n])?;
        let words = b.gather(tokens, table, element)?;
        let places = b.positions(tokens, table, element)?;
        let sum = b.add(words, places)?;
        let sum = b.add_bias(sum, p)?;
        let x = b.layer_norm(sum, p, q, 1e-12)?;
        let bent = b.activate(x, Activation::Gelu)?;
        let sum = b.add(x, bent)?;
        let x = b.layer_norm(sum, p, q, 1e-5)?;
        let pooled = b.pool(x, Pooling::Mean)?;
        let normal = b.l2_normalise(pooled)?;
        let (values, scales) = b.quantise(normal)?;
        let back = b.dequantise(values, scales, element)?;
        let shares = b.softmax(back)?;
        let both = b.concat(&[normal, shares])?;
        let cut = b.slice(both, n, n)?;
        let small = b.cast(cut, Element::I8)?;
        Ok(vec![normal, values, scales, both, small])
    })
}

fn attention(element: Element, d: usize, causal: bool) -> Graph {
    graph_of(|b| {
        let tokens = b.tokens("tokens", 512)?;
        let table = b.weight("table", [7, 2 * d])?;
        let x = b.gather(tokens, table, element)?;
        Ok(vec![b.attention([x, x, x], 2, causal)?])
    })
}

fn merged_attention(element: Element, d: usize) -> Graph {
    graph_of(|b| {
        let tokens = b.tokens("tokens", 512)?;
        let table = b.weight("table", [7, 2 * d])?;
        let x = b.gather(tokens, table, element)?;
        let mut qkv = [x; 3];
        for (name, made) in ["q", "k", "v"].into_iter().zip(&mut qkv) {
            let weight = b.weight(name, [2 * d, 2 * d])?;
            *made = b.matmul(x, weight, None, None)?;
        }
        Ok(vec![b.attention(qkv, 2, false)?])
    })
}

fn top_k(element: Element, metric: Metric, d: usize, k: usize) -> Graph {
    graph_of(|b| {
        let query = b.tensor("query", element, [d])?;
        let reference = b.reference("reference", d)?;
        let (ids, scores) = b.top_k(query, reference, metric, k)?;
        Ok(vec![ids, scores])
    })
}

fn hashes_of(hashes: usize, width: usize) -> Graph {
    graph_of(|b| {
        let tokens = b.tokens("tokens", 512)?;
        let min_hash = b.min_hash(tokens, hashes, 1)?;
        let sim_hash = b.sim_hash(tokens, hashes.div_ceil(64), 2)?;
        let features = b.feature_hash(tokens, width, 3)?;
        let joined = b.concat(&[sim_hash, sim_hash])?;
        Ok(vec![min_hash, b.slice(joined, 1, 1)?, features])
    })
}
