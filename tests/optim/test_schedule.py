"""Schedules against their formulas and torch's."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_linear_schedule_with_warmup,
    get_wsd_schedule,
)

from lmlab.optim import build_schedule, cosine_schedule
from lmlab.optim.config import ConstantConfig, CosineConfig
from lmlab.optim.schedule import (
    inverse_sqrt_schedule,
    linear_schedule,
    schedule_warning,
    steps_of,
)
from tests_support import composed


def test_cosine_by_hand() -> None:
    rates = [cosine_schedule(t, 1.0, 0.1, 7, 21) for t in range(25)]
    assert rates[:8] == pytest.approx([t / 7 for t in range(8)])
    assert rates[14] == pytest.approx(0.55)
    assert rates[21:] == [0.1] * 4
    assert rates[10] == pytest.approx(0.1 + 0.5 * 0.9 * (1 + math.cos(math.pi * 3 / 14)))


def test_cosine_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.02)
    for t in range(41):
        assert cosine_schedule(t, 0.3, 0.02, 0, 40) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


@given(
    total=st.integers(1, 2000),
    warmup=st.one_of(st.floats(0, 0.9), st.integers(1, 50)),
    end=st.one_of(st.floats(0.01, 1), st.integers(2, 3000)),
    ratio=st.floats(0, 1),
)
def test_rates_stay_between_zero_and_the_peak(
    total: int, warmup: float, end: float, ratio: float
) -> None:
    config = CosineConfig(kind="cosine", warmup=warmup, end=end, min_ratio=ratio)
    schedule = build_schedule(config, 0.5, total)
    assert all(0 <= schedule(t) <= 0.5 + 1e-12 for t in range(total + 1))


def test_warmup_and_end_are_steps_or_fractions() -> None:
    assert steps_of(0.05, 1000, whole=False) == 50
    assert steps_of(1, 1000, whole=False) == 1
    assert steps_of(1.0, 1000, whole=True) == 1000
    assert steps_of(200, 1000, whole=True) == 200


def test_constant_warms_up_and_holds() -> None:
    schedule = build_schedule(ConstantConfig(kind="constant", warmup=4), 2.0, 100)
    assert [schedule(t) for t in (0, 1, 2, 4, 99)] == [0.0, 0.5, 1.0, 2.0, 2.0]


def test_a_decay_lasts_for_a_step_at_least() -> None:
    config = composed("schedule=linear", "schedule.warmup=0", "schedule.end=0.1").schedule
    assert build_schedule(config, 2.0, 4)(0) == 2.0


def test_linear_by_hand() -> None:
    rates = [linear_schedule(t, 1.0, 0.2, 4, 12) for t in range(15)]
    assert rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert rates[8] == pytest.approx(0.6)
    assert rates[12:] == [0.2] * 3


def test_inverse_sqrt_by_hand() -> None:
    rates = [inverse_sqrt_schedule(t, 3.0, 100) for t in (0, 50, 100, 400, 10_000)]
    assert rates == pytest.approx([0.0, 1.5, 3.0, 1.5, 0.3])


@pytest.mark.parametrize("total", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0, 1, 2, 10, 15])
@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "inverse_sqrt", "wsd"])
def test_short_runs_have_the_rates_of_transformers(kind: str, warmup: int, total: int) -> None:
    config = composed(f"schedule={kind}", f"schedule.warmup={warmup}").schedule
    schedule = build_schedule(config, 0.3, total)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs: torch.optim.lr_scheduler.LambdaLR
    if kind == "constant":
        theirs = get_constant_schedule_with_warmup(optimizer, warmup)
    elif kind == "inverse_sqrt":
        theirs = get_inverse_sqrt_schedule(optimizer, warmup, timescale=max(1, warmup))
    elif kind == "linear":
        theirs = get_linear_schedule_with_warmup(optimizer, warmup, total)
    elif kind == "cosine":
        theirs = get_cosine_with_min_lr_schedule_with_warmup(
            optimizer, warmup, total, min_lr_rate=0.1
        )
    else:
        theirs = get_wsd_schedule(optimizer, warmup, round(0.2 * total), total)
    for t in range(total):
        assert schedule(t) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_wsd_by_hand() -> None:
    config = composed(
        "schedule=wsd", "schedule.warmup=10", "schedule.decay=0.5", "schedule.min_ratio=0.1"
    ).schedule
    schedule = build_schedule(config, 1.0, 100)
    assert [schedule(t) for t in (0, 5, 10, 49, 50)] == pytest.approx([0, 0.5, 1, 1, 1])
    assert schedule(75) == pytest.approx(0.55)
    assert schedule(100) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "inverse_sqrt", "wsd"])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_every_schedule_is_defined_at_every_step(kind: str, total: int) -> None:
    schedule = build_schedule(composed(f"schedule={kind}").schedule, 0.5, total)
    rates = [schedule(t) for t in range(total + 1)]
    assert all(0 <= rate <= 0.5 + 1e-12 for rate in rates)
    assert rates[0] > 0 or total > 7


@pytest.mark.parametrize(
    ("overrides", "total", "said"),
    [
        (["schedule.warmup=1000"], 100, "(1,000 steps) does not end within the run of 100: "),
        (["schedule.warmup=1000"], 100, "the learning rate rises to 9.9 % of its peak; "),
        (["schedule=constant", "schedule.warmup=100"], 100, "rises to 99 % of its peak"),
        (["schedule=wsd", "schedule.warmup=5"], 3, "does not end within the run of 3"),
        (["schedule=inverse_sqrt", "schedule.warmup=20"], 10, "rises to 45 % of its peak"),
        (["schedule.warmup=50", "schedule.end=40"], 100, "is not over at schedule.end=40 (step 40"),
        (["schedule=linear", "schedule.warmup=50", "schedule.end=0.5"], 100, "(step 50): the lear"),
        (
            ["schedule=wsd", "schedule.warmup=60", "schedule.decay=80"],
            100,
            "take 140 steps, the run has 100: it decays in the last 40; ",
        ),
        (["schedule.warmup=99"], 100, None),
        (["schedule=wsd", "schedule.warmup=20", "schedule.decay=80"], 100, None),
        (["schedule=wsd", "schedule.warmup=0.1", "schedule.decay=0.9"], 15, None),
        *[([f"schedule={kind}"], 3, None) for kind in ("constant", "cosine", "linear", "wsd")],
        *[([f"schedule={kind}"], 1, None) for kind in ("cosine", "inverse_sqrt", "wsd")],
    ],
)
def test_a_schedule_that_does_not_fit_into_the_run_is_said(
    overrides: list[str], total: int, said: str | None
) -> None:
    warning = schedule_warning(composed(*overrides).schedule, total)
    assert (warning is None) == (said is None), warning
    if warning is not None and said is not None:
        assert warning.startswith("warning: schedule.warmup=")
        assert said in warning
        assert "\n" not in warning
