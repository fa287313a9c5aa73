"""A batch: a tuple of tensors that have one row for each sequence."""

from collections.abc import Iterator

import torch
from torch import Tensor

Batch = tuple[Tensor | None, ...]
"""What an objective takes as its arguments; a NamedTuple gives the parts names. None: not given."""


def count_rows(batch: Batch) -> int:
    """Return the number of sequences; raises ValueError when the parts disagree."""
    sizes = {len(part) for part in batch if part is not None}
    if len(sizes) != 1:
        raise ValueError(f"the parts of a batch must have equally many rows, got {sorted(sizes)}")
    return sizes.pop()


def micro_batches(batch: Batch, size: int | None) -> Iterator[Batch]:
    """Yield the batch in pieces of `size` sequences, the last one perhaps smaller; None: whole."""
    total = count_rows(batch)
    for start in range(0, total, size or total):
        stop = start + (size or total)
        yield tuple(None if part is None else part[start:stop] for part in batch)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on a device."""
    return tuple(None if part is None else part.to(device, non_blocking=True) for part in batch)


def count_elements(batch: Batch) -> int:
    """Return the elements of the first part: the tokens, where that is the ids."""
    return 0 if batch[0] is None else batch[0].numel()
