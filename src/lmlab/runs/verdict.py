"""The answer of a sweep in a sentence, and how much of it the seeds support."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmlab.runs.collect import HIGHER_IS_BETTER, Setting, Sweep
from lmlab.runs.statistics import SIGNIFICANT, Difference, holm, welch

SHOWN = 4
"""Settings that a sentence names, at most."""


@dataclass(frozen=True)
class Comparison:
    """How much worse a setting is than the best."""

    setting: Setting
    difference: Difference
    p: float | None
    """Adjusted for the number of comparisons (Holm); None where a setting has one seed only."""

    @property
    def clear(self) -> bool:
        """Whether the difference is larger than the noise of the seeds."""
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True)
class Verdict:
    """The best setting, and every other one against it, the nearest first."""

    best: Setting | None
    comparisons: tuple[Comparison, ...]
    headline: str
    support: str
    """Whether the difference is larger than the seeds' noise, in a sentence."""


def judge(sweep: Sweep) -> Verdict:
    """Find the best setting and compare the others with it by Welch's t-tests.

    A setting that diverged with some seed is not taken for the best.
    """
    sound = [s for s in sweep.settings if s.estimate.n and not s.diverged]
    if not sound:
        said = "No run has finished yet." if _any_open(sweep) else "Every setting diverged."
        return Verdict(None, (), said, "")
    sign = -1 if sweep.metric in HIGHER_IS_BETTER else 1
    best = min(sound, key=lambda setting: sign * setting.estimate.mean)
    others = [s for s in sweep.settings if s is not best and s.estimate.n]
    differences = [welch(best.values, setting.values) for setting in others]
    known = [d.p for d in differences if d.p is not None]
    adjusted = iter(holm(known))
    comparisons = [
        Comparison(setting, difference, next(adjusted) if difference.p is not None else None)
        for setting, difference in zip(others, differences, strict=True)
    ]
    comparisons.sort(key=lambda comparison: sign * comparison.setting.estimate.mean)
    seeds = f"{best.estimate.n} seed{'s' if best.estimate.n > 1 else ''}"
    headline = f"{best}: {sweep.metric_name} {best.estimate} ({seeds})"
    return Verdict(best, tuple(comparisons), headline, _support(comparisons))


def _support(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return "There is no other finished setting to compare it with."
    nearest = comparisons[0]
    text = f"{abs(nearest.difference.value):.4f} better than the next, {nearest.setting}"
    if nearest.p is None:
        return f"{text}; with one seed a setting, nothing says whether that is more than noise."
    tests = len([c for c in comparisons if c.p is not None])
    p = f"Welch's t-test, p {_p(nearest.p)}" + (
        f" after Holm's correction for {tests} comparisons" if tests > 1 else ""
    )
    if nearest.clear:
        return f"{text}: larger than the noise of the seeds ({p})."
    alike = [str(c.setting) for c in comparisons if not c.clear]
    if len(alike) > SHOWN:
        alike = [*alike[: SHOWN - 1], f"{len(alike) - SHOWN + 1} more"]
    return (
        f"{text}: not larger than the noise of the seeds ({p}). "
        f"Not told apart from the best: {'; '.join(alike)}."
    )


def _any_open(sweep: Sweep) -> bool:
    return any(setting.unfinished for setting in sweep.settings)


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"
