"""Comparison of a model with what a GGUF file holds, and with llama.cpp."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmlab.errors import UserError
from lmlab.export.extras import package
from lmlab.export.rules import Rules
from lmlab.export.verify import SAMPLE, Agreement, compare, different_tokens, sample_ids
from lmlab.model import Transformer
from lmlab.tokenizer import Tokenizer

TOLERANCES = {"fp32": 8e-4, "fp16": 0.01, "bf16": 0.05, "q8_0": 0.1}
"""Largest difference of logits from llama.cpp's, as a share of the largest logit or of 1.

llama.cpp rounds the inputs of a product to the type of the matrix.
"""
GELU_TOLERANCE = 0.01
"""The same where the activation is gelu, which llama.cpp looks up in a table of float16."""
RELATIVE_ERROR = {"fp32": 0.0, "fp16": 2**-10, "bf16": 2**-7, "q8_0": 2**-6}
"""Largest difference of a stored weight, as a share of the largest one in its row."""
FLOAT32 = 0
"""ggml's number of the type."""


def check_file(model: Transformer, rules: Rules, path: Path, dtype: str) -> None:
    """Read a file back, and compare its tensors with the model's; raises UserError."""
    gguf = package("gguf")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    weights = model.state_dict()

    def read(name: str) -> torch.Tensor:
        tensor = stored[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return torch.from_numpy(np.array(values, dtype=np.float32))

    for rule in rules:
        for name, x in rule.export(lambda key: weights[key].detach().cpu().float()).items():
            error, largest = (read(name) - x).abs(), x.abs().amax(dim=-1, keepdim=True)
            if not (error <= RELATIVE_ERROR[dtype] * largest).all():
                raise UserError(f"{path}: {name} was not read back as it was written")


def check_llama_cpp(
    model: Transformer, tokenizer: Tokenizer, path: Path, dtype: str
) -> Agreement | None:
    """Compare logits and tokens with llama.cpp's; returns None where it is not installed.

    Raises UserError when llama.cpp does not load the file, or differs by more than TOLERANCES.
    """
    if importlib.util.find_spec("llama_cpp") is None:
        return None
    llama_cpp = package("llama_cpp")
    ids = sample_ids(model, tokenizer.vocab_size)
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)
    # With a cache of float32 only the products differ.
    try:
        llama = llama_cpp.Llama(
            str(path),
            n_ctx=ids.shape[1],
            n_batch=ids.shape[1],
            logits_all=True,
            verbose=False,
            type_k=FLOAT32,
            type_v=FLOAT32,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"llama.cpp cannot load {path}: {error}") from error
    try:
        _check_ids(llama, tokenizer)
        llama.eval(ids[0].tolist())
        logits = torch.from_numpy(np.array(llama.scores[: ids.shape[1]], dtype=np.float32))
    finally:
        llama.close()
    with torch.no_grad():
        own = model(ids)[0]
    gelu = "gelu" in model.config.ffn.activation
    limit = max(TOLERANCES[dtype], GELU_TOLERANCE if gelu else 0.0)
    return compare(own, logits, limit, "llama.cpp")


def _check_ids(llama: Any, tokenizer: Tokenizer) -> None:
    specials = "".join(f"{name} {SAMPLE[:20]}" for name in tokenizer.special_tokens)
    for text in (SAMPLE, specials):
        own = tokenizer.encode(text)
        theirs = llama.tokenize(text.encode(), add_bos=False, special=True)
        if own != theirs:
            raise UserError(different_tokens(tokenizer, own, theirs, "llama.cpp"))
