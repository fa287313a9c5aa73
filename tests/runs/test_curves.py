import pytest

from lmlab.runs.curves import smooth, smoothing_weight, wants_log_scale


def test_weight_zero_changes_nothing() -> None:
    assert smooth([3.0, 1.0, 2.0], 0.0) == [3.0, 1.0, 2.0]


def test_smoothing_keeps_a_constant_and_settles_on_the_usual_average() -> None:
    assert smooth([2.0] * 50, 0.9) == pytest.approx([2.0] * 50)
    values = [float(index % 2) for index in range(1000)]
    average = 0.5  # long after the start, what it started from is forgotten
    for value in values:
        average = 0.9 * average + 0.1 * value
    assert smooth(values, 0.9)[-1] == pytest.approx(average)


def test_smoothing_starts_at_the_first_value() -> None:
    assert smooth([8.0, 4.0], 0.99)[0] == 8.0
    assert smooth([], 0.9) == []


def test_short_curves_are_not_smoothed() -> None:
    assert smoothing_weight(0) == smoothing_weight(40) == 0.0
    assert smoothing_weight(400) == pytest.approx(0.9)
    assert smoothing_weight(10**6) == 0.99


def test_log_scale_is_for_diverging_curves() -> None:
    assert wants_log_scale([8.0, 4.0, 900.0])
    assert not wants_log_scale([8.0, 4.0])
    assert not wants_log_scale([0.0, 1.0])
    assert not wants_log_scale([])
