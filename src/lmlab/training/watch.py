"""Hooks of the loop: statistics of each layer, and a profile of some steps."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmlab.optim.shards import global_norm

TRACE, OPERATORS = "trace.json", "operators.txt"
WAIT, WARM_UP = 1, 2
"""Steps before a profile: a slow first one, and the warmup of the profiler."""


class LayerStats:
    """L2 norms of each layer's weights and gradients, and the RMS of its outputs.

    Layers are the blocks, and whatever else of the model has parameters. Gradients are those of the
    last step, clipped; outputs are those of its last micro-batch.
    """

    def __init__(self, model: nn.Module) -> None:
        children = dict(model.named_children())
        blocks = children.pop("blocks", nn.ModuleList())
        self.layers = children | {f"block_{i}": block for i, block in enumerate(blocks.children())}
        self.layers = {name: layer for name, layer in self.layers.items() if _parameters(layer)}
        self._outputs: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            layer.register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def keep(layer: nn.Module, _: object, output: Tensor) -> None:
            if layer.training:
                self._outputs[name] = output.detach()

        return keep

    def __call__(self, logs: bool) -> dict[str, Float[Tensor, ""]]:
        """Return `weight_norm/LAYER`, `grad_norm/LAYER` and `activation_rms/LAYER` when asked."""
        measured: dict[str, Tensor] = {}
        if not logs:
            return measured
        for name, layer in self.layers.items():
            parameters = _parameters(layer)
            grads = [p.grad for p in parameters if p.grad is not None]
            measured[f"weight_norm/{name}"] = global_norm([p.detach() for p in parameters])
            if grads:
                measured[f"grad_norm/{name}"] = global_norm(grads)
            if name in self._outputs:
                rms = self._outputs[name].float().square().mean().sqrt()
                measured[f"activation_rms/{name}"] = rms
        return measured


def _parameters(layer: nn.Module) -> list[nn.Parameter]:
    return [p for p in layer.parameters() if p.requires_grad]


@contextlib.contextmanager
def profiled(
    steps: int | None, directory: Path, say: Callable[[str], None]
) -> Iterator[Callable[[bool], dict[str, Tensor]]]:
    """Yield a hook of the loop that profiles `steps` steps; None: no step.

    Writes a trace for chrome://tracing or ui.perfetto.dev, and a table of the slowest operators.
    """
    if steps is None:
        yield lambda logs: {}
        return
    on_cuda = torch.cuda.is_available()

    def write(profile: torch.profiler.profile) -> None:
        profile.export_chrome_trace(str(directory / TRACE))
        order = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
        table = profile.key_averages().table(sort_by=order, row_limit=25)
        (directory / OPERATORS).write_text(table, encoding="utf-8")
        recorded = min(profile.step_num - WAIT - WARM_UP, steps)  # fewer when the run was shorter
        say(f"profile of {recorded} steps: {directory / TRACE} (ui.perfetto.dev opens it)")
        say(f"slowest operators: {directory / OPERATORS}")

    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if on_cuda else []
    with torch.profiler.profile(
        activities=activities,
        schedule=torch.profiler.schedule(wait=WAIT, warmup=WARM_UP, active=steps, repeat=1),
        on_trace_ready=write,
    ) as profile:

        def step(logs: bool) -> dict[str, Tensor]:
            profile.step()
            return {}

        yield step
    if not (directory / TRACE).exists():
        say(f"no profile: the run had fewer than {WAIT + WARM_UP + 1} steps")
