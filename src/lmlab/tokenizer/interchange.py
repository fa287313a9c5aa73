"""Hugging Face's `tokenizer.json`, out and in."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import regex

from lmlab.errors import DataError, UserError
from lmlab.tokenizer.dialects import from_oniguruma, to_oniguruma
from lmlab.tokenizer.formats import (
    from_printable,
    merge_from_printable,
    read_json_object,
    to_printable,
    tokens_from_json,
)
from lmlab.tokenizer.outputs import writing
from lmlab.tokenizer.pretokenize import PATTERNS, PLAIN, Cutting
from lmlab.tokenizer.vocabulary import Pair, Vocabulary


def write_huggingface(vocabulary: Vocabulary, path: Path) -> None:
    """Write a `tokenizer.json` that the `tokenizers` and `transformers` packages load."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    splits = [
        {
            "type": "Split",
            "pattern": {"Regex": PATTERNS.get(pattern) or _exported(path, pattern)},
            "behavior": "Isolated",
            "invert": False,
        }
        for pattern in (*vocabulary.cutting.before, vocabulary.pattern)
    ]
    ids: dict[str, int] = {}
    special_ids = set(vocabulary.special_tokens.values())
    for i, token in sorted(vocabulary.tokens.items()):
        if i not in special_ids:
            ids.setdefault(to_printable(token), i)
    for name, i in vocabulary.special_tokens.items():
        if ids.setdefault(name, i) != i:
            raise UserError(
                f"{path}: tokenizer.json cannot hold the special token {name!r}: an ordinary "
                f"token, {ids[name]}, is written the same"
            )
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for name, i in sorted(vocabulary.special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": {"type": "NFC"} if vocabulary.cutting.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": vocabulary.ignore_merges,
            "vocab": ids,
            "merges": [[to_printable(a), to_printable(b)] for a, b in vocabulary.merges],
        },
    }
    with writing(path) as file:
        json.dump(content, file, ensure_ascii=False)


def _exported(path: Path, pattern: str) -> str:
    try:
        return to_oniguruma(pattern)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_huggingface(path: Path) -> Vocabulary:
    """Read a byte-level BPE `tokenizer.json`; other kinds of tokenizer are a DataError.

    Every added token becomes a special token. Post-processing (a token put in front) is left out.
    """
    content = read_json_object(path)
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise DataError(f"{path}: not a BPE tokenizer.json (its model has no merges)")
    for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise DataError(f"{path}: model.{key} = {model[key]!r} is not byte-level BPE")
    if model.get("byte_fallback"):
        raise DataError(f"{path}: byte_fallback is not byte-level BPE")
    nfc = _is_nfc(path, content.get("normalizer"))
    pattern, cutting = _huggingface_cutting(path, content.get("pre_tokenizer"), nfc)
    special = _added_tokens(path, content.get("added_tokens") or (), nfc)
    try:
        ordinary = {token: i for token, i in model["vocab"].items() if special.get(token) != i}
        merges = [
            merge_from_printable(
                path, f"merge {number}", merge.split(" ") if isinstance(merge, str) else merge
            )
            for number, merge in enumerate(model["merges"], 1)
        ]
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: vocab or merges is not as expected") from None
    ignore_merges = bool(model.get("ignore_merges"))
    if ignore_merges:
        _check_byte_level(path, ordinary)
    tokens = tokens_from_json(path, ordinary)
    return assemble(path, tokens, merges, special, pattern, ignore_merges, cutting)


def _is_nfc(path: Path, normalizer: Any) -> bool:
    """Whether a normalizer is NFC; False without one, and others are a DataError."""
    kind = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
    if kind == "Sequence":
        steps = normalizer.get("normalizers")
        if isinstance(steps, list) and len(steps) < 2:
            return bool(steps) and _is_nfc(path, steps[0])
    if kind not in (None, "NFC"):
        raise DataError(f"{path}: a normalizer other than NFC, {kind!r}, is not supported")
    return kind == "NFC"


def _check_byte_level(path: Path, tokens: Iterable[str]) -> None:
    """Raise a DataError for a token that is written as no pretoken is, but has the bytes of one."""
    for token in tokens:
        try:
            from_printable(token)
        except KeyError:
            raise DataError(
                f"{path}: token {token!r} is not written in bytes, as model.ignore_merges needs it"
            ) from None


def _added_tokens(path: Path, added: Any, nfc: bool) -> dict[str, int]:
    """The ids of the added tokens, each of which stays whole wherever it stands."""
    special: dict[str, int] = {}
    try:
        for token in added:
            name, i = token["content"], token["id"]
            if type(name) is not str or type(i) is not int:
                raise TypeError
            for flag in ("single_word", "lstrip", "rstrip"):
                if token.get(flag):
                    raise DataError(
                        f"{path}: added token {name!r} has {flag}, which is not supported"
                    )
            if nfc and token.get("normalized"):
                raise DataError(
                    f"{path}: added token {name!r} is normalized, which is not supported with NFC"
                )
            special[name] = i
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: added_tokens is not as expected") from None
    return special


def _huggingface_cutting(path: Path, pre_tokenizer: Any, nfc: bool) -> tuple[str, Cutting]:
    """The last pattern and what comes before it, of a `pre_tokenizer` of Splits and ByteLevel."""
    patterns: list[str] = []
    kept = True  # text that the last Split leaves out is kept
    try:
        *splits, byte_level = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
        if byte_level["type"] != "ByteLevel" or byte_level.get("add_prefix_space", True):
            raise KeyError
        for split in splits:
            inverted = bool(split.get("invert"))
            kept = split["behavior"] == "Isolated"
            if split["type"] != "Split" or (not kept and split["behavior"] != "Removed"):
                raise KeyError
            if inverted == kept or not (kept or len(splits) == 1):
                raise KeyError
            if "String" in split["pattern"]:
                patterns.append(regex.escape(split["pattern"]["String"]))
            else:
                patterns.append(_imported(split["pattern"]["Regex"]))
        if byte_level.get("use_regex", True):
            patterns.append("gpt2")
            if not kept:
                raise KeyError
        *before, last = patterns
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(
            f"{path}: its pre_tokenizer is neither ByteLevel nor Splits by regular expressions "
            "(Isolated) followed by ByteLevel (without add_prefix_space)"
        ) from None
    except UserError as error:
        raise DataError(f"{path}: {error}") from None
    return last, Cutting(nfc, tuple(before), isolate=bool(splits) and kept)


def _imported(pattern: str) -> str:
    if pattern in PATTERNS.values():
        return pattern
    return from_oniguruma(pattern)


def assemble(
    path: Path,
    tokens: Mapping[int, bytes],
    merges: Sequence[Pair],
    special_tokens: Sequence[str] | Mapping[str, int] | None,
    pattern: str,
    ignore_merges: bool = False,
    cutting: Cutting = PLAIN,
) -> Vocabulary:
    """A vocabulary read from `path`; a DataError names the file."""
    try:
        return Vocabulary.of(tokens, merges, special_tokens, pattern, ignore_merges, cutting)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
