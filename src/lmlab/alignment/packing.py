"""Several short sequences in one row, whose attention stays within its sequence."""

import bisect
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return the places of sequences by row, each row of at most `capacity` tokens.

    The longest sequences are placed first, each into the fullest row that takes it (best fit
    decreasing); within a row they keep their order. Raises ValueError when one is longer than
    `capacity`.
    """
    if any(length > capacity for length in lengths):
        raise ValueError(f"a sequence of {max(lengths)} tokens does not fit into {capacity}")
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # tokens that fit, row
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        found = bisect.bisect_left(spaces, (lengths[place], -1))
        if found < len(spaces):
            space, row = spaces.pop(found)
        else:
            space, row = capacity, len(rows)
            rows.append([])
        rows[row].append(place)
        bisect.insort(spaces, (space - lengths[place], row))
    return [sorted(row) for row in rows]
