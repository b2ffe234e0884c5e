//! `tensor_minilm_cpu`: sentences of 32 tokens through all-MiniLM-L6-v2 on two threads, against
//! candle-transformers' BERT and PyTorch with the same weights, tokens, batch and threads.

use arrow::buffer::{Buffer, OffsetBuffer};
use thalweg_engine::Result;
use thalweg_tensor::bert::SentenceEncoder;
use thalweg_tensor::{Element, GraphBuilder, Tensor, TensorBatch};

use crate::peers;
use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::tensor_case::{THREADS, failed, steady};

/// Sentences of a batch, and tokens of each.
const ROWS: usize = 256;
const TOKENS: usize = 32;

/// Runs one side.
///
/// # Errors
/// What fails it; that there are no peers.
pub fn one(role: Role, settings: &Settings) -> Result<Sample> {
    match role {
        Role::Subject => subject(settings),
        Role::Baseline => {
            let model = peers::minilm().to_string_lossy().into_owned();
            let numbers = [THREADS, ROWS, TOKENS, settings.window.as_secs() as usize];
            let mut arguments = vec![model];
            arguments.extend(numbers.map(|number| number.to_string()));
            Ok(Sample::default()
                .with("candle", peers::program("candle-minilm", &arguments)?)
                .with("torch", peers::python("torch_minilm.py", &arguments)?))
        }
    }
}

fn subject(settings: &Settings) -> Result<Sample> {
    let encoder = SentenceEncoder::open(peers::minilm(), Element::F32).map_err(failed)?;
    let mut builder = GraphBuilder::new();
    let tokens = builder.tokens("tokens", encoder.length_max()).map_err(failed)?;
    let embedding = encoder.append(&mut builder, tokens).map_err(failed)?;
    builder.output("embedding", embedding).map_err(failed)?;
    let graph = builder.build().map_err(failed)?;
    let ids: Vec<i32> = (0..ROWS * TOKENS).map(token).collect();
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(TOKENS, ROWS));
    let tensor = Tensor::ragged(Element::I32, [], offsets, Buffer::from_vec(ids)).map_err(failed)?;
    let batch = TensorBatch { rows: ROWS, tensors: vec![tensor] };
    steady(&graph, encoder.weights(), &[], &batch, settings)
}

/// The same ids in every peer: begin, filling, end.
fn token(index: usize) -> i32 {
    match index % TOKENS {
        0 => 101,
        place if place == TOKENS - 1 => 102,
        _ => (1_000 + index * 7_919 % 20_000) as i32,
    }
}

/// The report's rows: one per peer.
pub fn rows(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    let row = |name: String, peer: &str, is, aim| Row {
        name,
        value: subject.get("rows_per_second"),
        unit: "sentences/s",
        baseline: is,
        baseline_value: baseline.get(peer),
        aim,
    };
    vec![
        row(name.to_string(), "candle", "candle-transformers, 2 threads", "ratio >= 1.5"),
        row(format!("{name}_torch"), "torch", "PyTorch, 2 threads", "ratio >= 1.0"),
    ]
}
