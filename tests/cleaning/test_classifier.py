import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from cleaning_support import run
from pydantic import TypeAdapter, ValidationError

from lmlab.cleaning.build import build
from lmlab.cleaning.classifier_training import (
    TrainingOptions,
    evaluate_classifier,
    train_classifier,
)
from lmlab.cleaning.config import ClassifierConfig, StepConfig
from lmlab.cleaning.fasttext import load_classifier
from lmlab.cleaning.labelled import read_examples, split_examples
from lmlab.cli import main
from lmlab.errors import DataError, UserError


def train(out: Path, *sources: object, **options: object) -> int:
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    return main(["cleaning", "train-classifier", *map(str, sources), "--out", str(out), *flags])


def classifier(path: Path, **changes: Any) -> ClassifierConfig:
    values = {"kind": "classifier", "name": "quality", "path": path, "label": "wiki"}
    return ClassifierConfig.model_validate(values | {"min_score": 0.5, "max_score": None} | changes)


@pytest.fixture
def model(tmp_path: Path, labelled: Path) -> Path:
    assert train(tmp_path / "quality.bin", labelled, dim=10, word_ngrams=1) == 0
    return tmp_path / "quality.bin"


def test_training_by_one_command(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    said = capsys.readouterr().out
    assert "216 texts" in said
    assert "24 held-out texts: accuracy 100.0% (the most frequent label: 50.0%)" in said
    found = json.loads(Path(f"{model}.json").read_text())
    assert found["examples"] == sum(found["bin_examples"]) == 24
    assert found["recall"] == {"cc": 1, "wiki": 1}
    assert Path(f"{model}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_examples_give_the_same_file(model: Path, tmp_path: Path, labelled: Path) -> None:
    assert train(tmp_path / "again.bin", labelled, dim=10, word_ngrams=1) == 0
    assert (tmp_path / "again.bin").read_bytes() == model.read_bytes()


def test_the_model_predicts_as_the_library_that_trained_it(tmp_path: Path, labelled: Path) -> None:
    """The file is fastText's own format, whatever n-grams it has."""
    floret = pytest.importorskip("floret")
    assert train(tmp_path / "a.bin", labelled, dim=10, word_ngrams=2, held_out=0.1) == 0
    training, _ = split_examples(read_examples([str(labelled)]), 0.1, 0)
    text = tmp_path / "training.txt"
    text.write_text("".join(f"__label__{label} {content}\n" for label, content in training))
    theirs = floret.train_supervised(str(text), dim=10, wordNgrams=2, lr=0.5, thread=1, verbose=0)
    sentence = "the river in the town to buy now"
    ours = load_classifier(tmp_path / "a.bin")(sentence, -1)
    for (label, score), (their_score, their_label) in zip(
        ours, theirs.f.predict(sentence + "\n", -1, 0.0, "strict"), strict=True
    ):
        assert f"__label__{label}" == their_label
        assert math.isclose(score, min(their_score, 1.0), rel_tol=1e-6)


def test_the_step(model: Path) -> None:
    step = build(classifier(model))
    kept = run(step, "the history of\nthe town")
    removed = run(step, "click here to\nsubscribe now")
    assert kept.removal is None
    assert kept.scores["quality.score"] > 0.9
    assert removed.removal is not None
    assert (removed.removal.step, removed.removal.reason) == ("quality", "score")
    assert removed.removal.score == removed.scores["quality.score"] < 0.1
    harmful = build(classifier(model, name="harmful", label="cc", min_score=None, max_score=0.5))
    assert run(harmful, "click here to subscribe").removal is not None
    assert run(harmful, "the history of the town").removal is None


def test_formats_of_labelled_texts(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("one text\nanother text\n\n")
    with gzip.open(tmp_path / "bad.jsonl.gz", "wt") as file:
        file.write('{"text": "a bad\\ntext"}\n{"text": "worse", "label": "ignored"}\n')
    lines = '{"text": "x", "label": 1}\n__label__0 some text\n{"text": "y", "label": "0"}\n'
    (tmp_path / "both.txt").write_text(lines + '{"text": "z", "label": "1"}')
    found = read_examples([f"good={tmp_path}/good.txt", f"bad={tmp_path}/bad.jsonl.gz"])
    assert found == [
        *[("good", "one text"), ("good", "another text")],
        *[("bad", "a bad text"), ("bad", "worse")],
    ]
    assert read_examples([str(tmp_path / "both.txt")]) == [
        *[("1", "x"), ("0", "some text"), ("0", "y"), ("1", "z")]
    ]


def test_words_are_cut_in_training_as_in_prediction(tmp_path: Path) -> None:
    """fastText cuts at ASCII white space alone; a no-break space is a part of a word."""
    texts = {"a": "one\u00a0two", "b": "three\u00a0four"}
    rows = [
        {"text": f"{text} \t{i}", "label": name} for name, text in texts.items() for i in range(50)
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = read_examples([str(path)])
    assert examples[0] == ("a", "one\u00a0two 0")
    options = TrainingOptions(dim=8, epochs=30, word_ngrams=1)
    train_classifier(examples, tmp_path / "model.bin", options)
    predict = load_classifier(tmp_path / "model.bin")
    for name, text in texts.items():
        ((label, score),) = predict(text, 1)
        assert (label, score > 0.9) == (name, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no label here\n", "examples.txt:1: there is no label"),
        ("__label__ text\n", "examples.txt:1: there is no label"),
        ('__label__a b\n{"label": "a"}\n', "examples.txt:2: there is no `text`"),
        ('{"text": "a"}\n', "there is no `label`"),
        ('{"text": "a", "label": "a b"}\n', "there is no `label` without white space"),
        ('{"text": \n', "examples.txt:1: Expecting value"),
        ("__label__a b\n", "two labels or more, found a"),
        ("", "two labels or more, found none"),
        ("__label__a b\n__label__b c\n__label__b d", "only one text has the label a"),
    ],
)
def test_bad_examples(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples.txt").write_text(content)
    assert train(tmp_path / "m.bin", tmp_path / "examples.txt") == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "m.bin").exists()


@pytest.mark.parametrize(
    "flags", [["--held-out=0"], ["--held-out=1"], ["--lr=0"], ["--epochs=-1"], ["--dim=x"]]
)
def test_bad_options(labelled: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cleaning", "train-classifier", str(labelled), "--out", "m.bin", *flags]) == 1
    assert flags[0].partition("=")[0] in capsys.readouterr().err


def test_a_learning_rate_that_diverges(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = train(tmp_path / "m.bin", labelled, lr=1e30)
    assert code in (0, 1)
    if code:
        assert "smaller --lr" in capsys.readouterr().err


def test_files_that_are_no_classifier(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UserError, match=r"no classifier at .*train-classifier"):
        build(classifier(tmp_path / "missing.bin"))
    for content in (b"", b"text", model.read_bytes()[:100], model.read_bytes()[:-40]):
        (tmp_path / "bad.bin").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.bin is no fastText classifier"):
            build(classifier(tmp_path / "bad.bin"))


def test_a_label_that_the_model_lacks(model: Path) -> None:
    with pytest.raises(UserError, match=r"no label 'wikipedia'; it has cc, wiki"):
        build(classifier(model, label="wikipedia"))


def test_calibration_by_hand(model: Path) -> None:
    """Two of three are right at confidences of about 1: the error is a third."""
    found = evaluate_classifier(
        model,
        [
            ("wiki", "the history of the river"),
            ("cc", "buy now free shipping"),
            ("cc", "the history of the river"),
        ],
    )
    assert found.accuracy == 2 / 3
    assert found.recall == {"cc": 0.5, "wiki": 1}
    assert found.precision == {"cc": 1, "wiki": 0.5}
    assert found.expected_calibration_error == pytest.approx(1 / 3, abs=0.05)
    assert sum(found.bin_examples) == 3


def test_splitting_keeps_shares_and_one_of_each() -> None:
    examples = [("a", str(i)) for i in range(50)] + [("b", str(i)) for i in range(3)]
    training, held_out = split_examples(examples, 0.1, 1)
    assert sorted(training + held_out) == sorted(examples)
    assert [label for label, _ in held_out].count("a") == 5
    assert [label for label, _ in held_out].count("b") == 1
    assert split_examples(examples, 0.1, 2)[1] != held_out


def test_thresholds_out_of_range_are_refused() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(StepConfig)
    with pytest.raises(ValidationError, match="nothing passes"):
        classifier(Path("m.bin"), min_score=0.9, max_score=0.1)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        classifier(Path("m.bin"), min_score=1.5)
    with pytest.raises(ValidationError, match="languages"):
        adapter.validate_python(
            {"kind": "language", "identifier": "fasttext", "languages": ["English"]}
        )


def test_a_labelled_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_examples([f"a={tmp_path}/none.txt"])
