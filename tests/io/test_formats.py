"""Text, JSON lines or other JSON: by name and content."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.io.formats import recognize_format

LINES = b'{"text": "one"}\n{"text": "two"}\n'


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a", "a.JSONL", "a.jl", "a.ndjson.gz"])
@pytest.mark.parametrize("head", [LINES, b"\xef\xbb\xbf\n" + LINES, LINES[:15], LINES[:9]])
def test_json_lines(name: str, head: bytes) -> None:
    assert recognize_format(Path(name), head) == "jsonl"


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.jl", "a.NDJSON", "a.jsonl.GZ"])
def test_a_name_for_json_lines_is_believed(name: str) -> None:
    assert recognize_format(Path(name), b"some text") == "jsonl"


@pytest.mark.parametrize("rows", [[{"text": "one"}], {"text": "one"}, [{"a": [1, {"b": 2}]}]])
@pytest.mark.parametrize("name", ["a.json", "a.txt"])
def test_other_json(name: str, rows: object) -> None:
    assert recognize_format(Path(name), json.dumps(rows, indent=2).encode()) == "json"


def test_a_name_for_json_that_is_none_is_not_text() -> None:
    assert recognize_format(Path("a.json"), b"some text") == "json"
    assert recognize_format(Path("a.json.gz"), b'["one", "two"]') == "json"
    assert recognize_format(Path("a.json"), b"") == "text"


@pytest.mark.parametrize(
    "text", ["{ x = 1 }", "[1] A footnote", '"Hello," he said.', '["a", "b"]', '{"a", "b"}', "{}"]
)
def test_text_that_begins_like_json(text: str) -> None:
    assert recognize_format(Path("a.txt"), text.encode()) == "text"


@given(
    rows=st.lists(
        st.dictionaries(st.text(), st.text() | st.integers(), min_size=1), min_size=1, max_size=3
    ),
    name=st.sampled_from(["a.json", "a.txt", "a.jsonl"]),
    ascii=st.booleans(),
)
def test_any_objects_are_json_lines(rows: list[dict[str, object]], name: str, ascii: bool) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    assert recognize_format(Path(name), text.encode(errors="surrogatepass")) == "jsonl"
