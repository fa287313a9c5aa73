"""Run directories with random weights."""

from collections.abc import Callable
from pathlib import Path

import torch

import lmlab
from lmlab.loading import TrainedRun
from lmlab.model import build
from lmlab.tokenizer import Tokenizer
from lmlab.tokenizer.bpe import byte_tokenizer
from tests_support import TINY, composed

MakeRun = Callable[..., TrainedRun]


def random_run(
    folder: Path,
    name: str = "one",
    tokenizer: Tokenizer | None = None,
    *overrides: str,
    seed: int = 0,
    step: int = 12,
) -> TrainedRun:
    """Write the run directory `folder`/`name`, and load it."""
    tokenizer = tokenizer or byte_tokenizer(["<|endoftext|>"])
    config = composed(*TINY, f"name={name}", *overrides)
    torch.manual_seed(seed)
    model = build(config.model, tokenizer.vocab_size)
    for weight in model.parameters():  # far from uniform, so that errors show
        if weight.ndim > 1:
            weight.data *= 3
    directory = folder / name
    tokenizer.save(directory / "tokenizer")
    (directory / "checkpoints").mkdir()
    (directory / "config.yaml").write_text(config.to_yaml())
    state = {"model": model.state_dict(), "step": step}
    torch.save(state, directory / "checkpoints" / f"step_{step:08}.pt")
    return lmlab.load(directory)
