"""The runs of a plan as sweeps of real training runs."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lmlab.errors import UserError
from lmlab.runs.read import find_runs, read_run
from lmlab.scaling.shapes import HEAD_DIM, ShapeRange
from lmlab.scaling.trial import Config, Space

LARGEST_WIDTH, DEEPEST = 4096, 64
RATES = 8
"""Learning rates are tried from lr / 8 to 8 lr."""
DIGITS = (1, 3)
FEWEST, MOST = 8, 26
"""Powers of ten of a run's FLOPs."""
RANGE = 1e4
"""Budget / the smallest FLOPs of a run."""
STEPS = 20
"""Of the shortest run."""


def real_space(budget: float, learning_rate: float, batch_size: int, context_length: int) -> Space:
    """Return what real runs may be: widths in multiples of 64, heads of 64, at least 20 steps."""
    flops = sorted(
        int(digit * 10.0**power)
        for power in range(FEWEST, MOST)
        for digit in DIGITS
        if budget / RANGE <= digit * 10.0**power <= budget
    )
    if not flops:
        raise UserError(
            f"--budget {budget:g}: real runs take from {10**FEWEST:.0e} to {10**MOST:.0e} FLOPs "
            "each, none of which fits; give another budget"
        )
    heads = (1, LARGEST_WIDTH // HEAD_DIM)
    shapes = ShapeRange((HEAD_DIM, LARGEST_WIDTH), (1, DEEPEST), heads)
    rates = (learning_rate / RATES, learning_rate * RATES)
    least = float(STEPS * batch_size * context_length)
    return Space(shapes, (batch_size,), rates, tuple(flops), least)


def launched_together(configs: Sequence[Config]) -> list[Config]:
    """Return the first configuration and those that may run in a sweep with it.

    They differ in their shapes, and have a learning rate for each.
    """
    first, shapes = configs[0], set()
    together = []
    for config in configs:
        alike = (config.train_flops, config.batch_size) == (first.train_flops, first.batch_size)
        if alike and _shape(config) not in shapes:
            shapes.add(_shape(config))
            together.append(config)
    return together


def _shape(config: Config) -> tuple[int, int]:
    return config.d_model, config.num_layers


@dataclass(frozen=True)
class Sweeps:
    """Starts `lmlab train -m` and reads the losses of the runs; finished runs are skipped there.

    A run trains on C / 6 N tokens, N without embeddings.
    """

    plan: str
    """Name of the plan."""
    overrides: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the sweep; plans with other overrides have another, and no runs in common."""
        settings = "\n".join(sorted(self.overrides)).encode()
        return f"plan_{self.plan}_{blake2b(settings, digest_size=4).hexdigest()}"

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return Path("runs/sweeps", self.name)

    def launch(self, configs: Sequence[Config]) -> Mapping[Config, float]:
        """Make runs that differ in their shapes; raises UserError for those that failed."""
        command = [sys.executable, "-m", "lmlab.cli", "train", "-m", *self.arguments(configs)]
        code = subprocess.run(command, check=False).returncode
        losses = {c: loss for c in configs if (loss := self._loss(c)) is not None}
        if not losses:
            raise UserError(
                f"none of {len(configs)} runs in {self.folder} has finished (exit code {code}); "
                "start the plan again to continue them, or see their logs there"
            )
        return losses

    def arguments(self, configs: Sequence[Config]) -> list[str]:
        """Return the overrides of the sweep; tokens and learning rates follow the shape."""
        first = configs[0]
        shapes = ",".join(
            f"{{d_model: {c.d_model}, num_layers: {c.num_layers}, num_heads: {c.num_heads}, "
            "d_ff: null}"
            for c in sorted(configs)
        )
        rates = "|".join(f"{c.d_model}x{c.num_layers}:{c.learning_rate:g}" for c in sorted(configs))
        return [
            *self.overrides,
            "budget=tokens",
            f"budget.tokens='${{tokens_for:{first.train_flops},${{model.d_model}},"
            "${model.num_layers}}'",
            f"name={self.name}",
            f"model={shapes}",
            f"lr='${{by_shape:{rates},${{model.d_model}},${{model.num_layers}}}}'",
            f"trainer.batch_size={first.batch_size}",
        ]

    def _loss(self, config: Config) -> float | None:
        for directory in find_runs(self.folder) if self.folder.is_dir() else []:
            run = read_run(directory)
            if _is_of(run.config, config) and run.status in ("finished", "diverged"):
                loss = run.result.get("val_loss")
                if run.status == "diverged" or loss is None:
                    raise UserError(
                        f"{directory} diverged at lr={config.learning_rate:g}; start another plan "
                        "with a lower lr="
                    )
                return float(loss)
        return None


def _is_of(stored: Mapping[str, Any], config: Config) -> bool:
    model, budget = stored["model"], stored["budget"]
    shape = (model["d_model"], model["num_layers"], model["num_heads"])
    return (
        shape == (config.d_model, config.num_layers, config.num_heads)
        and budget.get("tokens") == int(config.tokens)
        and stored["lr"] == config.learning_rate
        and stored["trainer"]["batch_size"] == config.batch_size
    )
