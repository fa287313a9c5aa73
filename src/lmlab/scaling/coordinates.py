"""The coordinate check of muP: how much activations change in a few steps, by width."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmlab.errors import UserError
from lmlab.figures import COLORS, INK, picture
from lmlab.model import Transformer
from lmlab.model.config import ModelConfig, Parametrization
from lmlab.optim import build_optimizer
from lmlab.optim.config import OptimizerConfig
from lmlab.training.losses import cross_entropy

SEQUENCES = 8
"""In the batch, which is the same at every step and width."""


@dataclass(frozen=True)
class Coordinates:
    """Changes of activations since initialization, of models that differ in their width."""

    parametrization: Parametrization
    widths: tuple[int, ...]
    layers: tuple[str, ...]
    changes: Float[np.ndarray, "widths layers steps"]
    """Root mean square over coordinates, geometric mean over seeds."""

    @property
    def exponents(self) -> Float[np.ndarray, " layers"]:
        """Powers of the width by which the changes after the last step grow; 0 is wanted."""
        last = np.log(self.changes[:, :, -1])
        return np.asarray(np.polyfit(np.log(self.widths), last, 1)[0])

    @property
    def steepest(self) -> tuple[str, float]:
        """The layer whose exponent is farthest from 0, and this exponent."""
        exponents = self.exponents
        layer = int(np.argmax(np.abs(exponents)))
        return self.layers[layer], float(exponents[layer])


def measure_coordinates(
    settings: Sequence[tuple[ModelConfig, OptimizerConfig]],
    vocab_size: int,
    *,
    steps: int = 4,
    seeds: int = 2,
) -> Coordinates:
    """Train each model for a few steps on one batch of random tokens; return the changes.

    The outputs of the embedding, of each block and of the head are compared with those before the
    first step (Yang et al. 2022, figure 5). Raises UserError for a loss that is not finite.
    """
    widths = tuple(model.d_model for model, _ in settings)
    found = np.array(
        [
            [_changes(model, optimizer, vocab_size, steps, seed) for seed in range(seeds)]
            for model, optimizer in settings
        ]
    )
    first = settings[0][0]
    layers = ("embedding", *(f"block {i + 1}" for i in range(first.num_layers)), "logits")
    return Coordinates(first.parametrization, widths, layers, np.exp(np.log(found).mean(1)))


def _changes(
    config: ModelConfig, optimizer: OptimizerConfig, vocab_size: int, steps: int, seed: int
) -> Float[np.ndarray, "layers steps"]:
    torch.manual_seed(seed)
    model = Transformer(config, vocab_size).eval()  # without dropout
    built = build_optimizer(optimizer, model, width_multiplier=config.width_multiplier)
    generator = torch.Generator().manual_seed(seed)
    shape = (SEQUENCES, config.context_length + 1)
    ids = torch.randint(vocab_size, shape, generator=generator)
    before, loss = _outputs(model, ids)
    changes = []
    for _ in range(steps):
        built.zero_grad()
        loss.backward()
        built.step()
        after, loss = _outputs(model, ids)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is not finite at d_model={config.d_model}, "
                f"parametrization={config.parametrization}; give a lower lr="
            )
        pairs = zip(before, after, strict=True)
        changes.append([(b - a).square().mean().sqrt().item() for a, b in pairs])
    return np.array(changes).T


def _outputs(
    model: Transformer, ids: Int[Tensor, "batch time"]
) -> tuple[list[Tensor], Float[Tensor, ""]]:
    """Return the outputs of the embedding, the blocks and the head, and the loss."""
    outputs: list[Tensor] = []
    with _recording([model.token_embedding, *model.blocks], outputs):
        logits = model(ids[:, :-1])
    outputs.append(logits.detach())
    return outputs, cross_entropy(logits, ids[:, 1:])


@contextmanager
def _recording(modules: Sequence[nn.Module], outputs: list[Tensor]) -> Iterator[None]:
    def keep(module: nn.Module, arguments: object, output: Tensor) -> None:
        outputs.append(output.detach())

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def draw_coordinates(checks: Sequence[Coordinates], path: Path) -> None:
    """Draw the changes against the width, a panel for each parametrization, as a PNG."""
    worst = ", ".join(f"{c.parametrization} {c.steepest[1]:+.2f}" for c in checks)
    title = f"Change after {checks[0].changes.shape[2]} steps ~ d_model^x; farthest from 0: {worst}"
    with picture(path, title, (9.6, 4.4), panels=len(checks)) as panels:
        low = min(check.changes.min() for check in checks)
        high = max(check.changes.max() for check in checks)
        for axes, check in zip(panels, checks, strict=True):
            for layer, label in enumerate(check.layers):
                color = INK if label == "logits" else COLORS[layer % len(COLORS)]
                first, last = check.changes[:, layer, 0], check.changes[:, layer, -1]
                text = f"{label} {check.exponents[layer]:+.2f}"
                axes.plot(check.widths, first, ":", color=color, linewidth=1)
                axes.plot(check.widths, last, "o-", color=color, markersize=4, label=text)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(check.widths, [f"{width}" for width in check.widths])
            axes.set_ylim(0.7 * low, 1.4 * high)
            axes.set(title=check.parametrization, xlabel="d_model (dotted: after the first step)")
            axes.legend(
                frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2)
            )
        panels[0].set_ylabel("root mean square change")
