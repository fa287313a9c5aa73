"""Multiple choice against sums by hand; the files it is read from."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_runs import MakeRun

from lmlab.errors import DataError, UserError
from lmlab.evaluation import Question, Scorer, answer_questions, read_questions
from lmlab.evaluation.pairs import encode_pair
from lmlab.loading import TrainedRun
from lmlab.tokenizer import Tokenizer

QUESTIONS = [
    Question("the cat sees the", ("moon", "ship", "a"), 0, "q:1"),
    Question("a dog ", ("sails over", "sees"), 1, "q:2"),
    Question("old", (" sun", ", new", " sea", " Größe"), 2, "q:3"),
    Question("", ("the", "blue ship"), 0, "q:4"),
]
CONTINUATIONS = [
    [" moon", " ship", " a"],
    [" sails over", " sees"],  # the space moves from the context
    [" sun", " , new", " sea", " Größe"],
    ["the", "blue ship"],
]
CONTEXTS = ["the cat sees the", "a dog", "old", ""]


@torch.no_grad()
def log_prob(run: TrainedRun, context: str, continuation: str) -> float:
    """The sum over the continuation's tokens, from one forward pass."""
    end = run.tokenizer.special_tokens["<|endoftext|>"]
    before = run.tokenizer.encode(context) or [end]
    ids = before + run.tokenizer.encode(continuation)
    rows = torch.log_softmax(run.model(torch.tensor([ids]))[0].double(), dim=-1)
    return sum(float(rows[i - 1, ids[i]]) for i in range(len(before), len(ids)))


@pytest.mark.parametrize("kind", ["run", "bpe_run"])
def test_scores_are_sums_by_hand(kind: str, request: pytest.FixtureRequest) -> None:
    run: TrainedRun = request.getfixturevalue(kind)
    done: list[int] = []
    result = answer_questions(Scorer(run, batch_size=1), QUESTIONS, advance=done.append)
    for question, context, texts, scores in zip(
        QUESTIONS, CONTEXTS, CONTINUATIONS, result.scores, strict=True
    ):
        sums = np.array([log_prob(run, context, text) for text in texts])
        alone = np.array([log_prob(run, "", text) for text in texts])
        tokens = np.array([len(run.tokenizer.encode(text)) for text in texts])
        sizes = np.array([len(choice.encode()) for choice in question.choices])
        expected = [sums, sums / tokens, sums / sizes, sums - alone]
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    answers = [question.answer for question in QUESTIONS]
    best = np.array([scores.argmax(axis=1) for scores in result.scores]).T
    assert result.correct.tolist() == (best == answers).tolist()
    assert result.accuracy("per_token").value == (best[1] == answers).mean()
    assert result.chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 4 + 1 / 2) / 4)
    assert (result.cropped, sum(done)) == (0, 4)


def test_accuracies_have_the_error_of_a_mean_and_differences_are_paired(run: TrainedRun) -> None:
    result = answer_questions(Scorer(run), QUESTIONS * 5)
    correct = result.correct[0].astype(float)
    assert result.accuracy("sum").error == pytest.approx(correct.std(ddof=1) / np.sqrt(20))
    same = result.minus(result, "sum")
    assert (same.value, same.error) == (0, 0)


def test_the_scorings_can_disagree(run: TrainedRun) -> None:
    result = answer_questions(Scorer(run), QUESTIONS)
    best = np.array([scores.argmax(axis=1) for scores in result.scores])
    assert len({tuple(column) for column in best.T.tolist()}) > 1


def test_a_long_context_is_cropped_from_the_left_and_counted_once(run: TrainedRun) -> None:
    long = Question("x" * 100 + "the cat sees the moon and the", ("sea", "sun"), 0, "q:1")
    short = Question(("x" * 100 + "the cat sees the moon and the")[-29:], ("sea", "sun"), 0, "q:1")
    result = answer_questions(Scorer(run), [long, short])
    assert result.cropped == 1
    np.testing.assert_allclose(result.scores[0], result.scores[1], rtol=1e-6)


def test_a_choice_longer_than_the_context_is_refused(run: TrainedRun) -> None:
    question = Question("a", ("b", "c" * 40), 0, "questions.jsonl:7")
    with pytest.raises(UserError, match=r"^questions\.jsonl:7: .* 41 tokens .* 32 tokens$"):
        answer_questions(Scorer(run), [question])


def test_white_space_moves_to_the_continuation(bpe: Tokenizer) -> None:
    pair = encode_pair(bpe, "the cat \n", "sees")
    assert pair.context == bpe.encode("the cat")
    assert bpe.decode(pair.continuation) == " \nsees"
    assert encode_pair(bpe, "  ", "a").context == []
    # A continuation that merges into the context's last token is encoded apart.
    whole = bpe.encode("th") + bpe.encode("e")
    merged = encode_pair(bpe, "th", "e")
    assert len(bpe.encode("the")) == 1
    assert [*merged.context, *merged.continuation] == whole


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


GOOD = {"question": "q", "choices": ["a", "b"], "answer": 1}


def test_questions_are_read_with_indices_letters_and_gzip(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl",
        "\ufeff" + json.dumps(GOOD | {"subject": "ignored"}),
        "",
        {"context": "ü", "choices": ["a", "b", "c"], "answer": "C"},
        {"context": "", "choices": ["a", "b"], "answer": " a"},
    )
    questions = read_questions(path)
    assert [(q.context, q.answer) for q in questions] == [("q", 1), ("ü", 2), ("", 0)]
    assert questions[1].source == f"{path}:3"
    assert len(read_questions(path, limit=2)) == 2
    packed = tmp_path / "q.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [q.context for q in read_questions(packed)] == ["q", "ü", ""]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{not json", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ({"choices": ["a", "b"], "answer": 0}, "needs one of the fields 'question' and 'context'"),
        (GOOD | {"context": "c"}, "needs one of the fields"),
        (GOOD | {"question": 3}, "'question' must be a text, got 3"),
        ({"question": "q", "answer": 0}, "'choices' must be a list of two texts or more, is miss"),
        (GOOD | {"choices": ["a"]}, "'choices' must be a list of two texts or more, got"),
        (GOOD | {"choices": "ab"}, "'choices' must be a list"),
        (GOOD | {"choices": ["a", 2]}, "a choice must be a text, got 2"),
        (GOOD | {"choices": ["a", " "]}, "a choice is empty"),
        (GOOD | {"choices": ["a", "\ud800"]}, "a choice has half a surrogate pair"),
        (GOOD | {"answer": 2}, "'answer' must be an index from 0 to 1 or a letter .* B, got 2"),
        (GOOD | {"answer": -1}, "got -1"),
        (GOOD | {"answer": "C"}, 'got "C"'),
        (GOOD | {"answer": "1"}, 'got "1"'),
        (GOOD | {"answer": True}, "got true"),
        (GOOD | {"answer": 1.0}, "got 1.0"),
        ({"question": "q", "choices": ["a", "b"]}, "'answer' .* is missing"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path / "q.jsonl", GOOD, row)
    with pytest.raises(DataError, match=message) as raised:
        read_questions(path)
    assert str(raised.value).startswith(f"{path}:2: ")
    assert "\n" not in str(raised.value)


def test_files_that_hold_no_questions_are_named(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", "")
    with pytest.raises(DataError, match=r"empty\.jsonl: holds no question"):
        read_questions(empty)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(json.dumps(GOOD).encode() + b'\n{"question": "\xe9"}\n')
    with pytest.raises(DataError, match=r"latin\.jsonl:2: invalid UTF-8 at byte 14 of the line"):
        read_questions(latin)


def test_of_equal_choices_the_first_is_taken(make_run: MakeRun) -> None:
    question = Question("the", ("cat", "cat"), 1, "q:1")
    result = answer_questions(Scorer(make_run()), [question])
    assert not result.correct.any()
