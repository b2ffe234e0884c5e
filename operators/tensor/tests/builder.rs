//! What a graph's builder refuses, op by op, and what it says: the op, and both shapes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use thalweg_tensor::builder::TOP_K_MAX;
use thalweg_tensor::op::{Activation, Metric, Pooling, ValueId, WeightId};
use thalweg_tensor::{Element, GraphBuilder, Result};

/// A builder with a value of every kind.
struct Given {
    builder: GraphBuilder,
    x: ValueId,
    half: ValueId,
    ids: ValueId,
    scalar: ValueId,
    tokens: ValueId,
    embedded: ValueId,
    dense: WeightId,
    three: WeightId,
}

fn given() -> Given {
    let mut builder = GraphBuilder::new();
    let x = builder.tensor("x", Element::F32, [4]).unwrap();
    let half = builder.tensor("half", Element::F16, [2, 4]).unwrap();
    let ids = builder.tensor("ids", Element::I32, [2]).unwrap();
    let scalar = builder.tensor("scalar", Element::F32, []).unwrap();
    let tokens = builder.tokens("tokens", 10).unwrap();
    let table = builder.weight("table", [100, 6]).unwrap();
    let embedded = builder.gather(tokens, table, Element::F32).unwrap();
    let (dense, three) = (builder.weight("dense", [5, 4]).unwrap(), builder.weight("three", [3]).unwrap());
    Given { builder, x, half, ids, scalar, tokens, embedded, dense, three }
}

#[track_caller]
fn refused<T>(said: &str, build: impl FnOnce(&mut Given) -> Result<T>) {
    let mut given = given();
    given.builder.name("it");
    let error = build(&mut given).err().expect("is refused").to_string();
    assert_eq!(error, format!("op `it`: {said}"));
}

#[test]
fn look_ups() {
    refused("its table has shape [3], not [rows, width]", |g| g.builder.gather(g.ids, g.three, Element::F32));
    refused("ids of type f32[4] into a table of shape [5, 4]", |g| {
        g.builder.gather(g.x, g.dense, Element::F32)
    });
    refused("i32[] is not of f32 or f16", |g| g.builder.gather(g.ids, g.dense, Element::I32));
    refused("ids must be an input or come from bucketise", |g| {
        let hash = GraphBuilder::min_hash(&mut g.builder, g.tokens, 2, 0)?;
        g.builder.name("it").gather(hash, g.dense, Element::F32)
    });
    refused("6 buckets into a table of shape [5, 4]", |g| {
        let buckets = g.builder.bucketise(g.x, vec![0.0, 1.0, 2.0, 3.0, 4.0])?;
        g.builder.name("it").gather(buckets, g.dense, Element::F32)
    });
    refused("its table has shape [3], not [length, width]", |g| {
        g.builder.positions(g.tokens, g.three, Element::F32)
    });
    refused("i32[2] is not a list of tokens", |g| g.builder.positions(g.ids, g.dense, Element::F32));
    let mut fits = given();
    let buckets = fits.builder.bucketise(fits.x, vec![0.0, 1.0, 2.0, 3.0]).unwrap();
    let looked_up = fits.builder.gather(buckets, fits.dense, Element::F16).unwrap();
    assert_eq!(fits.builder.typed(looked_up).to_string(), "f16[4, 4]");
}

#[test]
fn products() {
    refused("input f32[4] by a weight of shape [3], not [out, in]", |g| {
        g.builder.matmul(g.x, g.three, None, None)
    });
    refused("input f32[tokens, 6] by a weight of shape [5, 4] ([out, in]): 6 is not 4", |g| {
        g.builder.matmul(g.embedded, g.dense, None, None)
    });
    refused("bias has shape [3], not [5]", |g| g.builder.matmul(g.x, g.dense, Some(g.three), None));
    refused("i32[2] is not of f32 or f16", |g| g.builder.matmul(g.ids, g.dense, None, None));
    refused("f32[] has no fixed dimension", |g| g.builder.matmul(g.scalar, g.dense, None, None));
}

#[test]
fn elements() {
    refused("f32[4] and f16[2, 4] differ", |g| g.builder.add(g.x, g.half));
    refused("i32[2] is not of f32 or f16", |g| g.builder.add(g.ids, g.ids));
    refused("bias has shape [3], not [4]", |g| g.builder.add_bias(g.half, g.three));
    refused("i32[tokens] is not of f32 or f16", |g| g.builder.activate(g.tokens, Activation::Silu));
    refused("i32[2] is not of f32 or f16", |g| g.builder.bucketise(g.ids, vec![]));
    for boundaries in [vec![1.0, 1.0], vec![2.0, 1.0], vec![f32::NAN]] {
        refused("its boundaries do not rise", |g| g.builder.bucketise(g.x, boundaries));
    }
    refused("mean has shape [3], not [4]", |g| g.builder.standardise(g.x, g.three, g.three));
    refused("deviation has shape [3], not [4]", |g| {
        let mean = g.builder.weight("mean", [4])?;
        g.builder.standardise(g.x, mean, g.three)
    });
    refused("cannot cast f32[4] to i64", |g| g.builder.cast(g.x, Element::I64));
    refused("cannot cast i64[1] to f32", |g| {
        let hash = g.builder.sim_hash(g.tokens, 1, 0)?;
        g.builder.name("it").cast(hash, Element::F32)
    });
}

#[test]
fn vectors() {
    refused("gamma has shape [3], not [4]", |g| g.builder.layer_norm(g.x, g.three, g.three, 1e-5));
    for epsilon in [-1.0, f32::NAN, f32::INFINITY] {
        refused(&format!("epsilon is {epsilon}"), |g| {
            let four = g.builder.weight("four", [4])?;
            g.builder.layer_norm(g.x, four, four, epsilon)
        });
    }
    refused("f32[] has no fixed dimension", |g| g.builder.softmax(g.scalar));
    refused("i32[2] is not of f32 or f16", |g| g.builder.l2_normalise(g.ids));
    refused("i32[tokens] has no fixed dimension", |g| g.builder.quantise(g.tokens));
    refused("f32[4] with scales of type f32[]", |g| g.builder.dequantise(g.x, g.scalar, Element::F32));
    refused("i8[2, 4] with scales of type f32[]", |g| {
        let (values, _) = g.builder.quantise(g.half)?;
        g.builder.name("it").dequantise(values, g.scalar, Element::F32)
    });
    refused("i8[2, 4] is not of f32 or f16", |g| {
        let (values, scales) = g.builder.quantise(g.half)?;
        g.builder.name("it").dequantise(values, scales, Element::I8)
    });
    refused("needs at least one input", |g| g.builder.concat(&[]));
    refused("f32[4] and f16[2, 4] differ in more than the last dimension", |g| {
        g.builder.concat(&[g.x, g.half])
    });
    refused("f32[4] and f32[tokens, 6] differ in more than the last dimension", |g| {
        g.builder.concat(&[g.x, g.embedded])
    });
    refused("3 elements from 2 of f32[4]", |g| g.builder.slice(g.x, 2, 3));
    refused("0 elements from 2 of f32[4]", |g| g.builder.slice(g.x, 2, 0));
    refused(&format!("1 elements from {} of f32[4]", usize::MAX), |g| g.builder.slice(g.x, usize::MAX, 1));
}

#[test]
fn tokens() {
    refused("query f32[tokens, 6] and key or value f32[4] differ", |g| {
        g.builder.attention([g.embedded, g.embedded, g.x], 2, false)
    });
    refused("f32[4] is not [tokens, heads * d]", |g| g.builder.attention([g.x; 3], 2, false));
    for heads in [0, 4] {
        refused(&format!("{heads} heads do not divide f32[tokens, 6]"), |g| {
            g.builder.attention([g.embedded; 3], heads, true)
        });
    }
    refused("f32[4] has no tokens to pool over", |g| g.builder.pool(g.x, Pooling::Mean));
    refused("i32[tokens] is not of f32 or f16", |g| g.builder.pool(g.tokens, Pooling::Max));
    refused("f32[tokens, 6] is not a list of tokens", |g| g.builder.min_hash(g.embedded, 4, 0));
    refused("i32[2] is not a list of tokens", |g| g.builder.sim_hash(g.ids, 4, 0));
    refused("makes f32[0]", |g| g.builder.feature_hash(g.tokens, 0, 0));
    // Two inputs of tokens are two axes, as many tokens as they may have.
    refused("f32[tokens, 6] and f32[others, 6] differ", |g| {
        let others = g.builder.tokens("others", 10)?;
        let table = g.builder.weight("table", [100, 6])?;
        let others = GraphBuilder::gather(g.builder.name("there"), others, table, Element::F32)?;
        g.builder.name("it").add(g.embedded, others)
    });
}

#[test]
fn neighbours() {
    refused("query f32[4] against a reference matrix of [rows, 5]", |g| {
        let reference = g.builder.reference("r", 5)?;
        g.builder.top_k(g.x, reference, Metric::Dot, 1)
    });
    refused("query f16[2, 4] against a reference matrix of [rows, 4]", |g| {
        let reference = g.builder.reference("r", 4)?;
        g.builder.top_k(g.half, reference, Metric::L2, 1)
    });
    for k in [0, TOP_K_MAX + 1] {
        refused(&format!("k is {k}, not 1 to 1024"), |g| {
            let reference = g.builder.reference("r", 4)?;
            g.builder.top_k(g.x, reference, Metric::Cosine, k)
        });
    }
}

#[test]
fn names_and_shapes_of_parts() {
    let said = |build: fn(&mut Given) -> Result<()>| build(&mut given()).unwrap_err().to_string();
    assert_eq!(
        said(|g| g.builder.tokens("x", 3).map(drop)),
        "op `x`: there is an input of that name already"
    );
    assert_eq!(
        said(|g| g.builder.tensor("new", Element::F16, [3, 0]).map(drop)),
        "op `new`: input of type f16[3, 0] has a dimension of 0"
    );
    assert_eq!(
        said(|g| g.builder.weight("dense", [4, 5]).map(drop)),
        "op `dense`: weight of shape [5, 4] is also used as [4, 5]"
    );
    assert_eq!(
        said(|g| g.builder.weight("new", [0]).map(drop)),
        "op `new`: weight of shape [0] has a dimension of 0"
    );
    assert_eq!(
        said(|g| g.builder.reference("r", 3).and_then(|_| g.builder.reference("r", 4)).map(drop)),
        "op `r`: reference matrix of width 3 is also used with width 4"
    );
    assert_eq!(
        said(|g| g.builder.output("y", g.x).and_then(|()| g.builder.output("y", g.x))),
        "op `y`: there is an output of that name already"
    );
    assert_eq!(
        said(|g| std::mem::take(&mut g.builder).build().map(drop)),
        "op `graph`: needs at least one input and one output"
    );
    assert_eq!(
        said(|g| g.builder.softmax(g.scalar).map(drop)),
        "op `softmax_1`: f32[] has no fixed dimension",
        "an op without a name is called by its kind and place"
    );
}

#[test]
fn inputs_learn_what_their_rows_may_hold() {
    let mut builder = GraphBuilder::new();
    let tokens = builder.text("text", "small", 100).unwrap();
    let (words, few) = (builder.weight("words", [50, 4]).unwrap(), builder.weight("few", [40, 4]).unwrap());
    let places = builder.weight("places", [64, 4]).unwrap();
    builder.gather(tokens, words, Element::F32).unwrap();
    builder.gather(tokens, few, Element::F32).unwrap();
    let x = builder.positions(tokens, places, Element::F32).unwrap();
    builder.output("x", x).unwrap();
    let graph = builder.build().unwrap();
    let input = &graph.inputs()[0];
    assert_eq!((input.id_bound, input.length_max), (Some(40), Some(64)));
    assert!(format!("{:?}", input.source).contains("length_max: 64"), "text is cut to what has a position");
}
