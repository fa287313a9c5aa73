"""Sets of moments, as intervals: unions, intersections, differences."""

from collections.abc import Iterable, Iterator

Span = tuple[float, float]
"""Begin and end."""


def merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield the union of intervals as intervals that do not touch."""
    last: Span | None = None
    for begin, end in sorted(spans):
        if last is not None and begin <= last[1]:
            last = (last[0], max(last[1], end))
        else:
            if last is not None:
                yield last
            last = (begin, end)
    if last is not None:
        yield last


def covered(spans: Iterable[Span]) -> float:
    """Return the length of the union of intervals."""
    return sum(end - begin for begin, end in merged(spans))


def common(one: Iterable[Span], other: Iterable[Span]) -> list[Span]:
    """Return what both sets of intervals cover."""
    ones, others = list(merged(one)), list(merged(other))
    found, i, j = [], 0, 0
    while i < len(ones) and j < len(others):
        begin, end = max(ones[i][0], others[j][0]), min(ones[i][1], others[j][1])
        if begin < end:
            found.append((begin, end))
        if ones[i][1] < others[j][1]:
            i += 1
        else:
            j += 1
    return found


def without(one: Iterable[Span], other: Iterable[Span]) -> list[Span]:
    """Return what the first set of intervals covers and the second one does not."""
    others = list(merged(other))
    if not others:
        return list(merged(one))
    edges = [float("-inf"), *(at for span in others for at in span), float("inf")]
    return common(one, zip(edges[::2], edges[1::2], strict=True))
