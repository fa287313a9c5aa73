"""Byte-level BPE: training, encoding, decoding, and the formats vocabularies come in."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.tokenizer.bpe import Tokenizer, byte_tokenizer
    from lmlab.tokenizer.building import build, identify
    from lmlab.tokenizer.train import train_bpe
    from lmlab.tokenizer.word import WordTokenizer

__all__ = ["Tokenizer", "WordTokenizer", "build", "byte_tokenizer", "identify", "train_bpe"]

__getattr__ = lazy_exports(
    __name__,
    {
        "bpe": ("Tokenizer", "byte_tokenizer"),
        "building": ("build", "identify"),
        "train": ("train_bpe",),
        "word": ("WordTokenizer",),
    },
)
