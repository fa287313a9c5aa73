"""How curves are shown: smoothing noise, choosing a scale."""


def smoothing_weight(points: int) -> float:
    """Return the weight that averages over about a fortieth of a curve of so many points."""
    return min(0.99, 1 - 1 / max(1.0, points / 40))


def smooth(values: list[float], weight: float) -> list[float]:
    """Return the exponential moving average of a loss curve.

    Early on it averages over an eighth of the points so far at most, as otherwise it would trail
    the steep beginning visibly.
    """
    average, smoothed = 0.0, []
    for index, value in enumerate(values):
        average += max(1 - weight, 1 / (1 + index / 8)) * (value - average)
        smoothed.append(average)
    return smoothed


def wants_log_scale(values: list[float]) -> bool:
    """Return whether a diverging curve would flatten everything else on a linear scale."""
    return bool(values) and min(values) > 0 and max(values) > 20 * min(values)
