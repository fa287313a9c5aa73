"""Learning-rate schedules: the rate of step t, counted from 0."""

import math
from collections.abc import Callable

from lmlab.optim.config import ConstantConfig, ScheduleConfig

Schedule = Callable[[int], float]


def cosine_schedule(
    t: int, max_lr: float, min_lr: float, warmup_steps: int, cosine_steps: int
) -> float:
    """Return `t/Tw * max` before `Tw`, half a cosine from max to min until `Tc`, then min."""
    if t < warmup_steps:
        return t / warmup_steps * max_lr
    if t >= cosine_steps:
        return min_lr
    progress = (t - warmup_steps) / (cosine_steps - warmup_steps)
    return min_lr + 0.5 * (1 + math.cos(math.pi * progress)) * (max_lr - min_lr)


def constant_schedule(t: int, max_lr: float, warmup_steps: int) -> float:
    """Return `t/Tw * max` before `Tw`, then max."""
    return t / warmup_steps * max_lr if t < warmup_steps else max_lr


def steps_of(value: float, total: int, *, whole: bool) -> int:
    """Return a number of steps given as steps or as a fraction of `total`.

    Below 1 it is a fraction; 1 itself is all steps when `whole`, else one step.
    """
    fraction = value < 1 or (whole and value == 1)
    return round(value * total) if fraction else round(value)


def build_schedule(config: ScheduleConfig, max_lr: float, total_steps: int) -> Schedule:
    """Return the function from step to learning rate."""
    warmup = steps_of(config.warmup, total_steps, whole=False)
    if isinstance(config, ConstantConfig):
        return lambda t: constant_schedule(t, max_lr, warmup)
    end = steps_of(config.end, total_steps, whole=True)
    min_lr = config.min_ratio * max_lr
    return lambda t: cosine_schedule(t, max_lr, min_lr, warmup, end)
