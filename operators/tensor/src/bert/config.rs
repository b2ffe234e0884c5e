//! The JSON files of a sentence encoder.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::op::{Activation, Pooling};
use crate::{Error, Result};

/// What `config.json` says of a BERT.
#[derive(Clone, Debug)]
pub struct Bert {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub type_vocab_size: usize,
    pub max_position_embeddings: usize,
    pub layer_norm_eps: f32,
    pub activation: Activation,
}

#[derive(Deserialize)]
struct ConfigFile {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    hidden_act: String,
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f32,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    add_cross_attention: bool,
}

fn default_epsilon() -> f32 {
    1e-12
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl Bert {
    pub fn read(path: &Path) -> Result<Bert> {
        let config: ConfigFile = read_json(path)?;
        let refuse = |key: &str, is: &str, known: &str| {
            let reason = format!("key `{key}` is {is}, and only {known} is supported");
            Err(Error::weights(path.display().to_string(), reason))
        };
        if config.model_type != "bert" {
            return refuse("model_type", &config.model_type, "bert");
        }
        if config.position_embedding_type != "absolute" {
            return refuse("position_embedding_type", &config.position_embedding_type, "absolute");
        }
        if config.is_decoder {
            return refuse("is_decoder", "true", "false");
        }
        if config.add_cross_attention {
            return refuse("add_cross_attention", "true", "false");
        }
        let (heads, hidden) = (config.num_attention_heads, config.hidden_size);
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return refuse("num_attention_heads", &heads.to_string(), &format!("a divisor of {hidden}"));
        }
        let activation = match config.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            other => return refuse("hidden_act", other, "gelu, gelu_new, gelu_pytorch_tanh, relu, silu"),
        };
        Ok(Bert {
            hidden_size: hidden,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: heads,
            intermediate_size: config.intermediate_size,
            vocab_size: config.vocab_size,
            type_vocab_size: config.type_vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            layer_norm_eps: config.layer_norm_eps,
            activation,
        })
    }
}

/// What `sentence-transformers` puts behind the encoder: mean pooling where there is no `modules.json`,
/// as it does itself.
#[derive(Clone, Debug)]
pub struct Modules {
    pub pooling: Pooling,
    pub is_normalised: bool,
    pub length_max: usize,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    pooling_mode: Option<String>,
}

impl Modules {
    pub fn read(directory: &Path, bert: &Bert) -> Result<Modules> {
        let sentence = directory.join("sentence_bert_config.json");
        let length = match sentence.exists() {
            true => read_json::<SentenceConfig>(&sentence)?.max_seq_length,
            false => None,
        };
        let length_max = length.unwrap_or(usize::MAX).min(bert.max_position_embeddings);
        let mut modules = Modules { pooling: Pooling::Mean, is_normalised: false, length_max };
        let path = directory.join("modules.json");
        if !path.exists() {
            return Ok(modules);
        }
        for module in read_json::<Vec<Module>>(&path)? {
            // `sentence_transformers.models.Pooling`; later versions have it one package deeper.
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => {
                    modules.pooling = read_pooling(&directory.join(&module.path).join("config.json"))?;
                }
                "Normalize" => modules.is_normalised = true,
                _ => {
                    let reason = format!(
                        "key `type` is {}, and only Transformer, Pooling and Normalize are supported",
                        module.kind
                    );
                    return Err(Error::weights(path.display().to_string(), reason));
                }
            }
        }
        Ok(modules)
    }
}

fn read_pooling(path: &Path) -> Result<Pooling> {
    let config: PoolingConfig = read_json(path)?;
    let refuse = |key: &str, is: &str| {
        let reason = format!("key `{key}` is {is}, and only one of cls, mean and max is supported");
        Err(Error::weights(path.display().to_string(), reason))
    };
    match config.pooling_mode.as_deref() {
        Some("mean") => return Ok(Pooling::Mean),
        Some("cls") => return Ok(Pooling::Cls),
        Some("max") => return Ok(Pooling::Max),
        Some(other) => return refuse("pooling_mode", other),
        None => {}
    }
    let unsupported = [
        ("pooling_mode_mean_sqrt_len_tokens", config.pooling_mode_mean_sqrt_len_tokens),
        ("pooling_mode_weightedmean_tokens", config.pooling_mode_weightedmean_tokens),
        ("pooling_mode_lasttoken", config.pooling_mode_lasttoken),
    ];
    if let Some((key, _)) = unsupported.into_iter().find(|(_, is_set)| *is_set) {
        return refuse(key, "true");
    }
    match (config.pooling_mode_cls_token, config.pooling_mode_mean_tokens, config.pooling_mode_max_tokens) {
        (true, false, false) => Ok(Pooling::Cls),
        (false, true, false) => Ok(Pooling::Mean),
        (false, false, true) => Ok(Pooling::Max),
        (false, false, false) => refuse("pooling_mode_mean_tokens", "false as all others are"),
        _ => refuse("pooling_mode_mean_tokens", "not the only one that is true"),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| Error::Io { what: name.clone(), source })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::weights(name, error.to_string()))
}
