"""Vocabularies on disk: lmlab's folder, and GPT-2's `vocab.json` + `merges.txt` inside it.

The folder holds GPT-2's two files, which other programs read too, and `lmlab_tokenizer.json` with
what they cannot say: pattern, special tokens, and checksums that notice a cut or exchanged file. A
template of conversations is `chat_template.jinja`.
"""

import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lmlab.errors import DataError
from lmlab.files import is_plain_file
from lmlab.tokenizer.outputs import writing
from lmlab.tokenizer.pretokenize import PLAIN, Cutting
from lmlab.tokenizer.vocabulary import Pair, Vocabulary

META, VOCAB, MERGES = "lmlab_tokenizer.json", "vocab.json", "merges.txt"
TEMPLATE = "chat_template.jinja"
"""Named as Hugging Face's tokenizers name it."""
_FORMAT = "lmlab byte-level BPE, version 1"


@functools.cache
def byte_alphabet() -> tuple[str, ...]:
    """The printable character of each byte, as GPT-2 writes it.

    Bytes that print as themselves in Latin-1 stay; the rest are counted up from U+0100, so that a
    space is `Ġ` and no token holds white space.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


@functools.cache
def _bytes_of() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_alphabet())}


def to_printable(token: bytes) -> str:
    """`token` in GPT-2's printable byte alphabet."""
    return token.decode("latin-1").translate(_translation())


@functools.cache
def _translation() -> dict[int, str]:
    return dict(enumerate(byte_alphabet()))


def from_printable(text: str) -> bytes:
    """The inverse of `to_printable`; KeyError for a character that is not in the alphabet."""
    table = _bytes_of()
    return bytes([table[character] for character in text])


def token_from_printable(text: str) -> bytes:
    """Like `from_printable`, but text outside the alphabet, an added token, means itself."""
    try:
        return from_printable(text)
    except KeyError:
        return text.encode()


def read_text(path: Path) -> str:
    """The text of a vocabulary file; a missing, unreadable or binary one is a DataError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a vocabulary: no UTF-8 at byte {error.start}") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object; anything else is a DataError."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise DataError(f"{path}: not JSON, or cut short: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: should hold a JSON object, not a {type(value).__name__}")
    return value


def tokens_from_json(
    path: Path, vocab: Mapping[str, Any], literal: Collection[str] = ()
) -> dict[int, bytes]:
    """Tokens by id from a mapping of printable token to id; doubtful ids are a DataError.

    `literal` are the special tokens among them, which stand there as they are.
    """
    tokens: dict[int, bytes] = {}
    for text, i in vocab.items():
        if type(i) is not int or i < 0 or i in tokens:
            raise DataError(f"{path}: token {text!r} has no usable id of its own: {i!r}")
        try:
            tokens[i] = text.encode() if text in literal else token_from_printable(text)
        except UnicodeEncodeError:
            raise DataError(f"{path}: token {text!a} is no Unicode text") from None
    return tokens


def merge_from_printable(path: Path, where: str, parts: Sequence[Any]) -> Pair:
    """One merge from its two printable tokens; anything else is a DataError."""
    try:
        left, right = parts
        return from_printable(left), from_printable(right)
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{path}: {where} is no merge of two byte-level tokens: {' '.join(map(str, parts))!r}"
        ) from None


def read_gpt2(
    vocab_path: Path,
    merges_path: Path,
    special_tokens: Sequence[str] | Mapping[str, int] | None,
    pattern: str,
    ignore_merges: bool = False,
    cutting: Cutting = PLAIN,
) -> Vocabulary:
    """Read GPT-2's two files; files that are cut or do not belong together are a DataError."""
    vocab = read_json_object(vocab_path)
    lines = read_text(merges_path).split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    merges = [
        merge_from_printable(merges_path, f"line {number}", line.rstrip("\r").split(" "))
        for number, line in enumerate(lines[first:], first + 1)
        if line.strip()
    ]
    literal = _literal(vocab, merges, special_tokens or ())
    tokens = tokens_from_json(vocab_path, vocab, literal)
    try:
        vocabulary = Vocabulary.of(tokens, merges, special_tokens, pattern, ignore_merges, cutting)
    except DataError as error:
        raise DataError(f"{vocab_path}, {merges_path}: {error}") from None
    vocabulary.check_complete(str(merges_path))
    return vocabulary


def _literal(
    vocab: Mapping[str, Any],
    merges: Sequence[Pair],
    special_tokens: Sequence[str] | Mapping[str, int],
) -> set[str]:
    """The special tokens that stand in `vocab` as they are, not in the byte alphabet.

    A name that is also how an ordinary token is written, as é is byte 0xe9, is that token.
    """
    made = {left + right for left, right in merges}
    found = set()
    for name in special_tokens:
        wanted = special_tokens[name] if isinstance(special_tokens, Mapping) else vocab.get(name)
        token = token_from_printable(name)
        if name in vocab and vocab[name] == wanted and len(token) > 1 and token not in made:
            found.add(name)
    return found


def gpt2_files(vocabulary: Vocabulary) -> tuple[str, str]:
    """The text of `vocab.json` and of `merges.txt`."""
    ids: dict[str, int] = {}
    also_text = vocabulary.ordinary_ids.values()
    special = set(vocabulary.special_tokens.values()).difference(also_text)
    for i, token in sorted(vocabulary.tokens.items()):
        if i not in special:
            ids.setdefault(to_printable(token), i)
    for name, i in vocabulary.special_tokens.items():
        if i in special:
            ids.setdefault(name, i)
    merges = [f"{to_printable(left)} {to_printable(right)}\n" for left, right in vocabulary.merges]
    return json.dumps(ids, ensure_ascii=False), "".join(["#version: 0.2\n", *merges])


def save_folder(vocabulary: Vocabulary, folder: Path) -> None:
    """Write the folder; `lmlab_tokenizer.json` comes last and vouches for the other two."""
    vocab, merges = gpt2_files(vocabulary)
    files = {VOCAB: vocab, MERGES: merges}
    if vocabulary.chat_template is not None:
        files[TEMPLATE] = vocabulary.chat_template
    meta = {
        "format": _FORMAT,
        "pattern": vocabulary.pattern,
        "special_tokens": vocabulary.special_tokens,
        "ignore_merges": vocabulary.ignore_merges,
        **asdict(vocabulary.cutting),
        "vocab_size": vocabulary.size,
        "sha256": {name: _sha256(text) for name, text in files.items()},
    }
    for name, text in (files | {META: json.dumps(meta, indent=2) + "\n"}).items():
        with writing(folder / name) as file:
            file.write(text)


def load_folder(folder: Path) -> Vocabulary:
    """Read what `save_folder` wrote; a folder that is not whole is a DataError."""
    if not is_plain_file(folder / META):
        raise DataError(f"{folder}: no tokenizer is saved here ({META} is missing)")
    meta = read_json_object(folder / META)
    if meta.get("format") != _FORMAT:
        raise DataError(f"{folder / META}: format {meta.get('format')!r} is not {_FORMAT!r}")
    try:
        pattern, special, checksums = meta["pattern"], meta["special_tokens"], meta["sha256"]
        kept = (VOCAB, MERGES, *([TEMPLATE] if TEMPLATE in checksums else []))
        expected = {name: checksums[name] for name in kept}
        if not isinstance(pattern, str) or not isinstance(special, dict):
            raise TypeError
        if not all(type(i) is int for i in special.values()):
            raise TypeError
        ignore_merges = meta.get("ignore_merges", False)
        nfc, isolate = meta.get("nfc", False), meta.get("isolate", False)
        if not all(isinstance(flag, bool) for flag in (ignore_merges, nfc, isolate)):
            raise TypeError
        before = tuple(meta.get("before", ()))
        if not all(isinstance(step, str) for step in before):
            raise TypeError
    except (KeyError, TypeError):
        raise DataError(f"{folder / META}: incomplete; save the tokenizer again") from None
    for name, checksum in expected.items():
        if _sha256(read_text(folder / name)) != checksum:
            raise DataError(f"{folder / name}: changed or cut since it was saved; save it again")
    vocabulary = read_gpt2(
        folder / VOCAB,
        folder / MERGES,
        special,
        pattern,
        ignore_merges,
        Cutting(nfc, before, isolate),
    )
    if TEMPLATE not in expected:
        return vocabulary
    return replace(vocabulary, chat_template=read_text(folder / TEMPLATE))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
