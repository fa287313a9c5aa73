"""The answer of a sweep in a sentence, and how much of it the seeds support."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmlab.runs.collect import Setting, Sweep
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

    A setting that diverged with some seed is neither taken for the best nor compared: the seeds
    that are left of it are the lucky ones.
    """
    sound = [s for s in sweep.settings if s.estimate.n and not s.diverged]
    if not sound:
        said = "No run has finished yet." if _any_open(sweep) else "Every setting diverged."
        return Verdict(None, (), said, "")
    sign = sweep.sign
    best = min(sound, key=lambda setting: sign * setting.estimate.mean)
    others = [setting for setting in sound if setting is not best]
    differences = [
        welch([sign * v for v in best.values], [sign * v for v in setting.values])
        for setting in others
    ]
    known = [d.p for d in differences if d.p is not None]
    adjusted = iter(holm(known))
    comparisons = [
        Comparison(setting, difference, next(adjusted) if difference.p is not None else None)
        for setting, difference in zip(others, differences, strict=True)
    ]
    comparisons.sort(key=lambda comparison: comparison.difference.value)
    seeds = f"{best.estimate.n} seed{'s' if best.estimate.n > 1 else ''}"
    headline = f"{best}: {sweep.metric_name} {best.estimate} ({seeds})"
    support = " ".join([_support(comparisons), *_unsound(sweep, best)])
    return Verdict(best, tuple(comparisons), headline, support)


def _support(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return "There is no other setting to compare it with that finished and did not diverge."
    nearest = comparisons[0]
    text = f"{nearest.difference.value:.4f} better than the next, {nearest.setting}"
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


def _unsound(sweep: Sweep, best: Setting) -> Iterator[str]:
    """Name the settings whose surviving seeds were better than the best."""
    better = "lower" if sweep.sign > 0 else "higher"
    for setting in sweep.settings:
        survived = setting.estimate
        if setting.diverged and sweep.sign * (survived.mean - best.estimate.mean) < 0:
            seeds = f"{survived.n} of {len(setting.rows)} seeds"
            yield f"{setting} was {better} where it did not diverge ({seeds})."


def _any_open(sweep: Sweep) -> bool:
    return any(setting.unfinished for setting in sweep.settings)


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"
