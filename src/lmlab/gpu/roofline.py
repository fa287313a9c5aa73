"""The roofline: a kernel takes as long as its arithmetic or its memory traffic, whichever is longer
(Williams, Waterman and Patterson 2009)."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmlab.errors import UserError
from lmlab.gpu.names import BYTES, Precision
from lmlab.gpu.sheets import Sheet

LEAST, LARGEST = 1.0, 1e30
"""FLOPs and bytes of a kernel that somebody means."""

LARGEST_SIZE = 10**9
"""Rows or columns of a matrix that somebody means."""


@dataclass(frozen=True)
class Work:
    """What one operation has to do."""

    name: str
    flops: float
    bytes: float
    """Read from and written to the GPU's memory."""
    precision: Precision
    """Precision of the arithmetic; fp32 outside of matrix products."""

    @property
    def intensity(self) -> float:
        """FLOPs for each byte."""
        return self.flops / self.bytes if self.bytes else float("inf")


@dataclass(frozen=True)
class Prediction:
    """The least time of an operation on a GPU."""

    work: Work
    seconds: float
    bound: str
    """compute or memory: what takes the time."""
    attainable: float
    """FLOP/s that the operation can reach."""


def ridge(sheet: Sheet, precision: Precision) -> float:
    """Return the FLOPs for each byte from which on arithmetic takes the time."""
    return sheet.peak(precision) / sheet.bandwidth


def predict(work: Work, sheet: Sheet) -> Prediction:
    """Return the least time of an operation; nothing runs faster, most things run slower.

    Raises UserError when there is nothing to do or the GPU has no such precision.
    """
    meant = [each == 0 or LEAST <= each <= LARGEST for each in (work.flops, work.bytes)]
    if not all(meant) or work.flops == work.bytes == 0:
        raise UserError(
            f"{work.name} needs FLOPs or bytes from {LEAST:g} to {LARGEST:g}, "
            f"got {work.flops:g} and {work.bytes:g}"
        )
    compute = work.flops / sheet.peak(work.precision)
    memory = work.bytes / sheet.bandwidth
    seconds = max(compute, memory)
    bound = "compute" if compute >= memory else "memory"
    return Prediction(work, seconds, bound, work.flops / seconds)


def total_seconds(works: Sequence[Work], sheet: Sheet) -> float:
    """Return the least time of operations one after the other."""
    return sum(predict(work, sheet).seconds for work in works)


def matmul(m: int, n: int, k: int, precision: Precision, name: str = "") -> Work:
    """Return the work of an (m, k) by (k, n) product that reads and writes every element once."""
    if min(m, n, k) < 1:
        raise UserError(f"a matrix product needs sizes of 1 or more, got {m} x {n} x {k}")
    if max(m, n, k) > LARGEST_SIZE:
        raise UserError(f"a matrix product needs sizes up to {LARGEST_SIZE}, got {max(m, n, k)}")
    size = BYTES[precision]
    traffic = (m * k + k * n + m * n) * size
    return Work(name or f"({m}, {k}) x ({k}, {n})", 2.0 * m * n * k, traffic, precision)


def elementwise(
    name: str, elements: float, reads: int, writes: int, element_bytes: float, flops_each: float
) -> Work:
    """Return the work of a kernel that goes over its elements once, in float32 arithmetic."""
    return Work(name, elements * flops_each, elements * (reads + writes) * element_bytes, "fp32")
