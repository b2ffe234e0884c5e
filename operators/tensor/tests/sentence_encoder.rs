//! Sentence encoders from their files: what is understood, and how the rest is refused. Whether they
//! compute what they should is for `conformance`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use thalweg_tensor::op::{Activation, Metric, Op, Pooling};
use thalweg_tensor::random_encoder::RandomEncoder;
use thalweg_tensor::{Element, GraphBuilder, SentenceEncoder, Tokenizer};

fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    RandomEncoder::default().write(directory.path()).unwrap();
    directory
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// What opening says once a key of a file is changed.
fn refused(file: &str, key: &str, value: Value) -> String {
    let directory = directory();
    change(&directory.path().join(file), |json| json[key] = value);
    let error = SentenceEncoder::open(directory.path(), Element::F32).unwrap_err().to_string();
    error.replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn an_encoder_is_a_graph_from_text_to_an_embedding() {
    let directory = directory();
    for element in [Element::F32, Element::F16] {
        let encoder = SentenceEncoder::open(directory.path(), element).unwrap();
        let graph = encoder.graph().unwrap();
        let embedding = graph.value(graph.outputs()[0].1);
        assert_eq!(embedding.to_string(), format!("{element}[32]"));
        assert_eq!((encoder.width(), encoder.length_max()), (32, 64));
        encoder.weights().check(&graph).unwrap();
    }
}

#[test]
fn other_ops_follow_an_encoder() {
    let directory = directory();
    let encoder = SentenceEncoder::open(directory.path(), Element::F16).unwrap();
    let mut builder = GraphBuilder::new();
    let title = builder.text("title", "words", 16).unwrap();
    let body = builder.text("body", "words", 64).unwrap();
    // Twice the same model: its weights stand in the graph once.
    let (title, body) =
        (encoder.append(&mut builder, title).unwrap(), encoder.append(&mut builder, body).unwrap());
    let both = builder.concat(&[title, body]).unwrap();
    let reference = builder.reference("catalogue", 64).unwrap();
    let (ids, _) = builder.top_k(both, reference, Metric::Cosine, 3).unwrap();
    builder.output("ids", ids).unwrap();
    let graph = builder.build().unwrap();
    assert_eq!(graph.weights(), encoder.graph().unwrap().weights());
    encoder.weights().check(&graph).unwrap();
}

#[test]
fn poolings_and_activations_are_as_the_files_say() {
    let directory = directory();
    let ops = || {
        let encoder = SentenceEncoder::open(directory.path(), Element::F32).unwrap();
        encoder.graph().unwrap().nodes().iter().map(|node| node.op.clone()).collect::<Vec<Op>>()
    };
    for (name, activation) in
        [("gelu_new", Activation::GeluTanh), ("relu", Activation::Relu), ("silu", Activation::Silu)]
    {
        change(&directory.path().join("config.json"), |json| json["hidden_act"] = json!(name));
        let with =
            |op: &&Op| matches!(op, Op::MatMul { activation: Some(found), .. } if *found == activation);
        assert_eq!(ops().iter().filter(with).count(), 2, "{name}");
    }
    let pooling = directory.path().join("1_Pooling/config.json");
    for (key, pooling_op) in
        [("cls_token", Pooling::Cls), ("max_tokens", Pooling::Max), ("mean_tokens", Pooling::Mean)]
    {
        let key = format!("pooling_mode_{key}");
        std::fs::write(&pooling, json!({ key: true }).to_string()).unwrap();
        assert!(ops().contains(&Op::Pool(pooling_op)));
    }
    std::fs::write(&pooling, json!({"pooling_mode": "cls"}).to_string()).unwrap();
    assert!(ops().contains(&Op::Pool(Pooling::Cls)));
    std::fs::remove_file(directory.path().join("modules.json")).unwrap();
    let ops = ops();
    assert_eq!(ops.last(), Some(&Op::Pool(Pooling::Mean)), "no modules.json: mean, and no more");
}

#[test]
fn names_may_begin_with_bert() {
    let directory = directory();
    let path = directory.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let named: Vec<(String, _)> = file.iter().map(|(name, view)| (format!("bert.{name}"), view)).collect();
    std::fs::write(&path, safetensors::serialize(named, None).unwrap()).unwrap();
    SentenceEncoder::open(directory.path(), Element::F32).unwrap();
}

#[test]
fn what_is_not_understood_is_refused_with_file_and_key() {
    let config = "config.json";
    assert_eq!(
        refused(config, "model_type", json!("roberta")),
        "DIR/config.json: key `model_type` is roberta, and only bert is supported"
    );
    assert_eq!(
        refused(config, "position_embedding_type", json!("relative_key")),
        "DIR/config.json: key `position_embedding_type` is relative_key, and only absolute is supported"
    );
    assert_eq!(
        refused(config, "hidden_act", json!("mish")),
        "DIR/config.json: key `hidden_act` is mish, and only gelu, gelu_new, gelu_pytorch_tanh, relu, silu \
         is supported"
    );
    assert_eq!(
        refused(config, "is_decoder", json!(true)),
        "DIR/config.json: key `is_decoder` is true, and only false is supported"
    );
    assert!(refused(config, "num_attention_heads", json!(5)).contains("key `num_attention_heads` is 5"));
    assert!(refused(config, "hidden_size", json!("x")).starts_with("DIR/config.json: "));
    assert_eq!(
        refused("1_Pooling/config.json", "pooling_mode_lasttoken", json!(true)),
        "DIR/1_Pooling/config.json: key `pooling_mode_lasttoken` is true, and only one of cls, mean and max is \
         supported"
    );
    assert!(
        refused("1_Pooling/config.json", "pooling_mode_cls_token", json!(true)).contains("not the only one")
    );
    let directory = directory();
    change(&directory.path().join("modules.json"), |json| {
        json[2] = json!({"path": "2_Dense", "type": "sentence_transformers.models.Dense"});
    });
    let error = SentenceEncoder::open(directory.path(), Element::F32).unwrap_err().to_string();
    assert!(error.contains("modules.json: key `type` is sentence_transformers.models.Dense"), "{error}");
}

#[test]
fn files_that_contradict_each_other_are_refused() {
    let words = refused("config.json", "vocab_size", json!(50));
    assert!(words.starts_with("DIR/tokenizer.json: makes ids up to "), "{words}");
    let hidden = refused("config.json", "hidden_size", json!(64));
    assert!(hidden.contains("[2, 64], it has [2, 32]"), "{hidden}");
    let inner = refused("config.json", "intermediate_size", json!(65));
    assert!(inner.contains("intermediate.dense.weight` of DIR/model.safetensors: "), "{inner}");
    assert!(inner.contains("[65, 32], it has [64, 32]"), "{inner}");
}

#[test]
fn byte_pair_tokenizers_work_too() {
    let vocabulary: Value = json!({"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "Ġ": 5, "Ġab": 6});
    let tokenizer = json!({
        "version": "1.0", "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0,
        "direction": "Right"}, "padding": {"strategy": {"Fixed": 9}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
        "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
        "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
        "merges": ["a b", "ab c", "Ġ ab"]}
    });
    let tokenizer = Tokenizer::from_bytes("bpe", tokenizer.to_string().as_bytes()).unwrap();
    assert_eq!(tokenizer.id_bound(), 7);
    let rows = [Some("abc ab"), None, Some(""), Some("cab"), Some("abcabcabc")];
    for threads in [1, 3] {
        // The file's own truncation and padding are not ours.
        let tokens = tokenizer.encoder(3, threads).unwrap().encode_rows(&rows).unwrap();
        assert_eq!(tokens.values::<i32>().unwrap(), [4, 6, 2, 3, 4, 4, 4]);
        assert_eq!(&tokens.offsets().unwrap()[..], [0, 2, 2, 2, 4, 7]);
    }
    let used = tokenizers::utils::parallelism::has_parallelism_been_used();
    assert!(!used, "the thread pool of the whole process was used");
}

#[test]
fn a_length_without_room_and_a_file_that_is_none_are_refused() {
    let directory = directory();
    let tokenizer = Tokenizer::from_file(directory.path().join("tokenizer.json")).unwrap();
    let error = tokenizer.encoder(2, 1).err().unwrap().to_string();
    assert!(error.ends_with("length_max is 2, and 2 special tokens stand in every row"), "{error}");
    assert!(tokenizer.encoder(3, 1).is_ok());
    let error = Tokenizer::from_bytes("x.json", b"{}").unwrap_err().to_string();
    assert!(error.starts_with("x.json: is no tokenizer: "), "{error}");
    let again = Tokenizer::from_file(directory.path().join("tokenizer.json")).unwrap();
    assert_eq!(again.hash(), tokenizer.hash());
    assert_ne!(again.hash(), [0; 32]);
}
