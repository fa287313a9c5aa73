"""HTML bytes to text: decoding, and the main content by a classifier of blocks."""

import html.entities
import json
from functools import cache
from pathlib import Path

from lmlab.cleaning import native
from lmlab.cleaning.extras import package

ENTITIES = {name: text for name, text in html.entities.html5.items() if name.endswith(";")}

WEIGHTS = Path(__file__).with_name("block_weights.json")
"""Written by scripts/extraction_weights.py."""


def decode_html(raw: bytes) -> str:
    """Return the bytes as text: UTF-8 where they are valid, else in the encoding detected.

    Bytes that the encoding does not have become U+FFFD.
    """
    try:
        return raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        encoding = package("resiliparse.parse.encoding", "resiliparse")
        return str(
            encoding.bytes_to_str(raw, encoding.detect_encoding(raw) or "utf-8", errors="replace")
        )


@cache
def main_content_extractor() -> native.Extractor:
    """Return the extractor with the trained weights."""
    weights = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    return native.Extractor(ENTITIES, weights["first"], weights["second"])
