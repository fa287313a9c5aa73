"""What weights in bf16 or int8 cost: the loss they add, measured."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lmlab.generation.engine import Engine
from lmlab.generation.options import Options
from lmlab.generation.weights import Dtype, loss_of
from lmlab.model.transformer import Transformer
from lmlab.tokenizer import Tokenizer

TOKENS = 2048
"""Tokens that the loss is measured on, about: a second for 20 million parameters."""
LONGEST = 256


def held_out_windows(
    tokens: Int[np.ndarray, "length"], context_length: int
) -> Int[Tensor, "windows time"] | None:
    """Return evenly spaced windows of held-out tokens; None where they are shorter than one."""
    length = min(context_length, LONGEST)
    available = (len(tokens) - 1) // length
    if not available:
        return None
    count = min(available, max(1, TOKENS // length))
    starts = np.arange(count) * available // count * length
    rows = np.stack([tokens[start : start + length + 1] for start in starts])
    return torch.from_numpy(rows.astype(np.int64))


def sampled_windows(model: Transformer, tokenizer: Tokenizer) -> Int[Tensor, "windows time"]:
    """Return windows of documents that the model samples at temperature 1.

    On them the added loss is an estimate of the divergence KL(model || rounded model).
    """
    length = min(model.context_length, 64)
    engine = Engine(model, tokenizer, max_batch=8)
    first = 0 if engine.end is None else engine.end
    documents = [
        engine.submit([first], Options(max_new_tokens=length, seed=seed)) for seed in range(8)
    ]
    for _ in engine.run():
        pass
    stream = [token for document in documents for token in (first, *document.tokens)]
    length = min(length, len(stream) - 1)
    count = (len(stream) - 1) // length
    return torch.tensor([stream[i * length : (i + 1) * length + 1] for i in range(count)])


def describe_cost(
    model: Transformer,
    rounded: Transformer,
    dtype: Dtype,
    tokenizer: Tokenizer,
    held_out: Int[np.ndarray, "length"] | None,
) -> str:
    """Return a line with the loss that the rounded weights add, and on what it was measured."""
    windows = held_out_windows(held_out, model.context_length) if held_out is not None else None
    what = "held-out tokens"
    if windows is None:
        windows = sampled_windows(model, tokenizer)
        what = "tokens that the model sampled; its held-out tokens are not here"
    device = next(model.parameters()).device
    windows = windows.to(device)
    own, new = loss_of(model, windows), loss_of(rounded, windows)
    count = windows[:, 1:].numel()
    added = round(new - own, 4) + 0.0  # no minus zero
    return f"{dtype} changes the loss by {added:+.4f}, from {own:.4f} nats ({count:,} {what})"
