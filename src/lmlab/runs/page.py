"""What the pages of runs share: templates, plotly.js, the format of numbers and text."""

import base64
import gzip
import re
from functools import cache
from pathlib import Path
from typing import Any

from lmlab import text

_TEMPLATES = Path(__file__).parent / "templates"
# What a browser drops, what acts on the text around it, what UTF-8 cannot hold.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def environment(*folders: Path) -> Any:
    """Return the jinja2 environment of the templates, and of those in further folders.

    Undefined names are errors.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "count": count, "duration": duration}
    return environment


@cache
def plotly() -> str:
    """Return plotly.js, gzipped and in base64: 2.0 MB in place of 4.8."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def visible(content: str) -> str:
    """Show control characters as what Unicode has for them, instead of letting them act."""

    def picture(match: re.Match[str]) -> str:
        code = ord(match[0])
        if code < 0x20:
            return chr(0x2400 + code)
        return "\u2421" if code == 0x7F else f"\\u{code:04x}"

    return _CONTROL.sub(picture, content)


def count(value: float | None) -> str:
    """Return a number in three or four digits: 2.14 M."""
    if value is None:
        return "–"
    for size, unit in (
        (1e21, "Z"),
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e4, "k"),
    ):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}\u202f{unit}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Return a time whose units stay on the line of their number; a dash when it is unknown."""
    return "–" if seconds is None else re.sub(" (?=[a-z])", "\u202f", text.duration(seconds))
