"""`lmlab evaluate`: tables, files, pictures and every mistake in one line."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from random_runs import MakeRun

from lmlab.cli import main
from lmlab.evaluation import Scorer, evaluate_text
from lmlab.loading import TrainedRun
from lmlab.tokenizer import Tokenizer
from lmlab.tokenizer.bpe import byte_tokenizer

Evaluate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Run the command: exit code, standard output, standard error."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        code = main(["evaluate", *map(str, arguments), "--quiet", "--device", "cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "sea.txt"
    path.write_text("the old ship\n\nsails over the blue sea\n\nand under the moon " * 3)
    return path


@pytest.fixture
def pair(make_run: MakeRun, bpe: Tokenizer) -> list[TrainedRun]:
    """Two runs with different tokenizers."""
    return [make_run("one"), make_run("two", bpe)]


def test_runs_with_different_tokenizers_in_one_table(
    evaluate: Evaluate, pair: list[TrainedRun], text: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "a dog"}\n{"text": "sees the sun"}\n')
    (folder / "b.txt").write_text("red cat")
    output, plot = tmp_path / "out" / "table.json", tmp_path / "out" / "bits.png"
    directories = [run.directory for run in pair]
    corpora = ["--data", text, "--data", folder, "--separator", r"\n\n"]
    code, out, err = evaluate(*directories, *corpora, "--output", output, "--plot", plot)
    assert (code, out, err) == (0, "", "")
    rows = json.loads(output.read_text())["results"]
    assert [(row["corpus"], row["run"]) for row in rows] == [
        ("sea.txt", "one"),
        ("sea.txt", "two"),
        ("notes", "one"),
        ("notes", "two"),
    ]
    documents = [part for part in text.read_text().split("\n\n") if part.strip()]
    expected = evaluate_text(Scorer(pair[1]), documents)
    assert rows[1]["bits_per_byte"] == pytest.approx(expected.bits_per_byte.value)
    assert rows[1]["bits_per_byte_low"] == pytest.approx(expected.bits_per_byte.low)
    assert rows[1]["bytes"] == rows[0]["bytes"] == len("".join(documents).encode())
    assert rows[1]["tokens"] < rows[0]["tokens"]
    difference = rows[3]["bits_per_byte"] - rows[2]["bits_per_byte"]
    assert rows[3]["bits_per_byte_difference"] == pytest.approx(difference)
    assert rows[2]["bits_per_byte_difference"] is None
    assert rows[2]["documents"] == 3
    assert plot.read_bytes().startswith(b"\x89PNG")

    code, out, _ = evaluate(*directories, *corpora)
    assert code == 0
    assert "| corpus  | run |" in out
    assert "minus one" in out
    assert "±: 95 % confidence interval over documents" in out
    assert "Figures per token do not compare between tokenizers" in out

    code, out, _ = evaluate(*directories, *corpora, "--format", "csv")
    table = list(csv.DictReader(out.splitlines()))
    assert [float(row["loss"]) for row in table] == pytest.approx([row["loss"] for row in rows])


def test_one_document_has_no_interval_and_limits_apply(
    evaluate: Evaluate, run: TrainedRun, text: Path
) -> None:
    code, out, _ = evaluate(run.directory, "--data", text)
    assert code == 0
    assert "No interval for a corpus of one document" in out
    arguments = ("--data", text, "--separator", r"\n\n", "--limit", 2, "--format", "json")
    _, out, _ = evaluate(run.directory, *arguments)
    assert json.loads(out)["results"][0]["documents"] == 2


def test_corpora_of_one_name_get_numbers(evaluate: Evaluate, run: TrainedRun, text: Path) -> None:
    other = text.parent / "more" / text.name
    other.parent.mkdir()
    other.write_text("moon")
    _, out, _ = evaluate(run.directory, "--data", text, "--data", other, "--format", "json")
    assert [row["corpus"] for row in json.loads(out)["results"]] == ["sea.txt", "sea.txt (2)"]


def test_multiple_choice(evaluate: Evaluate, pair: list[TrainedRun], tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    question = {"question": "the cat", "choices": ["sees", "sails", "moon"], "answer": "B"}
    long = question | {"question": "the moon " * 20}
    path.write_text("\n".join(map(json.dumps, [question, long])))
    directories = [run.directory for run in pair]
    plot = tmp_path / "choices.png"
    code, out, _ = evaluate(*directories, "--multiple-choice", path, "--plot", plot)
    assert code == 0
    assert "per token |" in out
    assert "0.333" in out
    assert out.count("1 of 2 questions in questions.jsonl are longer than its context") == 2
    assert plot.read_bytes().startswith(b"\x89PNG")
    _, out, _ = evaluate(*directories, "--multiple-choice", path, "--format", "json")
    rows = json.loads(out)["results"]
    assert [row["scoring"] for row in rows[:4]] == ["sum", "per_token", "per_byte", "unconditional"]
    assert len(rows) == 8
    assert rows[4]["accuracy_difference"] == rows[4]["accuracy"] - rows[0]["accuracy"]


def test_tasks(evaluate: Evaluate, run: TrainedRun, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": "the cat"}\n{"text": "sees the moon"}\n')
    task = tmp_path / "own_text.yaml"
    task.write_text(
        f"task: own_text\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "test_split: test\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: '{{text}}'\nmetric_list: [{metric: bits_per_byte}]\n"
    )
    code, out, _ = evaluate(run.directory, "--tasks", task, "--format", "json")
    assert code == 0
    (row,) = json.loads(out)["results"]
    assert (row["task"], row["metric"]) == ("own_text", "bits_per_byte")
    expected = evaluate_text(Scorer(run), ["the cat", "sees the moon"])
    assert row["value"] == pytest.approx(expected.bits_per_byte.value, rel=1e-5)


def test_without_lm_eval_the_command_that_installs_it_is_named(
    evaluate: Evaluate, run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for name in ("harness", "tasks"):
        monkeypatch.delitem(sys.modules, f"lmlab.evaluation.{name}", raising=False)
    code, out, err = evaluate(run.directory, "--tasks", "hellaswag")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "pip install 'lmlab[eval]'" in err


def mistakes(folder: Path) -> dict[str, tuple[tuple[Any, ...], str]]:
    """Arguments after the run, and a part of the line they give."""
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "blank.txt").write_text(" \n")
    (folder / "good.txt").write_text("the sea")
    (folder / "rows.jsonl").write_text('{"body": "a"}\n')
    (folder / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (folder / "choices.jsonl").write_text('{"question": "q", "choices": ["a", "b"], "answer": 5}\n')
    (folder / "empty").mkdir()
    good = ("--data", folder / "good.txt")
    return {
        "missing": (("--data", folder / "none.txt"), "none.txt"),
        "empty name": (("--data", ""), "names nothing"),
        "empty folder": (("--data", folder / "empty"), "holds no file"),
        "blank": (("--data", folder / "blank.txt"), "blank.txt: holds no text"),
        "not UTF-8": (("--data", folder / "latin.txt"), "latin.txt: invalid UTF-8 at byte 3"),
        "no field": (("--data", folder / "rows.jsonl"), "rows.jsonl:1: no field 'text'"),
        "flag": (("--data", folder / "rows.jsonl"), "set --jsonl-field"),
        "bad line": (("--data", folder / "broken.jsonl"), "broken.jsonl:2: not a JSON object"),
        "separator": ((*good, "--separator", r"\q"), "--separator: \\q is not an escape"),
        "no separator": ((*good, "--separator", ""), "separates nothing"),
        "stride 0": ((*good, "--stride", 0), "stride must be from 1 to the context length, 32"),
        "stride 33": ((*good, "--stride", 33), "got 33"),
        "context": ((*good, "--context-length", 33), "must be from 1 to 32, the context of one"),
        "batch": ((*good, "--batch-size", 0), "must be at least 1"),
        "suffix": ((*good, "--output", folder / "a.txt"), "must end in .md, .csv, .json"),
        "picture": ((*good, "--plot", folder / "a.svg"), "must end in .png"),
        "both": ((*good, "--tasks", "x"), "not allowed with"),
        "unused": (
            ("--multiple-choice", folder / "choices.jsonl", "--stride", 3),
            "--stride has no effect with --multiple-choice",
        ),
        "unused too": ((*good, "--num-fewshot", 3), "--num-fewshot has no effect with --data"),
        "answer": (
            ("--multiple-choice", folder / "choices.jsonl"),
            "choices.jsonl:1: 'answer' must be an index from 0 to 1",
        ),
        "no file": (("--multiple-choice", folder / "none.jsonl"), "none.jsonl"),
        "device": ((*good, "--device", "nowhere"), "nowhere"),
        "held out": ((), "records no held-out text; give --data FILE"),
    }


NAMES = list(mistakes(Path(__import__("tempfile").mkdtemp())))


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], run: TrainedRun, tmp_path: Path, name: str
) -> None:
    arguments, message = mistakes(tmp_path)[name]
    code = main(["evaluate", str(run.directory), *map(str, arguments), "--quiet"])
    captured = capsys.readouterr()
    assert (code, captured.out) == (1, "")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.glob("a.*"))


def test_the_held_out_text_is_that_of_the_training(
    train: Callable[..., Any],
    tiny: list[str],
    tmp_path: Path,
    evaluate: Evaluate,
    corpus: Path,
) -> None:
    first = train(*tiny, "name=first", "hydra.run.dir=runs/first")
    second = train(
        *tiny,
        "name=second",
        "tokenizer=bpe_4k",
        "tokenizer.vocab_size=300",
        "hydra.run.dir=runs/second",
    )
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    runs = [tmp_path / "runs" / name for name in ("first", "second")]
    code, out, _ = evaluate(*runs, "--format", "json")
    assert code == 0
    rows = json.loads(out)["results"]
    data = json.loads((runs[0] / "data.json").read_text())
    for row in rows:
        assert row["corpus"] == "held-out text"
        assert (row["documents"], row["bytes"]) == (data["val_documents"], data["val_bytes"])
    assert rows[0]["bits_per_byte"] == pytest.approx(
        json.loads((runs[0] / "result.json").read_text())["val_bits_per_byte"], rel=0.1
    )
    # other text, no comparison
    other = json.loads((runs[1] / "data.json").read_text()) | {"val_hash": "0" * 32}
    (runs[1] / "data.json").write_text(json.dumps(other))
    code, _, err = evaluate(*runs)
    assert (code, err.count("\n")) == (1, 1)
    assert "held out different text" in err
    code, _, err = evaluate(runs[1])
    assert (code, err.count("\n")) == (1, 1)
    assert "is not the text that" in err
    for content, problem in ((b'{"corpus": "x', "damaged ("), (b"[]", "expected keys and values")):
        (runs[0] / "data.json").write_bytes(content)
        for named in (runs, runs[:1]):
            code, _, err = evaluate(*named)
            assert (code, err.count("\n")) == (1, 1)
            assert f"{runs[0] / 'data.json'}: {problem}" in err
    (runs[0] / "data.json").unlink()
    code, _, err = evaluate(runs[0])
    assert err.endswith(f"{runs[0]} records no held-out text; give --data FILE\n")


def test_the_held_out_text_of_a_tokenizer_that_normalizes(
    train: Callable[..., Any], tiny: list[str], tmp_path: Path, evaluate: Evaluate
) -> None:
    file = tmp_path / "tokenizer.json"
    byte_tokenizer(["<|endoftext|>"]).to_huggingface(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": {"type": "NFC"}}))
    Tokenizer.from_huggingface(file).save(tmp_path / "nfc")
    (tmp_path / "accents.txt").write_text("".join(f"cafe\u0301 {i}\n\n" for i in range(300)))
    overrides = ["data.paths=[accents.txt]", r"data.separator='\n\n'", "data=text"]
    saved = ["tokenizer=saved", "tokenizer.path=nfc", "hydra.run.dir=runs/nfc"]
    done = train(*tiny, *overrides, *saved)
    assert done.returncode == 0, done.stderr
    code, out, err = evaluate(tmp_path / "runs" / "nfc", "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out)["results"][0]["corpus"] == "held-out text"
