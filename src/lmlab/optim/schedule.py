"""Learning-rate schedules: functions of the step t, counted from 0."""

import math
from collections.abc import Callable

from lmlab.optim.config import ScheduleConfig

Schedule = Callable[[int], float]


def cosine_schedule(
    t: int, max_lr: float, min_lr: float, warmup_steps: int, cosine_steps: int
) -> float:
    """Return `t/Tw * max` before `Tw`, cosine decay from max to min until `Tc`, then min."""
    if t < warmup_steps:
        return t / warmup_steps * max_lr
    if t >= cosine_steps:
        return min_lr
    progress = (t - warmup_steps) / (cosine_steps - warmup_steps)
    return min_lr + 0.5 * (1 + math.cos(math.pi * progress)) * (max_lr - min_lr)


def linear_schedule(
    t: int, max_lr: float, min_lr: float, warmup_steps: int, end_step: int
) -> float:
    """Return `t/Tw * max` before `Tw`, linear decay from max to min until the end, then min."""
    if t < warmup_steps:
        return t / warmup_steps * max_lr
    if t >= end_step:
        return min_lr
    return max_lr + (t - warmup_steps) / (end_step - warmup_steps) * (min_lr - max_lr)


def constant_schedule(t: int, max_lr: float, warmup_steps: int) -> float:
    """Return `t/Tw * max` before `Tw`, then max."""
    return t / warmup_steps * max_lr if t < warmup_steps else max_lr


def inverse_sqrt_schedule(t: int, max_lr: float, warmup_steps: int) -> float:
    """Return `t/Tw * max` before `Tw`, then `max * sqrt(Tw / t)` (Vaswani et al. 2017).

    Without warmup `max / sqrt(t + 1)`.
    """
    if warmup_steps == 0:
        return max_lr / (t + 1) ** 0.5
    return max_lr * min(t / warmup_steps, (warmup_steps / max(t, 1)) ** 0.5)


def wsd_schedule(
    t: int, max_lr: float, min_lr: float, warmup_steps: int, decay_start: int, total_steps: int
) -> float:
    """Return warmup, max until `decay_start`, then linear decay to min (Hu et al. 2024)."""
    if t < decay_start:
        return constant_schedule(t, max_lr, warmup_steps)
    return linear_schedule(t, max_lr, min_lr, decay_start, total_steps)


def steps_of(value: float, total: int, *, whole: bool) -> int:
    """Return the number of steps for a value in steps, or below 1 as a fraction of `total`.

    The value 1 means all steps when `whole`, else one step.
    """
    fraction = value < 1 or (whole and value == 1)
    return round(value * total) if fraction else round(value)


def schedule_warning(config: ScheduleConfig, total_steps: int) -> str | None:
    """Return one line when warmup or decay does not fit into the steps of a run; None when it does.

    The schedule is not changed: a short trial run of a longer one is meant so.
    """
    warmup = steps_of(config.warmup, total_steps, whole=False)
    given = f"schedule.warmup={config.warmup:g}"
    if warmup >= total_steps and warmup > 0:
        share = (total_steps - 1) / warmup
        return (
            f"warning: {given} ({warmup:,} steps) does not end within the run of {total_steps:,}: "
            f"the learning rate rises to {100 * share:.3g} % of its peak; lower it, or train longer"
        )
    if config.kind == "wsd":
        decay = steps_of(config.decay, total_steps, whole=True)
        if warmup + decay > total_steps + 1:  # shares of all steps, rounded, may take one more
            return (
                f"warning: {given} and schedule.decay={config.decay:g} take "
                f"{warmup + decay:,} steps, the run has {total_steps:,}: it decays in the last "
                f"{total_steps - warmup:,}; lower one of them, or train longer"
            )
    elif config.kind in ("cosine", "linear"):
        end = steps_of(config.end, total_steps, whole=True)
        if end <= warmup > 0:
            return (
                f"warning: {given} ({warmup:,} steps) is not over at schedule.end={config.end:g} "
                f"(step {end:,}): the learning rate falls to its minimum without a decay; "
                "lower schedule.warmup, or raise schedule.end"
            )
    return None


def build_schedule(config: ScheduleConfig, max_lr: float, total_steps: int) -> Schedule:
    """Return the function from step to learning rate."""
    warmup = steps_of(config.warmup, total_steps, whole=False)
    if config.kind == "constant":
        return lambda t: constant_schedule(t, max_lr, warmup)
    if config.kind == "inverse_sqrt":
        return lambda t: inverse_sqrt_schedule(t, max_lr, warmup)
    min_lr = config.min_ratio * max_lr
    if config.kind == "wsd":
        decay_start = max(warmup, total_steps - steps_of(config.decay, total_steps, whole=True))
        return lambda t: wsd_schedule(t, max_lr, min_lr, warmup, decay_start, total_steps)
    end = max(1, steps_of(config.end, total_steps, whole=True))
    shape = cosine_schedule if config.kind == "cosine" else linear_schedule
    return lambda t: shape(t, max_lr, min_lr, warmup, end)
