"""The tokenizer of a folder of transformers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmlab.errors import DataError, UserError
from lmlab.export.verify import their_tokenizer
from lmlab.loading import END_OF_DOCUMENT
from lmlab.tokenizer import Tokenizer

NO_BYTE_LEVEL = (
    "only byte-level BPE (tokenizer.json, or vocab.json with merges.txt) can be imported, and a "
    "run needs its tokenizer"
)


@dataclass(frozen=True)
class Notes:
    """What is different from the folder's tokenizer."""

    texts: tuple[str, ...]
    renamed: Mapping[str, str]
    """Special token there -> here."""


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, Notes]:
    """Return the tokenizer; its end of a text is called `<|endoftext|>` here.

    `config` are the fields of config.json. Raises UserError when there is none, or one that is no
    byte-level BPE.
    """
    tokenizer = _read(folder)
    if END_OF_DOCUMENT in tokenizer.special_tokens:
        return tokenizer.extended([], _template(folder, {})), Notes((), {})
    ends = config.get("eos_token_id")
    end = ends[0] if isinstance(ends, list) and ends else ends
    names = {i: name for name, i in tokenizer.special_tokens.items()}
    if end not in names:
        raise UserError(
            f"{folder}: its tokenizer has no {END_OF_DOCUMENT}, and eos_token_id={end} of "
            "config.json is no special token that could be it"
        )
    old = names[end]
    notes = [f"{old} is called {END_OF_DOCUMENT} here, which ends and begins documents"]
    begin = config.get("bos_token_id")
    if begin is not None and begin != end and begin in names:
        notes.append(f"the model was trained with {names[begin]} before each document")
    renamed = {old: END_OF_DOCUMENT}
    tokenizer = tokenizer.with_special_token_renamed(old, END_OF_DOCUMENT)
    return tokenizer.extended([], _template(folder, renamed)), Notes(tuple(notes), renamed)


def _template(folder: Path, renamed: Mapping[str, str]) -> str | None:
    """Return the chat template of a folder, with the names that its special tokens have here.

    A template that uses `bos_token` or `eos_token` sets them itself where they are other tokens
    than `<|endoftext|>`, which they are in every template here.
    """
    theirs = their_tokenizer(folder)
    source = theirs.chat_template
    if isinstance(source, dict):  # several by name
        source = source.get("default")
    if source is None:
        return None
    for there, here in renamed.items():
        source = source.replace(there, here)
    for variable in ("eos_token", "bos_token"):
        token = getattr(theirs, variable) or ""
        value = renamed.get(token, token)
        if variable in source and value != END_OF_DOCUMENT:
            quoted = json.dumps(value, ensure_ascii=False)
            source = f"{{% set {variable} = {quoted} %}}\n{source}"
    return str(source)


def _read(folder: Path) -> Tokenizer:
    whole, vocab, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    try:
        if whole.is_file():
            return Tokenizer.from_huggingface(whole)
        if vocab.is_file() and merges.is_file():
            return Tokenizer.from_files(vocab, merges, [END_OF_DOCUMENT])
    except DataError as error:
        raise UserError(f"{error}; {NO_BYTE_LEVEL}") from error
    if any(folder.glob("*.model")):
        raise UserError(f"{folder}: its tokenizer is SentencePiece; {NO_BYTE_LEVEL}")
    raise UserError(f"{folder} has no tokenizer; {NO_BYTE_LEVEL}")
