"""The shipped experiment on the smallest training there is, against its formula."""

import importlib.util
import math

import pytest

from tests_support import ROOT

path = ROOT / "experiments" / "sgd_toy" / "run.py"
spec = importlib.util.spec_from_file_location("sgd_toy", path)
assert spec is not None
assert spec.loader is not None
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


@pytest.mark.parametrize("lr", [1.0, 10.0, 1000.0])
def test_the_toy_equals_its_formula(lr: float) -> None:
    losses = toy.losses(lr)
    factors = [(1 - lr / (50 * math.sqrt(step + 1))) ** 2 for step in range(toy.STEPS)]
    expected = [losses[0] * math.prod(factors[:step]) for step in range(toy.STEPS + 1)]
    assert losses == pytest.approx(expected, rel=1e-4)


def test_larger_rates_are_faster_up_to_the_edge() -> None:
    ends = [toy.losses(lr)[-1] for lr in toy.RATES]
    assert ends[0] > ends[1] > ends[2]
    assert ends[2] < 1e-12 < 1e12 < ends[3]
