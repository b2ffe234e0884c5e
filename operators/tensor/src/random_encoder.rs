//! A sentence encoder of random weights, as files: what tests and demos use where nothing can be
//! downloaded. It means nothing, but everything about it is as in a real one.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::hashing::splitmix64;
use crate::{Error, Result};

/// How large it is, and what makes its weights.
#[derive(Clone, Debug)]
pub struct RandomEncoder {
    /// Makes the weights: the same seed makes the same files.
    pub seed: u64,
    /// Layers.
    pub layers: usize,
    /// Elements of an embedding.
    pub hidden: usize,
    /// Attention heads; divide `hidden`.
    pub heads: usize,
    /// Elements between the two matrices of a layer.
    pub intermediate: usize,
    /// Tokens of a row, at most.
    pub length_max: usize,
}

impl Default for RandomEncoder {
    fn default() -> Self {
        RandomEncoder { seed: 1, layers: 2, hidden: 32, heads: 4, intermediate: 64, length_max: 64 }
    }
}

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const WORDS: &str = "the a of and to in is river bed water flow stream fast line model text near far \
    cat dog bird fish red blue green old new small large one two three ##s ##ing ##ed ##er ##ly ##est";

impl RandomEncoder {
    /// Writes `config.json`, `tokenizer.json`, `model.safetensors`, `modules.json`,
    /// `sentence_bert_config.json` and `1_Pooling/config.json` into a directory that is there.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, directory: impl AsRef<Path>) -> Result<()> {
        let directory = directory.as_ref();
        let vocabulary = vocabulary();
        write_json(&directory.join("config.json"), &self.config(vocabulary.len()))?;
        write_json(&directory.join("tokenizer.json"), &tokenizer(&vocabulary))?;
        write_json(
            &directory.join("sentence_bert_config.json"),
            &json!({"max_seq_length": self.length_max, "do_lower_case": false}),
        )?;
        let modules: Vec<Value> =
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
                .iter()
                .enumerate()
                .map(|(index, (path, kind))| {
                    let kind = format!("sentence_transformers.models.{kind}");
                    json!({"idx": index, "name": index.to_string(), "path": path, "type": kind})
                })
                .collect();
        write_json(&directory.join("modules.json"), &Value::Array(modules))?;
        let pooling = directory.join("1_Pooling");
        std::fs::create_dir_all(&pooling).map_err(|error| io(&pooling, error))?;
        write_json(
            &pooling.join("config.json"),
            &json!({"word_embedding_dimension": self.hidden, "pooling_mode_mean_tokens": true}),
        )?;
        self.write_weights(&directory.join("model.safetensors"), vocabulary.len())
    }

    fn config(&self, words: usize) -> Value {
        json!({
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": self.length_max,
            "position_embedding_type": "absolute",
            "type_vocab_size": 2,
            "vocab_size": words,
        })
    }

    /// Names and shapes, as PyTorch's BERT has them.
    fn shapes(&self, words: usize) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden, self.intermediate);
        let mut shapes = Vec::new();
        let mut dense = |name: String, rows: usize, columns: usize| {
            shapes.push((format!("{name}.weight"), vec![rows, columns]));
            shapes.push((format!("{name}.bias"), vec![rows]));
        };
        for layer in 0..self.layers {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            for part in ["attention.self.query", "attention.self.key", "attention.self.value"] {
                dense(name(part), hidden, hidden);
            }
            dense(name("attention.output.dense"), hidden, hidden);
            dense(name("intermediate.dense"), inner, hidden);
            dense(name("output.dense"), hidden, inner);
        }
        let layers = (0..self.layers).flat_map(|layer| {
            ["attention.output", "output"].map(|part| format!("encoder.layer.{layer}.{part}.LayerNorm"))
        });
        for norm in std::iter::once("embeddings.LayerNorm".to_owned()).chain(layers) {
            shapes.push((format!("{norm}.weight"), vec![hidden]));
            shapes.push((format!("{norm}.bias"), vec![hidden]));
        }
        for (table, rows) in [("word", words), ("position", self.length_max), ("token_type", 2)] {
            shapes.push((format!("embeddings.{table}_embeddings.weight"), vec![rows, hidden]));
        }
        shapes
    }

    fn write_weights(&self, path: &Path, words: usize) -> Result<()> {
        let mut state = self.seed;
        let shapes = self.shapes(words);
        let data: Vec<Vec<u8>> = shapes.iter().map(|(name, dims)| numbers(&mut state, name, dims)).collect();
        let failed = |error: safetensors::SafeTensorError| {
            Error::weights(path.display().to_string(), error.to_string())
        };
        let views = shapes
            .iter()
            .zip(&data)
            .map(|((name, dims), data)| {
                TensorView::new(Dtype::F32, dims.clone(), data).map(|view| (name.as_str(), view))
            })
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(failed)?;
        safetensors::serialize_to_file(views, None, path).map_err(failed)
    }
}

/// Matrices keep the size of what they are multiplied with; norms scale by about 1.
fn numbers(state: &mut u64, name: &str, dims: &[usize]) -> Vec<u8> {
    let count: usize = dims.iter().product();
    let scale = match dims {
        [_, columns] if !name.contains("embeddings") => 1.7 / (*columns as f32).sqrt(),
        _ => 0.5,
    };
    let shift = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
    let number = |_| {
        *state = splitmix64(*state);
        let unit = (*state >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
        (shift + unit * scale).to_le_bytes()
    };
    (0..count).flat_map(number).collect()
}

/// Special tokens, some words, and every letter and digit, so that no text is unknown.
fn vocabulary() -> Vec<String> {
    let signs = ('a'..='z').chain('0'..='9').chain(".,!?'-".chars());
    let letters = signs.flat_map(|sign| [sign.to_string(), format!("##{sign}")]);
    let mut words: Vec<String> = SPECIAL.map(str::to_owned).into();
    for word in letters.chain(WORDS.split_whitespace().map(str::to_owned)) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

fn tokenizer(vocabulary: &[String]) -> Value {
    let ids: BTreeMap<&str, usize> =
        vocabulary.iter().enumerate().map(|(id, word)| (word.as_str(), id)).collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .map(|token| {
            json!({"id": ids[token], "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let special = |token: &str| json!({"id": token, "ids": [ids[token]], "tokens": [token]});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids},
    })
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n")).map_err(|error| io(path, error))
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { what: path.display().to_string(), source }
}
