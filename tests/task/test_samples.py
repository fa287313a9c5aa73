"""Text that a run writes while the model is trained."""

import json
import signal
from pathlib import Path

import pytest
import torch

from lmlab.model import Transformer, build
from lmlab.runs.run import Run
from lmlab.task import run as train
from lmlab.task.config import SampleConfig
from lmlab.task.samples import SampleLogger
from lmlab.tokenizer import byte_tokenizer
from lmlab.training.runtime import Runtime
from tests_support import TINY, composed

TOKENIZER = byte_tokenizer(["<|endoftext|>"])


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    return build(composed(*TINY).model, TOKENIZER.vocab_size)


def logger(model: Transformer, run: Run, seed: int = 0, **settings: object) -> SampleLogger:
    values = {"prompt": None, "tokens": 40, "temperature": 1.0, "top_p": 1.0} | settings
    runtime = Runtime(device=torch.device("cpu"), seed=seed)
    return SampleLogger(SampleConfig.model_validate(values), model, TOKENIZER, run, runtime)


def test_a_sample_depends_on_weights_seed_and_step_alone(
    model: Transformer, tmp_path: Path
) -> None:
    with Run(tmp_path) as run:
        text = logger(model, run).write(model, 3)
        torch.manual_seed(1)  # the state of torch's generator does not matter
        assert logger(model, run).write(model, 3) == text
        others = [logger(model, run).write(model, 4), logger(model, run, seed=1).write(model, 3)]
        with torch.no_grad():
            model.lm_head.weight.mul_(0.5)
        others.append(logger(model, run).write(model, 3))
    assert len({text, *others}) == 4


def test_a_sample_continues_the_prompt_and_leaves_the_model_in_training(
    model: Transformer, tmp_path: Path
) -> None:
    with Run(tmp_path) as run:
        write = logger(model, run, prompt="Once", temperature=0.0)
        assert write(3)
        assert model.training
        new = logger(model, run, prompt="Once", temperature=0.0, tokens=3).write(model, 3)
        assert new is not None
        assert new.startswith("Once")
    assert (tmp_path / "samples.txt").read_text().startswith(f"=== step 3 ===\n{new[:6]}")
    model(torch.zeros(1, 8, dtype=torch.long)).sum().backward()


def test_a_signal_stops_a_sample(
    model: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run(tmp_path) as run:
        steps = 0
        hidden = model.hidden

        def stopping(*args: torch.Tensor) -> torch.Tensor:
            nonlocal steps
            steps += 1
            if steps == 5:
                run.stop_signal = signal.SIGTERM
            return hidden(*args)

        monkeypatch.setattr(model, "hidden", stopping)
        assert not logger(model, run, temperature=0.0)(3)
    assert steps == 5
    assert not (tmp_path / "samples.txt").exists()


def test_a_model_that_has_diverged_writes_no_sample(tiny: list[str], tmp_path: Path) -> None:
    """Its weights are finite and too large: the loss before the update is, that after it is not."""
    steep = ("optimizer=sgd", "lr=1e25", "schedule=constant", "schedule.warmup=0")
    run = tmp_path / "run"
    train(composed(*tiny, *steep, "trainer.eval_every=1", "trainer.max_grad_norm=null"), run)
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["steps"], result["val_loss"]) == ("diverged", 1, None)
    assert 5 < result["best_val_loss"] < 6
    assert (run / "samples.txt").read_text().count("===") == 2  # of step 0


def test_no_tokens_is_no_sample(model: Transformer, tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        assert logger(model, run, tokens=0)(3)
    assert not (tmp_path / "samples.txt").exists()
