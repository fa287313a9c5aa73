"""Problems: what is in them, and that held-out ones stay held out."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.alignment.problems import open_problems
from lmlab.alignment.problems.config import (
    AdditionConfig,
    CountdownConfig,
    ProblemFilesConfig,
    ReasoningGymConfig,
)
from lmlab.alignment.problems.problem import Problem, divided, subset
from lmlab.cli import main as lmlab
from lmlab.errors import DataError


def addition(digits: int = 2, held_out: float = 0.1) -> AdditionConfig:
    return AdditionConfig(kind="addition", digits=digits, held_out=held_out)


def countdown(count: int) -> CountdownConfig:
    return CountdownConfig(kind="countdown", numbers=3, largest=9, count=count, held_out=0.1)


@pytest.mark.parametrize(("digits", "pairs"), [(1, 100), (2, 8100)])
def test_every_sum_comes_once(digits: int, pairs: int) -> None:
    found = open_problems(addition(digits), print)
    everything = [*found.train, *found.held_out]
    assert len({problem.prompt for problem in everything}) == len(everything) == pairs
    for problem in everything:
        left, right = problem.prompt.removesuffix("=").split("+")
        assert int(left) + int(right) == int(problem.truth)
        assert problem.solution == f"{problem.truth}\n"
    assert len(found.held_out) == pytest.approx(0.1 * pairs, rel=0.5)
    parts = [
        {tuple(sorted(map(int, problem.prompt.removesuffix("=").split("+")))) for problem in part}
        for part in (found.train, found.held_out)
    ]
    assert not parts[0] & parts[1]


@given(st.integers(1, 300))
def test_a_held_out_problem_is_held_out_of_every_number_of_problems(count: int) -> None:
    few = divided((Problem(str(i), "") for i in range(count, count + 60)), 0.5)
    many = divided((Problem(str(i), "") for i in reversed(range(400))), 0.5)
    assert set(few.held_out) <= set(many.held_out)
    assert not set(many.train) & set(many.held_out)


def test_countdown_with_its_numbers_in_another_order_is_no_new_problem() -> None:
    found = open_problems(countdown(3000), print)
    parts = []
    for part in (found.train, found.held_out):
        truths = [json.loads(problem.truth) for problem in part]
        parts.append({(*sorted(truth["numbers"]), truth["target"]) for truth in truths})
    assert len(parts[0]) < len(found.train)
    assert not parts[0] & parts[1]


def test_countdown_has_solutions() -> None:
    found = open_problems(countdown(300), print)
    for problem in [*found.train, *found.held_out]:
        truth = json.loads(problem.truth)
        expression = problem.solution.strip()
        assert eval(expression) == truth["target"] > 0
        used = [int(x) for x in "".join(c if c.isdigit() else " " for c in expression).split()]
        assert sorted(used) == sorted(truth["numbers"])
        shown, target = problem.prompt.removesuffix(":").split(" > ")
        assert [int(x) for x in shown.split()] == truth["numbers"]
        assert int(target) == truth["target"]


def test_the_command_writes_what_the_task_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--demonstrations", "20")
    assert lmlab(["problems", "addition", str(tmp_path / "sums"), *few, "digits=1"]) == 0
    assert "train.jsonl" in capsys.readouterr().out
    train, shown = (
        (tmp_path / "sums" / f"{name}.jsonl").read_text().splitlines()
        for name in ("train", "demonstrations")
    )
    assert len(set(shown)) == 20
    assert set(shown) < set(train)
    files = ProblemFilesConfig(
        kind="files",
        path=tmp_path / "sums" / "train.jsonl",
        validation_path=tmp_path / "sums" / "validation.jsonl",
        prompt_field="prompt",
        answer_field="answer",
    )
    read, made = open_problems(files, print), open_problems(addition(1), print)
    assert [(p.prompt, p.truth) for p in read.train] == [(p.prompt, p.truth) for p in made.train]
    row = json.loads((tmp_path / "sums" / "train.jsonl").read_text().splitlines()[0])
    assert row["text"] == row["prompt"] + row["completion"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sums"], "unknown problems 'sums'; known: addition, countdown"),
        (["addition", "digits"], "expected KEY=VALUE"),
        (["addition", "number=3"], "expected KEY=VALUE"),
        (["addition", "digits=7"], "digits: "),
        (["addition", "digits=["], "'digits=[': the value is not YAML"),
        (["addition", "digits=1", "--demonstrations=99"], "--demonstrations must be from 0 to 95"),
        (["addition", "digits=1", "--demonstrations=-3"], "--demonstrations must be from 0 to 95"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, *settings = arguments
    assert lmlab(["problems", kind, str(tmp_path / "x"), *settings]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "problems.jsonl: holds no rows"),
        ("{", "problems.jsonl:1: not a JSON object"),
        ('{"prompt": "a", "answer": "b"}\n\n{"prompt": "a"}', ":3: needs a text in the field"),
        ('{"prompt": "", "answer": "b"}', ":1: needs a text in the field 'prompt'"),
        ("[1]", ":1: not a JSON object, but list"),
    ],
)
def test_bad_files_are_named_with_their_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(content)
    config = ProblemFilesConfig(
        kind="files",
        path=path,
        validation_path=path,
        prompt_field="prompt",
        answer_field="answer",
    )
    with pytest.raises(DataError, match=message):
        open_problems(config, print)


def files(tmp_path: Path, train: list[str], held_out: list[str]) -> ProblemFilesConfig:
    """Write prompts to two files as JSON that is not escaped; the answer is always 1."""
    paths = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    for path, prompts in zip(paths, (train, held_out), strict=True):
        rows = [json.dumps({"prompt": p, "answer": 1}, ensure_ascii=False) for p in prompts]
        path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return ProblemFilesConfig(
        kind="files",
        path=paths[0],
        validation_path=paths[1],
        prompt_field="prompt",
        answer_field="answer",
    )


def test_a_line_of_a_file_ends_at_a_newline_alone(tmp_path: Path) -> None:
    prompts = [f"a{mark}b" for mark in "\u2028\u2029\x85\x0b\x0c\x1c\r"]
    found = open_problems(files(tmp_path, prompts, ["held out"]), print)
    assert [problem.prompt for problem in found.train] == prompts


def test_problems_that_are_held_out_are_not_trained_on(tmp_path: Path) -> None:
    said: list[str] = []
    found = open_problems(files(tmp_path, ["a", "b", "c", "b"], ["b", "d"]), said.append)
    assert [problem.prompt for problem in found.train] == ["a", "c"]
    assert [problem.prompt for problem in found.held_out] == ["b", "d"]
    (line,) = said
    assert "2 of the 4 problems" in line
    open_problems(files(tmp_path, ["a"], ["b"]), said.append)
    assert len(said) == 1
    with pytest.raises(DataError, match="there are no problems to train on"):
        open_problems(files(tmp_path, ["a"], ["b", "a"]), said.append)


def test_problems_without_a_known_response_are_no_demonstrations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = files(tmp_path, ["a", "b"], ["c"])
    command = ["problems", "files", str(tmp_path / "written"), f"path={config.path}"]
    command += [f"validation_path={config.validation_path}"]
    assert lmlab(command) == 0
    rows = (tmp_path / "written" / "train.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == [{"prompt": p, "answer": "1"} for p in "ab"]
    assert lmlab([*command, "--demonstrations=1"]) == 1
    assert "--demonstrations must be from 0 to 0" in capsys.readouterr().err


def test_an_answer_that_reasoning_gym_does_not_give_is_no_response() -> None:
    pytest.importorskip("reasoning_gym")
    config = ReasoningGymConfig(kind="reasoning_gym", name="rush_hour", count=20, held_out=0.5)
    found = open_problems(config, print)
    assert {problem.solution for problem in (*found.train, *found.held_out)} == {""}


def test_a_subset_is_a_fair_sample() -> None:
    problems = open_problems(addition(), print).held_out
    few = subset(problems, 200)
    assert len(few) == 200
    assert list(few) == [problem for problem in problems if problem in few]
    assert set(subset(problems, 50)) < set(few) == set(subset(problems[::-1], 200))
    assert subset(problems, None) == subset(problems, 10_000) == problems
    carried, all_carried = (
        sum(len(problem.truth) == 3 for problem in part) / len(part) for part in (few, problems)
    )
    assert carried == pytest.approx(all_carried, abs=0.1)  # of the first 200 only 0.22, not 0.59


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone.jsonl"
    config = ProblemFilesConfig(
        kind="files", path=gone, validation_path=gone, prompt_field="a", answer_field="b"
    )
    with pytest.raises(DataError, match=r"task\.problems\.path: .*gone\.jsonl. matches no file"):
        open_problems(config, print)


def test_a_part_without_problems_is_refused() -> None:
    with pytest.raises(DataError, match="no problems to evaluate on"):
        divided([Problem("a", "b")], 1e-9)
