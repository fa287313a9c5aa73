"""Rows of files become examples; a bad row is one line that names it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lmlab.alignment.examples import Converter, is_conversation
from lmlab.alignment.rows import Row, read_rows, split_rows
from lmlab.alignment.templates import CHATML, Template
from lmlab.errors import DataError

CONVERT = Converter(Template(CHATML), "Q: {prompt}\n")
USER, REPLY = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}
GIVEN = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
LEARNT = "yes<|im_end|>\n"


def row(**values: Any) -> Row:
    return Row(values, "a.jsonl:3")


@pytest.mark.parametrize(
    ("values", "given", "learnt"),
    [
        ({"messages": [USER, REPLY]}, GIVEN, LEARNT),
        (
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]},
            GIVEN,
            LEARNT,
        ),
        ({"instruction": "hi", "output": "yes"}, GIVEN, LEARNT),
        ({"instruction": "hi", "input": "", "output": "yes"}, GIVEN, LEARNT),
        (
            {"instruction": "Add", "input": "1 2", "output": "3"},
            "<|im_start|>user\nAdd\n\n1 2<|im_end|>\n<|im_start|>assistant\n",
            "3<|im_end|>\n",
        ),
        ({"prompt": [USER], "completion": [REPLY]}, GIVEN, LEARNT),
        ({"prompt": "1+1", "completion": "2"}, "Q: 1+1\n", "2<|endoftext|>"),
        ({"prompt": "1+1", "completion": "2<|endoftext|>"}, "Q: 1+1\n", "2<|endoftext|>"),
    ],
)
def test_columns(values: dict[str, Any], given: str, learnt: str) -> None:
    pieces = CONVERT.example(row(**values)).pieces
    assert [(piece.text, piece.learned) for piece in pieces] == [(given, False), (learnt, True)]
    assert is_conversation(row(**values)) == ("Q: " not in given)


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": [USER], "chosen": [REPLY], "rejected": [REPLY | {"content": "no"}]},
        {"chosen": [USER, REPLY], "rejected": [USER, REPLY | {"content": "no"}]},
    ],
)
def test_pairs_of_conversations(values: dict[str, Any]) -> None:
    pair = CONVERT.pair(row(**values))
    assert [piece.text for piece in pair.chosen.pieces] == [GIVEN, LEARNT]
    assert [piece.text for piece in pair.rejected.pieces] == [GIVEN, "no<|im_end|>\n"]


def test_pairs_of_texts() -> None:
    pair = CONVERT.pair(row(prompt="1+1", chosen="2", rejected="3"))
    assert [piece.text for piece in pair.chosen.pieces] == ["Q: 1+1\n", "2<|endoftext|>"]
    assert [piece.text for piece in pair.rejected.pieces] == ["Q: 1+1\n", "3<|endoftext|>"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"text": "hi"}, "has neither messages, conversations, prompt and completion, or instr"),
        ({}, r"\(there is nothing\)"),
        ({"messages": "hi"}, "messages must be a list of messages"),
        ({"messages": []}, "messages must be a list of messages"),
        ({"messages": [{"role": "user"}]}, "each of messages needs the texts role and content"),
        ({"messages": [USER]}, "has no message of the assistant to learn"),
        ({"messages": [USER, REPLY | {"content": " "}]}, "a message of the assistant is empty"),
        ({"prompt": "a", "completion": ""}, "completion is empty"),
        ({"prompt": "a", "completion": [REPLY]}, "must both be text, or both lists of messages"),
        ({"prompt": "a", "completion": 3}, "must both be text"),
        ({"instruction": "a", "output": None}, "output must be text"),
    ],
)
def test_bad_demonstrations(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.jsonl:3: .*{problem}"):
        CONVERT.example(row(**values))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"prompt": "a", "chosen": "b"}, "needs prompt, chosen and rejected, or"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "rejected is empty"),
        ({"chosen": "b", "rejected": "c"}, "without prompt, .* must be lists of messages"),
        (
            {"chosen": [USER, REPLY], "rejected": [REPLY, USER]},
            "chosen and rejected begin differently",
        ),
    ],
)
def test_bad_pairs(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.jsonl:3: {problem}"):
        CONVERT.pair(row(**values))


def test_a_template_that_refuses_names_the_row() -> None:
    convert = Converter(Template("{{ raise_exception('no system') }}"))
    with pytest.raises(DataError, match=r"^a\.jsonl:3: the chat template refuses it: no system"):
        convert.example(row(messages=[USER, REPLY]))


def test_rows_of_files(tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"é{i}", "answer": "2"}, ensure_ascii=False) for i in "ab"]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(lines).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines[0].encode()))
    rows = read_rows("key", [f"{tmp_path}/*"], {"question": "prompt"})
    assert [row.values for row in rows] == [
        {"prompt": "éa", "answer": "2"},
        {"prompt": "éb", "answer": "2"},
        {"prompt": "éa", "answer": "2"},
    ]
    assert [row.place.rpartition("/")[2] for row in rows] == [
        "a.jsonl:1",
        "a.jsonl:3",
        "b.jsonl.gz:1",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "a.jsonl: holds no rows; one JSON object a line"),
        (b'{"a": 1}\n{', "a.jsonl:2: not a JSON object"),
        (b"[1]", "a.jsonl:1: not a JSON object, but list"),
        (b'{"a": "\xff"}', r"a.jsonl: not UTF-8"),
    ],
)
def test_bad_files(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read_rows("key", [str(tmp_path)], {})


def test_equal_rows_are_on_one_side() -> None:
    rows = [Row({"prompt": f"{i % 500}", "completion": "x"}, f"a:{i}") for i in range(1000)]
    alone = [row.values["prompt"] for row in rows]
    train, held_out = split_rows(rows, 0.2, alone)
    assert not {row.values["prompt"] for row in train} & {r.values["prompt"] for r in held_out}
    assert len(train) + len(held_out) == 1000
    assert 0.1 < len(held_out) / 1000 < 0.3
    assert split_rows(rows[::-1], 0.2, alone[::-1])[1] == held_out[::-1]


@pytest.mark.parametrize("order", [1, -1])
def test_rows_of_one_prompt_are_on_one_side(order: int) -> None:
    rows = [Row({"prompt": i // 3, "completion": f"{i}"}, f"a:{i}") for i in range(900)][::order]
    train, held_out = split_rows(rows, 0.2, [str(row.values["prompt"]) for row in rows])
    assert not {row.values["prompt"] for row in train} & {r.values["prompt"] for r in held_out}
    assert 0.1 < len(held_out) / 900 < 0.3


@pytest.mark.parametrize("prompt", ["", "Write a story."])
def test_rows_that_share_one_prompt_are_divided_anyway(prompt: str) -> None:
    rows = [Row({"prompt": prompt, "completion": f"{i}"}, f"a:{i}") for i in range(900)]
    _, held_out = split_rows(rows, 0.2, [prompt] * 900)
    assert 0.1 < len(held_out) / 900 < 0.3
    with_others = [Row({"prompt": f"{i}", "completion": "x"}, f"b:{i}") for i in range(9)]
    prompts = [str(row.values["prompt"]) for row in [*rows, *with_others]]
    _, held_out = split_rows([*rows, *with_others], 0.2, prompts)
    assert (prompt == "") == (0.1 < len(held_out) / 900 < 0.3)
