"""The report on accuracy on problems."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from lmlab.alignment.accuracy import wilson_interval
from lmlab.alignment.rewards import Reward
from lmlab.evaluation.plot import write_plot
from lmlab.evaluation.problems import ProblemResult, report_problems


@pytest.mark.parametrize("right", [0, 3, 20])
def test_the_picture_has_the_interval_of_the_table(
    right: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = tuple(Reward.of(True, number < right) for number in range(20))
    report = report_problems({("file", "run"): ProblemResult(rewards, (), (), 0)}, [])
    low, high = wilson_interval(right, 20)
    (row,) = report.rows
    assert (row["greedy_accuracy_low"], row["greedy_accuracy_high"]) == (low, high)
    drawn: list[Any] = []
    original = Axes.errorbar

    def errorbar(axes: Axes, x: float, y: float, **settings: Any) -> Any:
        drawn.append((x, settings["xerr"]))
        return original(axes, x, y, **settings)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    write_plot(report.panels, tmp_path / "plot.png")
    share = right / 20
    assert drawn == [(share, [[pytest.approx(share - low)], [pytest.approx(high - share)]])]
