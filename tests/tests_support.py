"""What tests share beside fixtures."""

from pathlib import Path

from lmlab.config import RunConfig
from lmlab.hydra_app import compose_run

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"

WORDS = "the a cat dog ship sea sun moon sees sails over under red blue old new".split()  # noqa: SIM905

TINY = (
    "tokenizer=byte",
    "data=text",
    "model.d_model=32",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.d_ff=64",
    "model.context_length=32",
    "budget.steps=12",
    "trainer.batch_size=4",
    "trainer.eval_every=4",
    "trainer.eval_windows=4",
    "trainer.checkpoint_every=3",
    "trainer.log_every=2",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "task.sample.tokens=8",
)
"""Overrides that make a run of seconds; `corpus` has to name the files."""


def composed(*overrides: str) -> RunConfig:
    """Return the configuration that `python train.py OVERRIDES` loads."""
    return compose_run(CONF, overrides)
