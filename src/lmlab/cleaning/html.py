"""HTML bytes to text: decoding, and the main content by a classifier of blocks."""

import html.entities
import json
import re
from functools import cache
from pathlib import Path

from lmlab.cleaning import native
from lmlab.cleaning.extras import package

ENTITIES = {name: text for name, text in html.entities.html5.items() if name.endswith(";")}

WEIGHTS = Path(__file__).with_name("block_weights.json")
"""Written by scripts/extraction_weights.py."""


_META = re.compile(rb"<meta\b[^>]{0,1000}?\bcharset\s*=\s*[\"']?\s*([\w.:-]+)", re.I)
_LANGUAGE = re.compile(rb"<html\b[^>]{0,1000}?\blang\s*=\s*[\"']?\s*([a-z]+)", re.I)
_PRESCAN = 4096  # bytes in which a page may declare its encoding and language
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_UNSURE = (None, "utf-8", "utf-16-le", "utf-16-be", "cp1252")
"""Encodings that many pages declare and do not have: the bytes decide."""
_WESTERN = frozenset(b"ca da de es eu fi fo fr ga gl is it nb nl nn no pt sv".split())
"""Languages of windows-1252 alone; a page that says English may say so by default."""
_LATIN = (
    *("cp1250", "cp1254", "cp1257", "cp437", "cp850", "cp852"),
    *(f"iso8859-{part}" for part in (2, 3, 4, 9, 10, 13, 14, 16)),
)
"""Encodings that are detected where a short page in one of these languages is in windows-1252."""
_DOS_NORDIC = "cp865"  # which no page has; short pages in Faroese are taken for it
_WIDER = {"euc_kr": "cp949", "gbk": "gb18030", "shift_jis": "cp932"}
"""The Encoding Standard means more by these names than Python."""


def decode_html(raw: bytes, declared: str | None = None) -> str:
    """Return the bytes as text; those that the encoding does not have become U+FFFD.

    The encoding is UTF-8 where the bytes are, but for single ones; else the one that the server
    (`declared`) or the page's <meta> declares, where it has nearly all of the bytes; else the one
    that is detected, of those in Latin script by the page's language.
    """
    try:
        if not (raw.isascii() and b"\x1b$" in raw):  # which ISO-2022-JP has
            return raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        pass
    encoding = package("resiliparse.parse.encoding", "resiliparse")
    detected = encoding.detect_encoding(raw, html5_compatible=False)
    if detected != "utf-8" and not raw.startswith(_BYTE_ORDER_MARKS):
        meta = _META.search(raw, 0, _PRESCAN)
        for label in (declared, meta and meta[1].decode("ascii", "replace")):
            text = _decode_as(raw, encoding.map_encoding_to_html5(label or "", fallback_utf8=False))
            if text is not None:
                return text
    if detected == _DOS_NORDIC or (detected in _LATIN and _language(raw) in _WESTERN):
        detected = "cp1252"
    name = encoding.map_encoding_to_html5(detected or "cp1252", fallback_utf8=False) or detected
    name = _WIDER.get(name, name)
    # Without fallbacks, which read all of a page as cp1252 for a single byte.
    return str(encoding.bytes_to_str(raw, name, errors="replace", fallback_encodings=()))


def _language(raw: bytes) -> bytes | None:
    """Return the language that the page declares, without its region, in lower case."""
    found = _LANGUAGE.search(raw, 0, _PRESCAN)
    return found[1].lower() if found else None


def _decode_as(raw: bytes, name: str | None) -> str | None:
    """Return the text in a declared encoding; None where it is unknown, unsure or refuted."""
    if name in _UNSURE:
        return None
    text = raw.decode(_WIDER.get(str(name), str(name)), "replace")
    others = len(raw) - len(raw.translate(None, bytes(range(128, 256))))
    return text if text.count("\ufffd") <= 1 + others // 100 else None


@cache
def main_content_extractor() -> native.Extractor:
    """Return the extractor with the trained weights."""
    weights = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    return native.Extractor(ENTITIES, weights["first"], weights["second"])
