"""Whether a file holds plain text or JSON lines, by its name and by how its content begins."""

import json
import re
from pathlib import Path
from typing import Literal

from lmlab.io.compression import SUFFIXES

Format = Literal["text", "jsonl", "json"]
"""`json`: JSON that is not one object a line, such as an array or an indented object."""

BOM = b"\xef\xbb\xbf"
_JSON_LINES = (".jsonl", ".ndjson", ".jl")
_OBJECT = rb'\{\s*"(?:[^"\\]|\\.)*"\s*:'
_BEGINS_OBJECT = re.compile(_OBJECT, re.DOTALL)
_BEGINS_ARRAY = re.compile(rb"\[\s*" + _OBJECT, re.DOTALL)


def recognize_format(path: Path, head: bytes) -> Format:
    """Return the format of the file `path`, whose decompressed content begins with `head`.

    Names that end in .jsonl, .ndjson or .jl, in any case and also compressed, mean JSON lines. Any
    other file is JSON lines when its first line is a JSON object. It is `json` when it begins like
    an object or an array of objects, or is named .json. Everything else is text.
    """
    name = path.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    if name.endswith(_JSON_LINES):
        return "jsonl"
    content = head.removeprefix(BOM).lstrip()
    if _BEGINS_OBJECT.match(content):
        line, line_end, _ = content.partition(b"\n")
        # A line longer than the head cannot be judged; reading it names what is wrong with it.
        return "jsonl" if not line_end or _is_object(line) else "json"
    if _BEGINS_ARRAY.match(content) or (content and name.endswith(".json")):
        return "json"
    return "text"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
