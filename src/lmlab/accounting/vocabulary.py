"""How many ids a configured tokenizer will have, before it is trained or loaded."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmlab.tokenizer.config import TokenizerConfig

GPT2_VOCABULARY = 50257


def declared_vocab_size(tokenizer: "TokenizerConfig") -> int:
    """Return the vocabulary that the tokenizer will have; on little text a bpe gets less."""
    if tokenizer.kind == "bpe":
        return tokenizer.vocab_size
    return 256 + len(tokenizer.special_tokens) if tokenizer.kind == "byte" else GPT2_VOCABULARY
