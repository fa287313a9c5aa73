"""A tokenizer in the keys of a GGUF file."""

from dataclasses import dataclass
from typing import Any

from lmlab.errors import UserError
from lmlab.export.tokenizer_files import reply_end
from lmlab.loading import END_OF_DOCUMENT
from lmlab.tokenizer import Tokenizer
from lmlab.tokenizer.formats import to_printable
from lmlab.tokenizer.pretokenize import PATTERNS

NORMAL, CONTROL, UNUSED = 1, 3, 5
"""Types of tokens."""
QWEN2 = PATTERNS["cl100k"].replace(r"\p{N}{1,3}", r"\p{N}")
PRETOKENIZERS = {"gpt2": "gpt-2", "cl100k": "dbrx", "o200k": "gpt-4o", QWEN2: "qwen2"}
"""Pattern -> the name by which llama.cpp knows it."""
NOTES = {
    "o200k": "llama.cpp tells upper from lower case in o200k by A-Z and a-z alone, so words that "
    "mix case in other letters can be cut in another way",
    "nfc": "llama.cpp does not bring text to Unicode's form NFC, as this tokenizer does",
}


@dataclass(frozen=True)
class GGUFTokenizer:
    """A tokenizer as llama.cpp reads it."""

    keys: dict[str, Any]
    """Key without `tokenizer.` -> value."""
    notes: tuple[str, ...]
    """Where llama.cpp differs."""


def gguf_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> GGUFTokenizer:
    """Return the keys of a byte-level BPE tokenizer of at most `vocab_size` tokens.

    Raises UserError when llama.cpp does not know its pattern, or it has no merges.
    """
    pattern, cutting = tokenizer.pattern, tokenizer.cutting
    if pattern not in PRETOKENIZERS or cutting.before:
        raise UserError(
            f"llama.cpp does not know how this tokenizer cuts words (pattern {pattern!r}); it "
            "knows gpt2, cl100k and o200k; train with one of them, or export to huggingface"
        )
    if not tokenizer.merges:
        raise UserError(
            "llama.cpp reads no tokenizer without merges, such as tokenizer=byte; train with "
            "tokenizer=bpe_4k, or export to huggingface"
        )
    special = {i: name for name, i in tokenizer.special_tokens.items()}
    tokens, kinds = [], []
    for i in range(vocab_size):
        token = tokenizer.vocab.get(i)
        if i in special:
            tokens.append(special[i])
            kinds.append(CONTROL)
        elif token is None:
            tokens.append(f"[PAD{i}]")
            kinds.append(UNUSED)
        else:
            tokens.append(to_printable(token))
            kinds.append(NORMAL)
    name = PRETOKENIZERS[pattern]
    if tokenizer.ignore_merges:
        name = {"dbrx": "llama-bpe", "gpt-4o": "gpt-4o"}.get(name, name)
    keys: dict[str, Any] = {
        "ggml.model": "gpt2",
        "ggml.pre": name,
        "ggml.tokens": tokens,
        "ggml.token_type": kinds,
        "ggml.merges": [f"{to_printable(a)} {to_printable(b)}" for a, b in tokenizer.merges],
        "ggml.add_bos_token": False,
        "ggml.add_eos_token": False,
    }
    if END_OF_DOCUMENT in tokenizer.special_tokens:
        end = tokenizer.special_tokens[END_OF_DOCUMENT]
        keys |= {f"ggml.{kind}_token_id": end for kind in ("bos", "eos", "padding")}
    if tokenizer.chat_template is not None:
        keys["chat_template"] = tokenizer.chat_template
    if (reply := reply_end(tokenizer)) is not None:
        keys["ggml.eot_token_id"] = reply
    notes = [NOTES[pattern]] if pattern in NOTES else []
    notes += [NOTES["nfc"]] if cutting.nfc else []
    return GGUFTokenizer(keys, tuple(notes))
