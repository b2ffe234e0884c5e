//! `tensor_minilm_gpu`: sentences from Arrow text to Arrow embeddings, and how busy the device is.
//!
//! The model in `THALWEG_MODEL`, or one of the same size with random weights. Text is tokenised by
//! all cores but one, a few batches ahead, as a job does it.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use arrow::array::StringViewArray;
use thalweg_tensor::random_encoder::RandomEncoder;
use thalweg_tensor::{Backend, Element, Error, Limits, Plan, Result, SentenceEncoder, Tensor, TensorBatch};

use crate::{Bench, line};

/// Rows of a batch.
const ROWS: usize = 1_024;
/// Words of a row: about 32 tokens with the special ones.
const WORDS: usize = 30;
const AIM: f64 = 0.8;
const WARM_UP_BATCHES: usize = 8;
const MEASURED: Duration = Duration::from_secs(5);
const IN_FLIGHT: usize = 3;

pub fn run(bench: &Bench) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("thalweg-bench-{}", std::process::id()));
    let model = model(&directory);
    let opened = model.and_then(|path| SentenceEncoder::open(path, Element::F16));
    // Read and mapped: the files themselves are needed no longer.
    let _ = std::fs::remove_dir_all(&directory);
    let encoder = opened?;
    let limits = Limits { in_flight_max: IN_FLIGHT, memory_bytes_max: 8 << 30, ..Limits::default() };
    let mut plan = bench.backend.compile(&encoder.graph()?, encoder.weights(), &[], &limits)?;
    let measured = std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(4);
        let encoder = &encoder;
        scope.spawn(move || {
            let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().max(2) - 1);
            let text = encoder.tokenizer().encoder(encoder.length_max(), threads);
            for number in 0.. {
                let tokens = match &text {
                    Ok(text) => text.encode(&sentences(number)),
                    Err(error) => Err(Error::Device { device: "bench".into(), reason: error.to_string() }),
                };
                let is_last = tokens.is_err();
                if sender.send(tokens).is_err() || is_last {
                    return;
                }
            }
        });
        measure(&mut *plan, &receiver)
    })?;
    let seconds = measured.elapsed.as_secs_f64();
    line(
        "tensor_minilm_gpu",
        &format!("{:.1} tokens a row, busy", measured.tokens_per_row),
        format!("{:.0} sentences/s", measured.rows as f64 / seconds),
        measured.busy.as_secs_f64() / seconds,
        AIM,
    );
    Ok(())
}

fn model(directory: &PathBuf) -> Result<PathBuf> {
    if let Some(model) = std::env::var_os("THALWEG_MODEL") {
        println!("model {}", PathBuf::from(&model).display());
        return Ok(model.into());
    }
    println!("model of random weights, as large as all-MiniLM-L6-v2 but for its vocabulary");
    std::fs::create_dir_all(directory)
        .map_err(|source| Error::Io { what: directory.display().to_string(), source })?;
    let random =
        RandomEncoder { seed: 1, layers: 6, hidden: 384, heads: 12, intermediate: 1_536, length_max: 256 };
    random.write(directory)?;
    Ok(directory.clone())
}

/// A batch of text as Arrow has it.
fn sentences(number: usize) -> StringViewArray {
    const VOCABULARY: [&str; 12] =
        ["the", "river", "bed", "water", "flow", "stream", "fast", "line", "model", "near", "old", "green"];
    let row = |row: usize| {
        let word = |word: usize| VOCABULARY[(number + row * 7 + word * (row % 5 + 1)) % VOCABULARY.len()];
        (0..WORDS).map(word).collect::<Vec<_>>().join(" ")
    };
    StringViewArray::from_iter_values((0..ROWS).map(row))
}

struct Measured {
    elapsed: Duration,
    busy: Duration,
    rows: usize,
    tokens_per_row: f64,
}

/// Keeps the plan full; `busy` counts no moment twice, see `Finished::device_time`.
fn measure(plan: &mut dyn Plan, batches: &Receiver<Result<Tensor>>) -> Result<Measured> {
    let mut measured =
        Measured { elapsed: Duration::ZERO, busy: Duration::ZERO, rows: 0, tokens_per_row: 0.0 };
    let (mut started, mut finished, mut under_way) = (Instant::now(), 0, 0);
    loop {
        while under_way < IN_FLIGHT {
            let closed = || Error::Device { device: "bench".into(), reason: "the tokeniser ended".into() };
            let tokens = batches.recv().map_err(|_| closed())??;
            measured.tokens_per_row = tokens.tensors() as f64 / tokens.rows() as f64;
            plan.submit(TensorBatch { rows: tokens.rows(), tensors: vec![tokens] })?;
            under_way += 1;
        }
        let Some(batch) = plan.finish()? else { continue };
        (finished, under_way) = (finished + 1, under_way - 1);
        if finished == WARM_UP_BATCHES {
            started = Instant::now();
        } else if finished > WARM_UP_BATCHES {
            measured.rows += batch.batch.rows;
            measured.busy += batch.device_time;
            measured.elapsed = started.elapsed();
            if measured.elapsed >= MEASURED {
                return Ok(measured);
            }
        }
    }
}
