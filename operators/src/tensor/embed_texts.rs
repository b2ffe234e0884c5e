//! Texts to vectors outside a job: how a reference matrix is made.

use arrow::buffer::ScalarBuffer;
use thalweg_engine::Result;
use thalweg_tensor::{Backend, CpuBackend, Limits, ReferenceMatrix, SentenceEncoder, TensorBatch};

use super::tensor_error;

/// Texts that are computed at once.
const TEXTS_MAX: usize = 64;

/// A reference matrix of the vectors of `texts`, on the CPU; a text's id is its place.
///
/// # Errors
/// When a text cannot be tokenised, or there is none.
pub fn embed_texts(name: &str, encoder: &SentenceEncoder, texts: &[&str]) -> Result<ReferenceMatrix> {
    let matrix = || {
        let graph = encoder.graph()?;
        let mut plan = CpuBackend::new().compile(&graph, encoder.weights(), &[], &Limits::default())?;
        let tokens = encoder.tokenizer().encoder(encoder.length_max(), 1)?;
        let mut vectors: Vec<f32> = Vec::with_capacity(texts.len() * encoder.width());
        for texts in texts.chunks(TEXTS_MAX) {
            let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(*text)).collect();
            plan.submit(TensorBatch { rows: texts.len(), tensors: vec![tokens.encode_rows(&texts)?] })?;
            if let Some(finished) = plan.finish()? {
                vectors.extend_from_slice(finished.batch.tensors[0].values::<f32>()?);
            }
        }
        let ids: Vec<i64> = (0..texts.len() as i64).collect();
        ReferenceMatrix::new(name, encoder.width(), ScalarBuffer::from(vectors), ScalarBuffer::from(ids))
    };
    matrix().map_err(tensor_error)
}
