"""A task that is not pretraining runs, resumes and is reported through what all tasks share."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lmlab.cli import main as lmlab
from lmlab.config import RunConfig
from lmlab.errors import UserError
from lmlab.task.lifecycle import run_task
from lmlab.training.step import optimize_step
from task.toy_task import Strings, ToyTask
from tests_support import TINY, composed

STEPS = 60


def toy_config(*overrides: str) -> RunConfig:
    return composed(*TINY, f"budget.steps={STEPS}", "trainer.batch_size=32", "lr=3e-3", *overrides)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_it_trains_and_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run_task(toy_config("optimizer=adamw"), run, ToyTask)
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "finished"
    assert (
        result["best_val_accuracy"] >= result["val_accuracy"] > 0.8 > rows(run)[0]["val/accuracy"]
    )
    assert result["best_val_accuracy"] == max(
        row["val/accuracy"] for row in rows(run) if "val/accuracy" in row
    )
    assert "train/accuracy" in rows(run)[-1]
    assert "val_accuracy" in capsys.readouterr().out
    assert lmlab(["runs", str(tmp_path)]) == 0
    assert "finished" in capsys.readouterr().out
    assert lmlab(["report", str(run)]) == 0
    assert "val/accuracy" in (run / "report.html").read_text()


def test_a_warmup_longer_than_the_run_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for warmup, warnings in ((50, 1), (0.05, 0)):
        run = tmp_path / str(warmup)
        run_task(toy_config("budget.steps=2", f"schedule.warmup={warmup}"), run, ToyTask)
        assert capsys.readouterr().err.count("warning: schedule.warmup=50 (50 steps)") == warnings


def test_a_sweep_of_it_is_judged_by_its_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lr in ("1e-9", "3e-3"):
        for seed in (0, 1):
            config = toy_config("optimizer=adamw", f"lr={lr}", f"seed={seed}")
            run_task(config, tmp_path / f"lr={lr},seed={seed}", ToyTask)
    capsys.readouterr()
    assert lmlab(["collect", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "val_accuracy" in shown
    assert "Best: lr=0.003" in shown
    assert lmlab(["report", str(tmp_path)]) == 0


@pytest.mark.parametrize("interrupted", ["source", "evaluation"])
def test_stopped_and_resumed_equals_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    """The state of its source is in the checkpoint."""
    config = toy_config("optimizer=adamw", "trainer.log_every=1")
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_task(config, whole, ToyTask)

    class Interrupted(ToyTask):
        def build_evaluation(self, model: Any, objective: Any, run: Any) -> Any:
            evaluate = super().build_evaluation(model, objective, run)

            def interrupt(step: int) -> Any:
                if step == 20:
                    run._on_signal(15, None)
                return evaluate(step)

            return interrupt if interrupted == "evaluation" else evaluate

        def build_source(self) -> Strings:
            source = super().build_source()
            if interrupted == "source":
                monkeypatch.setattr(Strings, "__call__", raising_at(25, Strings.__call__))
            return source

    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run_task(config, run, Interrupted)
    monkeypatch.undo()
    assert not (run / "result.json").exists()
    run_task(config, run, ToyTask)
    timed = re.compile("second|memory|mfu|matmul|time")
    ours, theirs = (
        [{k: v for k, v in row.items() if not timed.search(k)} for row in rows(r)]
        for r in (run, whole)
    )
    assert ours == theirs


def raising_at(step: int, call: Any) -> Any:
    def called(self: Any, now: int) -> Any:
        if now == step:
            raise KeyboardInterrupt
        return call(self, now)

    return called


@pytest.mark.parametrize("size", [1, 5, 32])
def test_masked_rows_are_exact_for_any_micro_batch(tmp_path: Path, size: int) -> None:
    """The gradient is that of the mean over what counts, however rows fall into micro-batches."""
    from lmlab.training.runtime import Runtime

    config = toy_config("optimizer=adamw")
    runtime = Runtime(torch.device("cpu"))
    torch.manual_seed(0)
    task = ToyTask(config, runtime)
    model = task.build_model()
    objective = task.build_objective(model)
    inputs, classes, mask = Strings(32, 9, seed=3)(0)
    kept = mask.bool()
    logits = model(inputs[kept])[:, -1, :2]
    torch.nn.functional.cross_entropy(logits, classes[kept]).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batch = (inputs, classes, mask)
    weight = objective.weight(*batch)
    optimize_step(objective, optimizer, batch, weight, runtime, micro_batch_size=size)
    for parameter, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-7)


def test_a_batch_in_which_nothing_counts_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Strings.__call__

    def masked(self: Strings, step: int) -> Any:
        inputs, classes, mask = call(self, step)
        return inputs, classes, mask * (step != 3)

    monkeypatch.setattr(Strings, "__call__", masked)
    with pytest.raises(UserError, match="the batch of step 3 has the weight 0"):
        run_task(toy_config(), tmp_path / "run", ToyTask)
