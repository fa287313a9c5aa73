"""Separators with escapes: python -m pytest tests/data/test_separator.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.data.separator import decode_separator


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"\n\n", "\n\n"),
        (r"\r\n\r\n", "\r\n\r\n"),
        (r"\n---\n", "\n---\n"),
        (r"\t\f", "\t\f"),
        (r"\\newpage", r"\newpage"),
        (r"\x5cnewpage", r"\newpage"),
        (r"\x0aewpage", "\newpage"),
        (r"\u2029", "\u2029"),
        ("\n\n", "\n\n"),
        ("<|endoftext|>", "<|endoftext|>"),
    ],
)
def test_escapes(written: str, text: str) -> None:
    assert decode_separator(written) == text


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        (r"\newpage", r"\\newpage is ambiguous; write \\x5cnewpage .* or \\x0aewpage for"),
        (r"\nEND\n", r"write \\x5cnEND"),
        (r"\section", r"\\s is not an escape.*write \\x5cs"),
        ("end\\", r"is not an escape.*write \\x5c for"),
        (r"\x4", r"\\x is not an escape"),
        (r"\ud800", "half a surrogate pair"),
    ],
)
def test_unclear_escapes_are_refused(written: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice) as caught:
        decode_separator(written)
    assert "\n" not in str(caught.value)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_every_text_can_be_written(text: str) -> None:
    assert decode_separator(text.replace("\\", r"\x5c")) == text
    assert decode_separator(text.replace("\\", r"\\")) == text
