#!/usr/bin/env python3
"""What sentence-transformers makes of the test sentences: the fixtures of operators/tensor/tests/data.

    dev/sentence-embeddings.py MODEL_DIRECTORY OUT.safetensors

MODEL_DIRECTORY is printed by `dev/minilm fetch`, or written by the example `write_random_encoder` of thalweg-tensor.
The fixture was made with sentence-transformers 5.x and torch 2.x on a CPU in f32; it holds `embeddings` [sentences, width],
in f16 where the model is large (that moves no cosine by more than 1e-6), and `lengths`, the tokens of each sentence.
"""
import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

model_directory, out = sys.argv[1:]
data = pathlib.Path(__file__).parent.parent / "operators/tensor/tests/data/sentences.txt"
sentences = data.read_text(encoding="utf-8").split("\n")[:-1]
model = SentenceTransformer(model_directory, device="cpu")
embeddings = model.encode(sentences, batch_size=8, convert_to_numpy=True)
if embeddings.shape[1] > 100:
    embeddings = embeddings.astype(np.float16)
tokens = model.tokenizer(sentences, truncation=True, max_length=model.max_seq_length)["input_ids"]
lengths = np.array([len(ids) for ids in tokens], dtype=np.int32)
save_file({"embeddings": embeddings, "lengths": lengths}, out)
print(f"{len(sentences)} sentences, {embeddings.shape[1]} wide, {lengths.min()} to {lengths.max()} tokens")
