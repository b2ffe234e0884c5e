"""PyTorch beside `tensor_minilm_cpu`: the same weights, tokens, batch and threads, inference mode.

torch_minilm.py MODEL_DIRECTORY THREADS ROWS TOKENS SECONDS, prints sentences per second.
"""

import sys
import time

import torch
from transformers import AutoModel


def token(index: int, tokens: int) -> int:
    """The same ids in every peer: begin, filling, end."""
    place = index % tokens
    if place == 0:
        return 101
    return 102 if place == tokens - 1 else 1000 + index * 7919 % 20000


def main() -> None:
    directory, threads, rows, tokens, seconds = sys.argv[1], *map(int, sys.argv[2:6])
    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    ids = torch.tensor([token(index, tokens) for index in range(rows * tokens)]).reshape(rows, tokens)
    with torch.inference_mode():

        def embed() -> torch.Tensor:
            # All rows are of one length: no mask, which is the fastest that it can do.
            states = model(input_ids=ids).last_hidden_state
            return torch.nn.functional.normalize(states.mean(dim=1), dim=1)

        for _ in range(2):
            first = embed()[0, :4]
        batches, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            embed()
            batches += 1
    print("first", *first.tolist(), file=sys.stderr)
    print(f"{batches * rows / spent}")


main()
