"""A run that is killed, stopped, starved of disk and robbed of checkpoints ends all the same."""

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests_support import ROOT

STEPS = 90
LONG = [f"budget.steps={STEPS}", "trainer.checkpoint_every=4", "trainer.log_every=1"]
TIMES = (
    "seconds",
    "tokens_per_second",
    "batch_time_share",
    "mfu",
    "matmul_utilization",
    "memory_gib",
)


def rows(run: Path) -> list[dict[str, Any]]:
    """Read what is logged; the last line may be half-written."""
    if not (run / "metrics.jsonl").exists():
        return []
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def start(run: Path, arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments, f"hydra.run.dir={run}"]
    return subprocess.Popen(
        command,
        cwd=run.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def until(process: subprocess.Popen[str], run: Path, step: int) -> None:
    while process.poll() is None and not (rows(run) and rows(run)[-1]["step"] >= step):
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step_*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(("trainer.eval_windows=4000",), id="evaluation"),
        pytest.param(
            # the likeliest tokens: a drawn end of the document would make the sample short
            ("trainer.eval_windows=1", "task.sample.tokens=3000", "task.sample.temperature=0"),
            id="sample",
        ),
    ],
)
def test_a_signal_breaks_an_evaluation_off_and_it_is_made_up_for(
    tiny: list[str], corpus: Path, tmp_path: Path, slow: tuple[str, ...]
) -> None:
    long = tmp_path / "long.txt"
    long.write_text("\n\n".join([corpus.read_text()] * 40))
    arguments = [*tiny, f"data.paths=['{long}']", "budget.steps=4", "trainer.log_every=1", *slow]
    arguments += ["trainer.batch_size=1", "trainer.eval_every=4", "trainer.checkpoint_every=100"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    undisturbed = start(whole, arguments)
    assert undisturbed.communicate()[1] is not None
    assert undisturbed.returncode == 0
    for step in (0, 4):  # before the first step and after the last one
        process = start(run, arguments)
        if step:
            until(process, run, step - 1)  # the row of the last step waits for its evaluation
        else:
            while not (run / "account.json").exists():
                time.sleep(0.005)
                assert process.poll() is None, process.communicate()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.communicate()[1] is not None
        assert process.returncode == 128 + signal.SIGTERM
        state = torch.load(checkpoints(run)[-1], weights_only=True)
        assert state["step"] == step
        assert ("train/loss" in state["progress"]["pending"]) == (step > 0)
        assert [row["step"] for row in rows(run)] == list(range(step))
    process = start(run, arguments)
    assert process.communicate()[1] is not None
    assert process.returncode == 0
    ours, theirs = (
        [{k: v for k, v in row.items() if k not in TIMES} for row in rows(r)] for r in (run, whole)
    )
    assert ours == theirs
    assert (run / "samples.txt").read_text() == (whole / "samples.txt").read_text()


@pytest.mark.slow
def test_nothing_that_happens_to_a_run_changes_it(tiny: list[str], tmp_path: Path) -> None:
    arguments = [*tiny, *LONG, "model.dropout=0.1"]
    whole = tmp_path / "whole"
    undisturbed = start(whole, arguments)
    assert undisturbed.communicate()[1] is not None
    assert undisturbed.returncode == 0

    run = tmp_path / "run"
    events = ["SIGKILL", "SIGTERM", "full disk", "truncated", "SIGKILL"]
    random.Random().shuffle(events)
    places = sorted(random.Random().sample(range(6, STEPS - 10), len(events)))
    history = list(zip(events, places, strict=True))
    # A limit on the size of files which a checkpoint exceeds, and nothing else written in training.
    size = checkpoints(whole)[-1].stat().st_size // 2
    assert size > 2 * (whole / "metrics.jsonl").stat().st_size
    for event, step in history:
        if event == "full disk":
            process = start(
                run,
                arguments,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
            )
            _, errors = process.communicate()
            assert process.returncode == 1, history
            assert "cannot write checkpoint" in errors, history
            assert "Traceback" not in errors
            continue
        process = start(run, arguments)
        until(process, run, step)
        number = signal.SIGTERM if event == "SIGTERM" else signal.SIGKILL
        process.send_signal(number)
        _, errors = process.communicate()
        assert process.returncode == (128 + number if event == "SIGTERM" else -number), errors
        if event == "truncated" and checkpoints(run):
            newest = checkpoints(run)[-1]
            newest.write_bytes(newest.read_bytes()[: random.Random().randrange(1, 5000)])
    process = start(run, arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, (history, errors)

    results = [json.loads((r / "result.json").read_text()) for r in (run, whole)]
    for key in ("val_loss", "val_bits_per_byte", "best_val_loss", "tokens", "status"):
        assert results[0][key] == results[1][key], (key, history)
    ours, theirs = (
        [{k: v for k, v in row.items() if k not in TIMES} for row in rows(r)] for r in (run, whole)
    )
    assert ours == theirs, history
    assert (run / "samples.txt").read_text() == (whole / "samples.txt").read_text()
    a, b = (torch.load(checkpoints(r)[-1], weights_only=True) for r in (run, whole))
    assert a["model"].keys() == b["model"].keys()
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"]), history
    for index, state in a["optimizer"]["state"].items():
        for name, value in state.items():
            other = b["optimizer"]["state"][index][name]
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            assert same, (index, name, history)
    assert not list((run / "checkpoints").glob(".*"))
