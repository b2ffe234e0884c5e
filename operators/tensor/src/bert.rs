//! Sentence encoders of the BERT type (Devlin et al. 2018), from the files that Hugging Face and
//! `sentence-transformers` (Reimers, Gurevych 2019) keep: `config.json`, `tokenizer.json`,
//! `model.safetensors`, and, where they are, `modules.json`, `sentence_bert_config.json` and the
//! pooling's `config.json`.
//!
//! What a config says and is not understood here is refused, with its file and key; nothing is
//! guessed.

mod config;

use std::path::Path;

use crate::op::{Activation, ValueId};
use crate::text::Tokenizer;
use crate::weights::StoredTensor;
use crate::{Element, Error, Graph, GraphBuilder, Result, Weights};

use config::{Bert, Modules};

/// A model that makes one vector of a text.
#[derive(Clone, Debug)]
pub struct SentenceEncoder {
    bert: Bert,
    modules: Modules,
    element: Element,
    /// What stands before every weight's name: `bert.` or nothing.
    prefix: String,
    weights: Weights,
    tokenizer: Tokenizer,
}

/// The weight that the first row of the segment embeddings becomes.
const SEGMENT: &str = "embeddings.token_type_embeddings.weight[0]";

impl SentenceEncoder {
    /// Reads a model's directory. `element` is what it is computed in: `f32` or `f16`.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the model is of another kind; the error names file and
    /// key.
    pub fn open(directory: impl AsRef<Path>, element: Element) -> Result<SentenceEncoder> {
        let directory = directory.as_ref();
        let bert = Bert::read(&directory.join("config.json"))?;
        let modules = Modules::read(directory, &bert)?;
        let tokenizer = Tokenizer::from_file(directory.join("tokenizer.json"))?;
        let weights = Weights::open([directory.join("model.safetensors")])?;
        let is_prefixed = weights.names().any(|name| name.starts_with("bert."));
        let prefix = if is_prefixed { "bert." } else { "" }.to_owned();
        let mut encoder = SentenceEncoder { bert, modules, element, prefix, weights, tokenizer };
        encoder.check_tokenizer(directory)?;
        encoder.add_segment()?;
        encoder.weights.check(&encoder.graph()?)?;
        Ok(encoder)
    }

    /// A graph of one column of text, `text`, that makes a column `embedding`.
    ///
    /// # Errors
    /// When the element is not one that models are computed in.
    pub fn graph(&self) -> Result<Graph> {
        let mut builder = GraphBuilder::new();
        let tokens = builder.text("text", "tokenizer", self.length_max())?;
        let embedding = self.append(&mut builder, tokens)?;
        builder.output("embedding", embedding)?;
        builder.build()
    }

    /// Adds the model to a graph: token ids in, one vector per row out, for other ops to read.
    ///
    /// # Errors
    /// When `tokens` is no input of tokens or text, or a weight's name is taken by another shape.
    pub fn append(&self, builder: &mut GraphBuilder, tokens: ValueId) -> Result<ValueId> {
        let mut x = self.append_embeddings(builder, tokens)?;
        for layer in 0..self.bert.num_hidden_layers {
            x = self.append_layer(builder, x, layer)?;
        }
        let pooled = builder.pool(x, self.modules.pooling)?;
        match self.modules.is_normalised {
            true => builder.l2_normalise(pooled),
            false => Ok(pooled),
        }
    }

    /// Its weights, as stored.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Elements of an embedding.
    pub fn width(&self) -> usize {
        self.bert.hidden_size
    }

    /// Tokens that a row keeps, special ones included.
    pub fn length_max(&self) -> usize {
        self.modules.length_max
    }

    fn append_embeddings(&self, builder: &mut GraphBuilder, tokens: ValueId) -> Result<ValueId> {
        let width = self.bert.hidden_size;
        let weight = |name: &str| self.named(&format!("embeddings.{name}_embeddings.weight"));
        let words = builder.weight(&weight("word"), [self.bert.vocab_size, width])?;
        let places = builder.weight(&weight("position"), [self.bert.max_position_embeddings, width])?;
        let segment = builder.weight(&self.named(SEGMENT), [width])?;
        let words = builder.gather(tokens, words, self.element)?;
        let places = builder.positions(tokens, places, self.element)?;
        let sum = builder.add(words, places)?;
        let sum = builder.add_bias(sum, segment)?;
        self.append_norm(builder, sum, "embeddings.LayerNorm")
    }

    fn append_layer(&self, builder: &mut GraphBuilder, x: ValueId, layer: usize) -> Result<ValueId> {
        let (hidden, inner) = (self.bert.hidden_size, self.bert.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let query = self.append_dense(builder, x, &name("attention.self.query"), hidden, None)?;
        let key = self.append_dense(builder, x, &name("attention.self.key"), hidden, None)?;
        let value = self.append_dense(builder, x, &name("attention.self.value"), hidden, None)?;
        let seen = builder.attention([query, key, value], self.bert.num_attention_heads, false)?;
        let seen = self.append_dense(builder, seen, &name("attention.output.dense"), hidden, None)?;
        let sum = builder.add(seen, x)?;
        let x = self.append_norm(builder, sum, &name("attention.output.LayerNorm"))?;
        let activation = Some(self.bert.activation);
        let wide = self.append_dense(builder, x, &name("intermediate.dense"), inner, activation)?;
        let made = self.append_dense(builder, wide, &name("output.dense"), hidden, None)?;
        let sum = builder.add(made, x)?;
        self.append_norm(builder, sum, &name("output.LayerNorm"))
    }

    fn append_dense(
        &self,
        builder: &mut GraphBuilder,
        x: ValueId,
        name: &str,
        columns: usize,
        activation: Option<Activation>,
    ) -> Result<ValueId> {
        let name = self.named(name);
        let n = builder.typed(x).last();
        let weight = builder.weight(&format!("{name}.weight"), [columns, n])?;
        let bias = builder.weight(&format!("{name}.bias"), [columns])?;
        builder.matmul(x, weight, Some(bias), activation)
    }

    fn append_norm(&self, builder: &mut GraphBuilder, x: ValueId, name: &str) -> Result<ValueId> {
        let name = self.named(name);
        let n = builder.typed(x).last();
        let gamma = builder.weight(&format!("{name}.weight"), [n])?;
        let beta = builder.weight(&format!("{name}.bias"), [n])?;
        builder.layer_norm(x, gamma, beta, self.bert.layer_norm_eps)
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A single text is all of segment 0: of its embeddings the first row is added to every token.
    fn add_segment(&mut self) -> Result<()> {
        let name = self.named("embeddings.token_type_embeddings.weight");
        let Some(stored) = self.weights.get(&name) else {
            return Err(Error::weights(format!("weight `{name}`"), "is not in model.safetensors"));
        };
        let (width, element) = (self.bert.hidden_size, stored.element);
        if stored.dims != [self.bert.type_vocab_size, width] {
            let reason = format!(
                "config.json says shape {:?}, it has {:?}",
                [self.bert.type_vocab_size, width],
                stored.dims
            );
            return Err(Error::weights(format!("weight `{name}`"), reason));
        }
        let data = stored.data.slice_with_length(0, width * element.bytes());
        let segment = self.named(SEGMENT);
        self.weights.insert(segment, StoredTensor { element, dims: vec![width], data })
    }

    fn check_tokenizer(&self, directory: &Path) -> Result<()> {
        let (bound, known) = (self.tokenizer.id_bound(), self.bert.vocab_size);
        match bound <= known {
            true => Ok(()),
            false => Err(Error::weights(
                directory.join("tokenizer.json").display().to_string(),
                format!("makes ids up to {}, and vocab_size in config.json is {known}", bound - 1),
            )),
        }
    }
}
