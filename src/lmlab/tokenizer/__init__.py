"""Byte-level BPE: training, encoding, decoding, and the formats vocabularies come in."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmlab.tokenizer.bpe import Tokenizer, byte_tokenizer
    from lmlab.tokenizer.build import build
    from lmlab.tokenizer.train import train_bpe
    from lmlab.tokenizer.word import WordTokenizer

__all__ = ["Tokenizer", "WordTokenizer", "build", "byte_tokenizer", "train_bpe"]

_MODULE_OF = {
    "Tokenizer": "bpe",
    "WordTokenizer": "word",
    "build": "build",
    "byte_tokenizer": "bpe",
    "train_bpe": "train",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that configurations stay light."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the function `build`, not the module of that name
    return value
