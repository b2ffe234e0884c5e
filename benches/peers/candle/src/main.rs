//! candle's BERT beside `tensor_minilm_cpu`: the same weights, tokens, batch and threads.
//!
//! `candle-minilm MODEL_DIRECTORY THREADS ROWS TOKENS SECONDS` prints sentences per second.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config, DTYPE};

/// The same ids in every peer: begin, filling, end.
fn token(index: usize, tokens: usize) -> u32 {
    match index % tokens {
        0 => 101,
        place if place == tokens - 1 => 102,
        _ => (1000 + index * 7919 % 20_000) as u32,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, threads, rows, tokens, seconds] = &arguments[..] else {
        return Err("MODEL_DIRECTORY THREADS ROWS TOKENS SECONDS".into());
    };
    // candle takes its threads from here, before the first of them starts.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads) };
    let (rows, tokens): (usize, usize) = (rows.parse()?, tokens.parse()?);
    let seconds: f64 = seconds.parse()?;
    let directory = Path::new(directory);
    let config: Config = serde_json::from_slice(&std::fs::read(directory.join("config.json"))?)?;
    let device = Device::Cpu;
    let weights = std::fs::read(directory.join("model.safetensors"))?;
    let model = BertModel::load(VarBuilder::from_buffered_safetensors(weights, DTYPE, &device)?, &config)?;
    let ids: Vec<u32> = (0..rows * tokens).map(|index| token(index, tokens)).collect();
    let ids = Tensor::from_vec(ids, (rows, tokens), &device)?;
    let segments = ids.zeros_like()?;
    let mask = Tensor::ones((rows, tokens), DType::U32, &device)?;
    let embed = || -> candle_core::Result<Tensor> {
        let states = model.forward(&ids, &segments, Some(&mask))?;
        let mean = (states.sum(1)? / tokens as f64)?;
        mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?)
    };
    for _ in 0..2 {
        eprintln!("first {:?}", &embed()?.get(0)?.to_vec1::<f32>()?[..4]);
    }
    let (mut batches, start) = (0, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        embed()?;
        batches += 1;
    }
    println!("{}", (batches * rows) as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
