"""Folders of runs: parameters and FLOPs against formulas by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tables import BUDGETS, SIZES

from lmlab.errors import UserError
from lmlab.runs.read import find_runs, read_run
from lmlab.scaling.counting import COUNTINGS, Counting
from lmlab.scaling.folder import read_folder

VOCABULARY, CONTEXT = 257, 32


def by_hand(width: int, depth: int, counting: Counting) -> tuple[float, float]:
    """Return the parameters, and the FLOPs of training on a token."""
    hidden = 64 * -(-(width * 8 // 3) // 64)  # 8/3 d_model, a multiple of 64
    matrices = depth * (4 * width**2 + 3 * width * hidden)
    norms = (2 * depth + 1) * width
    tables = 2 * VOCABULARY * width
    scores = depth * 2 * 2 * CONTEXT * width  # products with keys and values, on a token
    head = 2 * VOCABULARY * width
    everything = matrices + norms + tables
    body = 2 * matrices
    forward = {
        "all": (everything, body + scores + head),
        "no_scores": (everything, body + head),
        "no_embeddings": (matrices + norms, body + scores),
        "no_embeddings_no_scores": (matrices + norms, body),
        "6nd": (everything, 2 * everything),
    }
    parameters, flops = forward[counting]
    return float(parameters), 3.0 * flops


@pytest.mark.parametrize("counting", COUNTINGS)
def test_what_counts_has_a_name(folder: Path, counting: Counting) -> None:
    runs = read_folder(folder, counting)
    expected = dict(by_hand(*size, counting) for size in SIZES)
    assert len(runs) == len(SIZES) * len(BUDGETS)
    assert set(runs.parameters) == set(expected)
    per_token = runs.flops / runs.tokens
    np.testing.assert_allclose(per_token, [expected[n] for n in runs.parameters])
    assert runs.notes == (f"Counted: {counting}.",)


def test_columns_are_those_of_the_runs(folder: Path) -> None:
    runs = read_folder(folder)
    results = {path.name: read_run(path) for path in find_runs(folder)}
    for i, name in enumerate(runs.columns["run"]):
        assert runs.loss[i] == results[name].result["val_loss"]
        assert runs.tokens[i] == results[name].result["tokens"]
        assert runs.columns["lr"][i] == results[name].config["lr"]
    # budget.flops counts everything, in whole steps
    assert runs.flops.max() <= max(BUDGETS)
    assert runs.flops.max() > 0.9 * max(BUDGETS)


def test_curves_have_a_row_for_each_evaluation(folder: Path) -> None:
    runs = read_folder(folder, curves=True)
    for path in find_runs(folder):
        record = read_run(path)
        tokens, loss = record.series("val/loss", x="tokens")
        mine = np.array(runs.columns["run"]) == path.name
        assert runs.tokens[mine].tolist() == [d for d in tokens if d > 0]
        assert runs.loss[mine].tolist() == [
            value for d, value in zip(tokens, loss, strict=True) if d > 0
        ]


def copied(run: Path, folder: Path) -> Path:
    """Return a copy of a run's records."""
    copy = folder / run.name
    copy.mkdir()
    for name in ("config.yaml", "result.json", "metrics.jsonl", "account.json"):
        (copy / name).write_bytes((run / name).read_bytes())
    return copy


def test_runs_without_a_validation_loss_are_named(folder: Path, tmp_path: Path) -> None:
    first, second = (copied(run, tmp_path) for run in find_runs(folder)[:2])
    rows = map(json.loads, (first / "metrics.jsonl").read_text().splitlines())
    bare = ({k: v for k, v in row.items() if not k.startswith("val/")} for row in rows)
    (first / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    runs = read_folder(tmp_path, curves=True)
    assert set(runs.columns["run"]) == {second.name}
    assert runs.notes[1] == "1 of 2 finished runs have no val/loss: left out."
    (second / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"the 2 finished runs in .* have no val/loss"):
        read_folder(tmp_path, curves=True)
    for key, shown in (("val_loss", "null"), ("tokens", '"many"')):
        result = json.loads((second / "result.json").read_text())
        (second / "result.json").write_text(json.dumps(result | {key: json.loads(shown)}))
        with pytest.raises(
            UserError, match=re.escape(f"{second.name} has {key}={shown} in result")
        ):
            read_folder(tmp_path)
        (second / "result.json").write_text(json.dumps(result))
    (second / "account.json").write_text('{"parameters": 1}')
    with pytest.raises(UserError, match=r"account\.json or config\.yaml is damaged"):
        read_folder(tmp_path)


def test_folders_without_what_is_needed(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no finished runs in"):
        read_folder(tmp_path)
    run = find_runs(folder)[0]
    copy = tmp_path / run.name
    copy.mkdir()
    for name in ("config.yaml", "result.json", "metrics.jsonl"):
        (copy / name).write_bytes((run / name).read_bytes())
    with pytest.raises(UserError, match=r"has no account\.json"):
        read_folder(tmp_path)
    (copy / "account.json").write_bytes((run / "account.json").read_bytes())
    started = tmp_path / "started"
    started.mkdir()
    (started / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    (started / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes())
    assert read_folder(tmp_path).notes[1] == "1 of 2 runs did not finish: left out."
