"""`lmlab benchmark steps`: forward, backward and optimizer times by size and context."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

import torch

from lmlab.config import RunConfig
from lmlab.errors import NotEnoughMemory
from lmlab.profiling.steps import require_fit, training_step
from lmlab.text import markdown_table
from lmlab.training.throughput import synchronize

PHASES = ("forward", "backward", "optimizer")
OUT_OF_MEMORY = "out of memory"
VOCABULARY = 10_000
"""Of the course's benchmarks."""


@dataclass(frozen=True)
class Setting:
    """One configuration of the benchmark."""

    size: str
    """Name of the model."""
    config: RunConfig

    @property
    def context(self) -> int:
        """Tokens of a sequence."""
        return self.config.model.context_length

    @property
    def batch(self) -> int:
        """Sequences."""
        return self.config.trainer.batch_size

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return self.config.model.vocab_size or VOCABULARY


@dataclass
class Times:
    """Seconds of each phase in each step, from the first one on; empty with a problem."""

    setting: Setting
    seconds: dict[str, list[float]] = field(default_factory=dict)
    problem: str = ""


def time_steps(setting: Setting, steps: int) -> Times:
    """Return the times of `steps` training steps of a new model; too little memory is a result.

    Nothing is warmed up: the first steps show what that costs.
    """
    times = Times(setting, {phase: [] for phase in PHASES})
    try:
        require_fit(setting.config, setting.vocabulary)
    except NotEnoughMemory:
        return Times(setting, problem=OUT_OF_MEMORY)
    try:
        step = training_step(setting.config, setting.vocabulary)
        device = step.runtime.device
        for _ in range(steps):
            step.optimizer.zero_grad(set_to_none=True)
            began = _now(device)
            with step.runtime.autocast():
                loss, _ = step.objective(*step.batch)
            forward = _now(device)
            (loss / step.tokens).backward()
            backward = _now(device)
            step.optimizer.step()
            ended = _now(device)
            for phase, begin, end in zip(
                PHASES, (began, forward, backward), (forward, backward, ended), strict=True
            ):
                times.seconds[phase].append(end - begin)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return Times(setting, problem=OUT_OF_MEMORY)
    return times


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that a device or the CPU has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def in_a_process(setting: Setting, steps: int) -> Times:
    """Return `time_steps` from a process of its own: it starts cold, and may run out of memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(time_steps, setting, steps).result()
        except BrokenProcessPool:  # the system ended it
            return Times(setting, problem=OUT_OF_MEMORY)


def step_table(
    settings: Sequence[Setting],
    warm_ups: Sequence[int],
    steps: int,
    say: Callable[[str], None],
    run: Callable[[Setting, int], Times] = in_a_process,
) -> str:
    """Return a Markdown table with mean and standard deviation in ms, a row for each warmup.

    Each setting runs once, cold: with w warmup steps its steps w to w + `steps` are averaged.
    """
    rows = []
    for setting in settings:
        say(f"{setting.size}, context {setting.context}")
        times = run(setting, max(warm_ups) + steps)
        for warm_up in [*warm_ups] if not times.problem else [""]:
            row = [setting.size, f"{setting.context}", f"{setting.batch}", f"{warm_up}"]
            if times.problem:
                rows.append([*row, times.problem, *[""] * 3])
                continue
            kept = [times.seconds[phase][int(warm_up) :][:steps] for phase in PHASES]
            whole = [sum(parts) for parts in zip(*kept, strict=True)]
            rows.append([*row, *(mean_and_deviation(each) for each in (*kept, whole))])
    header = ["model", "context", "batch", "warmups", *(f"{p} (ms)" for p in PHASES), "step (ms)"]
    return markdown_table(header, rows)


def mean_and_deviation(seconds: Sequence[float]) -> str:
    """Return mean and standard deviation in milliseconds."""
    deviation = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    return f"{1e3 * statistics.mean(seconds):,.1f} ± {1e3 * deviation:,.1f}"


def _now(device: torch.device) -> float:
    synchronize(device)
    return time.perf_counter()
