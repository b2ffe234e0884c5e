//! Transforms on streams, of columns and of typed records.

use std::sync::Arc;

use thalweg_engine::graph::Stream;
use thalweg_engine::record::Record;
use thalweg_engine::{Error, Result};
use thalweg_tensor::op::Metric;
use thalweg_tensor::{Element, GraphBuilder, SentenceEncoder, Weights};

use super::{Transform, tensor_error};
use crate::typed::{TypedExt, TypedStream};

/// Tensor transforms on a stream. Mistakes are reported when the job is built.
///
/// ```no_run
/// use std::time::Duration;
///
/// use thalweg_engine::graph::Stream;
/// use thalweg_engine::record::Record;
/// use thalweg_operators::tensor::{SentenceEncoder, TensorExt, Transform};
/// use thalweg_operators::typed::{TypedExt, TypedStream};
///
/// #[derive(Record)]
/// #[record(crate = "thalweg_engine")]
/// struct Embedded {
///     text: String,
///     embedding: [f32; 384],
/// }
///
/// fn embedded(events: &Stream, encoder: &SentenceEncoder) -> thalweg_engine::Result<TypedStream<Embedded>> {
///     // `events.embed("text", encoder)` does the same in batches of 256 rows or 5 ms.
///     let embed = Transform::embed("text", encoder)?.batch(64).max_delay(Duration::from_millis(20));
///     Ok(events.transform(embed).typed())
/// }
/// ```
pub trait TensorExt {
    /// Sends rows through a transform, which appends columns.
    #[must_use]
    fn transform(&self, transform: Transform) -> Stream;

    /// Appends a column `embedding`: the vectors of the texts in `column`.
    #[must_use]
    fn embed(&self, column: &str, encoder: &SentenceEncoder) -> Stream;
}

impl TensorExt for Stream {
    fn transform(&self, transform: Transform) -> Stream {
        self.apply(transform)
    }

    fn embed(&self, column: &str, encoder: &SentenceEncoder) -> Stream {
        match Transform::embed(column, encoder) {
            Ok(transform) => self.apply(transform),
            Err(error) => {
                self.environment().mistake(&error);
                self.clone()
            }
        }
    }
}

impl<T: Record> TypedStream<T> {
    /// Sends rows through a transform and reads what comes out as `U`: fields of `T` and the columns
    /// that were made, `[f32; N]` for vectors.
    pub fn transform<U: Record>(&self, transform: Transform) -> TypedStream<U> {
        self.stream().apply(transform).typed()
    }
}

impl Transform {
    /// Text in `column` to vectors in a column `embedding`; see [`Transform::output`] for another
    /// name.
    ///
    /// # Errors
    /// A user error when the model cannot be made into a graph.
    pub fn embed(column: &str, encoder: &SentenceEncoder) -> Result<Transform> {
        Transform::embed_cut(column, encoder, encoder.length_max())
    }

    /// The same with texts cut to `length_max` tokens, special ones included.
    ///
    /// # Errors
    /// A user error when that is more than the model takes.
    pub fn embed_cut(column: &str, encoder: &SentenceEncoder, length_max: usize) -> Result<Transform> {
        if length_max > encoder.length_max() {
            let most = encoder.length_max();
            return Err(Error::user(format!("the model takes texts of {most} tokens, not of {length_max}")));
        }
        let mut graph = GraphBuilder::new();
        let made = graph.text("text", "tokenizer", length_max).and_then(|tokens| {
            let embedding = encoder.append(&mut graph, tokens)?;
            graph.output("embedding", embedding)?;
            graph.build()
        });
        let graph = made.map_err(tensor_error)?;
        let transform = Transform::new(Arc::new(graph), Arc::new(encoder.weights().clone()));
        let transform = transform.tokenizer("tokenizer", encoder.tokenizer().clone());
        Ok(transform.named("embed").input("text", column))
    }

    /// The `k` nearest of a reference matrix to the vectors in `embedding`, `f32` or `f16` of `width`:
    /// their ids in a column `neighbours`, nearest first, and their scores in `scores`. The matrix is
    /// given as the [reference](Transform::reference) `references`.
    ///
    /// # Errors
    /// A user error when the graph cannot be made.
    pub fn nearest(
        embedding: &str,
        element: Element,
        width: usize,
        k: usize,
        metric: Metric,
    ) -> Result<Transform> {
        let mut graph = GraphBuilder::new();
        let made = graph.tensor("embedding", element, [width]).and_then(|query| {
            let references = graph.reference("references", width)?;
            let (ids, scores) = graph.top_k(query, references, metric, k)?;
            graph.output("neighbours", ids)?;
            graph.output("scores", scores)?;
            graph.build()
        });
        let transform = Transform::new(Arc::new(made.map_err(tensor_error)?), Arc::new(Weights::default()));
        Ok(transform.named("nearest").input("embedding", embedding))
    }
}
