"""`lmlab profile`: record some training steps, and write a trace and a page of it."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, record_function

from lmlab.config import RunConfig
from lmlab.files import atomic_write
from lmlab.profiling.ranges import named_ranges
from lmlab.profiling.steps import TrainingStep, require_fit, training_step
from lmlab.profiling.trace import STEP
from lmlab.training.throughput import synchronize
from lmlab.training.watch import TRACE

FACTS = "profile.json"
WARM_UP = 2
"""Steps before the recorded ones: the first allocates the optimizer state."""


@dataclass(frozen=True)
class Facts:
    """What the trace does not say."""

    title: str
    device: str
    precision: str
    tokens: int
    """Tokens of a step."""
    parameters: int
    state_bytes: dict[str, int]
    compiled: bool
    stepwise: bool
    """Whether attention runs in the three named steps of the eager backend."""


def record(config: RunConfig, vocab_size: int, steps: int, directory: Path) -> Facts:
    """Profile `steps` training steps on random tokens into `directory/trace.json`."""
    if config.trainer.check_memory:
        require_fit(config, vocab_size)
    step = training_step(config, vocab_size)
    facts = _facts(config, step)
    compiled = config.trainer.compile is True
    with contextlib.nullcontext() if compiled else named_ranges(step.model):
        for _ in range(WARM_UP):
            step()
        activities = [ProfilerActivity.CPU]
        activities += [ProfilerActivity.CUDA] if step.runtime.device.type == "cuda" else []
        synchronize(step.runtime.device)
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            for _ in range(steps):
                step.optimizer.zero_grad(set_to_none=True)
                with record_function(STEP):
                    step()
                    synchronize(step.runtime.device)
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{TRACE}.tmp"
    profile.export_chrome_trace(str(temporary))
    temporary.replace(directory / TRACE)
    with atomic_write(directory / FACTS) as file:
        json.dump(facts.__dict__, file, indent=2)
    return facts


def _facts(config: RunConfig, step: TrainingStep) -> Facts:
    step()  # which makes the optimizer's state
    model, device = step.model, step.runtime.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    sizes = f"d_model {config.model.d_model}, {config.model.num_layers} layers"
    return Facts(
        f"{config.name}: {sizes}, {config.trainer.batch_size} x {config.model.context_length}",
        name,
        step.runtime.precision,
        step.tokens,
        sum(p.numel() for p in model.parameters()),
        step.state_bytes(),
        config.trainer.compile is True,
        getattr(config.model.attention, "backend", None) == "eager",
    )
