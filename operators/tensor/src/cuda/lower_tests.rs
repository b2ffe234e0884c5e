//! What is fused, and what lives where.

use super::program::{AxisCounts, Counts, Epilogue, Program, Step};
use super::{kernel, lower};
use crate::op::{Activation, Metric, Pooling, ValueId};
use crate::{Element, Graph, GraphBuilder, Result};

fn encoder(element: Element, activation: Activation) -> Result<Graph> {
    let mut b = GraphBuilder::new();
    let tokens = b.tokens("tokens", 64)?;
    let (words, places) = (b.weight("words", [100, 64])?, b.weight("places", [64, 64])?);
    let (words, places) = (b.gather(tokens, words, element)?, b.positions(tokens, places, element)?);
    let sum = b.add(words, places)?;
    let x = norm(&mut b, sum)?;
    let [q, k, v] = ["q", "k", "v"].map(|name| dense(&mut b, x, name, 64, None));
    let seen = b.attention([q?, k?, v?], 4, false)?;
    let seen = dense(&mut b, seen, "o", 64, None)?;
    let sum = b.add(seen, x)?;
    let x = norm(&mut b, sum)?;
    let inner = dense(&mut b, x, "inner", 256, Some(activation))?;
    let outer = dense(&mut b, inner, "outer", 64, None)?;
    let sum = b.add(outer, x)?;
    let x = norm(&mut b, sum)?;
    let pooled = b.pool(x, Pooling::Mean)?;
    let normal = b.l2_normalise(pooled)?;
    let (values, scales) = b.quantise(normal)?;
    b.output("values", values)?;
    b.output("scales", scales)?;
    b.build()
}

fn norm(b: &mut GraphBuilder, x: ValueId) -> Result<ValueId> {
    let (gamma, beta) = (b.weight("gamma", [64])?, b.weight("beta", [64])?);
    b.layer_norm(x, gamma, beta, 1e-12)
}

fn dense(
    b: &mut GraphBuilder,
    x: ValueId,
    name: &str,
    columns: usize,
    activation: Option<Activation>,
) -> Result<ValueId> {
    let n = b.typed(x).last();
    let (weight, bias) = (b.weight(name, [columns, n])?, b.weight(&format!("{name} bias"), [columns])?);
    b.matmul(x, weight, Some(bias), activation)
}

/// Steps as `gemm n k` or a kernel's name without its hash.
fn outline(program: &Program) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Gemm(gemm) => format!("gemm {} {}", gemm.n, gemm.k),
        Step::Scan(_) => "scan".to_owned(),
        Step::Launch(launch) => {
            let name = &program.kernels[launch.kernel.0].name;
            name[..name.rfind('_').unwrap()].to_owned()
        }
    };
    program.steps.iter().map(name).collect()
}

#[test]
fn an_encoder_is_products_attention_and_a_kernel_between_them() {
    let program = lower(&encoder(Element::F16, Activation::Gelu).unwrap()).unwrap();
    let wanted = [
        "gather_positions_add_layer_norm",
        "gemm 192 64",
        "attention_mma",
        "gemm 64 64",
        "add_layer_norm",
        "gemm 256 64",
        "activate",
        "gemm 64 256",
        "add_layer_norm",
        "pool_mean_l2_normalise_quantise",
    ];
    assert_eq!(outline(&program), wanted);
}

#[test]
fn gelu_by_tanh_of_f16_is_the_products_own() {
    for (element, epilogue) in [(Element::F16, Epilogue::GeluTanh), (Element::F32, Epilogue::None)] {
        let program = lower(&encoder(element, Activation::GeluTanh).unwrap()).unwrap();
        let inner = program.steps.iter().find_map(|step| match step {
            Step::Gemm(gemm) if gemm.n == 256 => Some(gemm.epilogue),
            _ => None,
        });
        assert_eq!(inner, Some(epilogue));
    }
}

#[test]
fn a_product_that_somebody_else_reads_is_not_merged() {
    let mut b = GraphBuilder::new();
    let x = b.tokens("tokens", 9).unwrap();
    let table = b.weight("table", [9, 8]).unwrap();
    let x = b.gather(x, table, Element::F32).unwrap();
    let [q, k, v] = ["q", "k", "v"].map(|name| dense(&mut b, x, name, 8, None).unwrap());
    let seen = b.attention([q, k, v], 2, true).unwrap();
    b.output("seen", seen).unwrap();
    b.output("key", k).unwrap();
    let program = lower(&b.build().unwrap()).unwrap();
    assert_eq!(outline(&program), ["gather", "gemm 8 8", "gemm 8 8", "gemm 8 8", "attention"]);
}

#[test]
fn what_no_output_stands_on_is_left_out() {
    let mut b = GraphBuilder::new();
    let x = b.tensor("x", Element::F32, [8]).unwrap();
    let _unused = b.softmax(x).unwrap();
    let kept = b.activate(x, Activation::Relu).unwrap();
    b.output("kept", kept).unwrap();
    assert_eq!(outline(&lower(&b.build().unwrap()).unwrap()), ["activate"]);
}

#[test]
fn a_scale_is_no_vector_of_its_group() {
    let mut b = GraphBuilder::new();
    let x = b.tensor("x", Element::F32, [4, 1]).unwrap();
    let (_, scales) = b.quantise(x).unwrap();
    let doubled = b.add(scales, scales).unwrap();
    b.output("doubled", doubled).unwrap();
    assert_eq!(outline(&lower(&b.build().unwrap()).unwrap()), ["quantise", "add"]);
}

#[test]
fn a_search_keeps_the_squares_of_queries_and_matrix() {
    let mut b = GraphBuilder::new();
    let x = b.tensor("x", Element::F32, [8]).unwrap();
    let reference = b.reference("reference", 8).unwrap();
    for (name, metric) in [("near", Metric::L2), ("like", Metric::Cosine)] {
        let (ids, _) = b.top_k(x, reference, metric, 5).unwrap();
        b.output(name, ids).unwrap();
    }
    let program = lower(&b.build().unwrap()).unwrap();
    // Distances are of what is left without the centre, angles of the whole.
    assert_eq!(outline(&program), ["centre", "scan", "squares", "scan"]);
    assert_eq!(program.references.iter().map(|spec| spec.is_centred).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn the_same_graph_is_the_same_text() {
    let [left, right, other] = [Activation::Gelu, Activation::Gelu, Activation::Silu]
        .map(|activation| lower(&encoder(Element::F32, activation).unwrap()).unwrap());
    assert_eq!(left, right);
    let text = |program: &Program| kernel::source(&program.kernels);
    assert!(text(&left) == text(&right) && text(&left) != text(&other));
}

#[test]
fn buffers_that_live_together_do_not_overlap() {
    let program = lower(&encoder(Element::F16, Activation::Gelu).unwrap()).unwrap();
    for (rows, tokens, longest) in [(0, 0, 0), (1, 1, 1), (3, 50, 40), (1_000, 31_234, 64)] {
        let counts = Counts { rows, axes: vec![AxisCounts { tokens, longest }], ..Counts::default() };
        let layout = program.layout(&counts);
        let spans: Vec<_> = (0..program.buffers.len())
            .map(|index| {
                let begin = layout.offset(super::program::BufferId(index));
                (begin, begin + program.buffers[index].size.bytes(&counts), &program.buffers[index].live)
            })
            .collect();
        for (index, a) in spans.iter().enumerate() {
            assert!(a.0 % 256 == 0 && a.1 <= layout.bytes);
            for b in &spans[..index] {
                let together = a.2.start() <= b.2.end() && b.2.start() <= a.2.end();
                assert!(!together || a.1 <= b.0 || b.1 <= a.0, "{a:?} and {b:?} overlap");
            }
        }
        let all: usize = spans.iter().map(|span| span.1 - span.0).sum();
        assert!(tokens < 1_000 || layout.bytes < all * 2 / 3, "{} of {all} bytes", layout.bytes);
    }
}
