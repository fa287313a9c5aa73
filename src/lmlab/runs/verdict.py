"""The result of a sweep in a sentence, and whether it is significant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmlab.runs.collect import Setting, Sweep
from lmlab.runs.statistics import SIGNIFICANT, Comparisons, Difference, Noise

SHOWN = 4
"""Most settings that a sentence names."""


@dataclass(frozen=True)
class Comparison:
    """How much worse a setting is than the best."""

    setting: Setting
    difference: Difference

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at 5 %."""
        return self.difference.p is not None and self.difference.p < SIGNIFICANT


@dataclass(frozen=True)
class Verdict:
    """The best setting, and every other one against it, the nearest first."""

    best: Setting | None
    comparisons: tuple[Comparison, ...]
    headline: str
    support: str
    """Whether the difference is significant, in a sentence."""
    noise: str
    """The deviation between seeds and how settings are compared by it, in a sentence."""


def judge(sweep: Sweep) -> Verdict:
    """Find the best setting and compare the others with it, as `Comparisons` describes.

    A setting that diverged with some seed is neither taken for the best nor compared: its remaining
    seeds are a biased sample. Settings that lack seeds are compared as if they had them all, where
    the analysis is paired by seed.
    """
    sound = [s for s in sweep.settings if s.estimate.n and not s.diverged]
    if not sound:
        text = "No run has finished yet." if _any_open(sweep) else "Every setting diverged."
        return Verdict(None, (), text, "", "")
    sign = sweep.sign
    tests = Comparisons([{seed: sign * v for seed, v in s.by_seed.items()} for s in sound])
    first = min(range(len(sound)), key=tests.levels.__getitem__)
    best = sound[first]
    comparisons = [
        Comparison(setting, tests.difference(first, index))
        for index, setting in enumerate(sound)
        if index != first
    ]
    comparisons.sort(key=lambda comparison: comparison.difference.value)
    seeds = f"{best.estimate.n} seed{'s' if best.estimate.n > 1 else ''}"
    headline = f"{best}: {sweep.metric_name} {best.estimate} ({seeds})"
    support = " ".join([_support(comparisons, len(sound)), *_unsound(sweep, best)])
    noise = _describe_noise(tests.noise, sound) if comparisons else ""
    return Verdict(best, tuple(comparisons), headline, support, noise)


def _support(comparisons: Sequence[Comparison], settings: int) -> str:
    if not comparisons:
        return "There is no other setting to compare it with that finished and did not diverge."
    nearest = comparisons[0]
    p = nearest.difference.p
    text = f"{nearest.difference.value:.4f} better than the next, {nearest.setting}"
    if p is None:
        return f"{text}; without a second seed the significance is unknown."
    test = f"p {format_p(p)}" + (
        f", adjusted for all pairs of {settings} settings" if settings > 2 else ""
    )
    if nearest.significant:
        return f"{text}: significant ({test})."
    alike = [str(c.setting) for c in comparisons if not c.significant]
    if len(alike) > SHOWN:
        alike = [*alike[: SHOWN - 1], f"{len(alike) - SHOWN + 1} more"]
    return (
        f"{text}: not significant ({test}). "
        f"Not significantly different from the best: {'; '.join(alike)}."
    )


def _describe_noise(noise: Noise | None, settings: Sequence[Setting]) -> str:
    if noise is None:
        return ""
    how = "paired by seed" if noise.paired else "not paired by seed"
    text = f"Pooled deviation of a run: {noise.deviation:.4f} ({noise.degrees} degrees of freedom, "
    text += f"{how})."
    if noise.paired and len({frozenset(setting.by_seed) for setting in settings}) > 1:
        text += " Not all settings have all seeds; differences are adjusted for the missing ones."
    if noise.excluded:
        names = "; ".join(str(settings[index]) for index in sorted(noise.excluded))
        text += f" By their own, larger deviation: {names}."
    return text


def _unsound(sweep: Sweep, best: Setting) -> Iterator[str]:
    """Name the settings that diverged with some seeds and were better than the best with others."""
    better = "lower" if sweep.sign > 0 else "higher"
    for setting in sweep.settings:
        survived = setting.estimate
        if setting.diverged and sweep.sign * (survived.mean - best.estimate.mean) < 0:
            seeds = f"{survived.n} of {len(setting.rows)} seeds"
            yield f"{setting} was {better} where it did not diverge ({seeds})."


def _any_open(sweep: Sweep) -> bool:
    return any(setting.unfinished for setting in sweep.settings)


def format_p(value: float) -> str:
    """Return a p-value behind its sign."""
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"
