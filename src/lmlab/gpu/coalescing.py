"""Coalescing: how many sectors of memory the addresses of one warp touch."""

from dataclasses import dataclass

from lmlab.errors import UserError
from lmlab.gpu.occupancy import ceil_div
from lmlab.gpu.sheets import Sheet

WIDTHS = (1, 2, 4, 8, 16)
"""Bytes that a thread can read with one instruction."""


@dataclass(frozen=True)
class Access:
    """One instruction of a warp: thread i reads `width` bytes from `offset + i stride width`."""

    stride: int
    """Elements from one thread's to the next one's."""
    offset: int
    """Bytes from a sector's beginning to the first thread's address."""
    width: int
    """Bytes of an element."""
    sectors: int
    useful: int
    """Bytes that some thread asked for."""
    transferred: int
    """Bytes of the sectors."""

    @property
    def efficiency(self) -> float:
        """Share of the transferred bytes that some thread asked for."""
        return self.useful / self.transferred

    @property
    def least_sectors(self) -> int:
        """Sectors that as many bytes in a row would need."""
        return ceil_div(self.useful, self.transferred // self.sectors)


def access(sheet: Sheet, stride: int = 1, offset: int = 0, width: int = 4) -> Access:
    """Return the sectors that a warp touches; stride 0 is one address for all threads.

    Raises UserError for widths that no instruction has, and for addresses that are no multiple of
    the width, which CUDA does not allow.
    """
    if width not in WIDTHS:
        raise UserError(f"a thread reads {', '.join(map(str, WIDTHS))} bytes, got {width}")
    if offset < 0 or offset % width:
        raise UserError(
            f"an address must be a multiple of the {width} bytes that are read there, "
            f"got the offset {offset}"
        )
    begins = [offset + thread * stride * width for thread in range(sheet.warp_size)]
    touched = {byte for begin in begins for byte in range(begin, begin + width)}
    sectors = len({byte // sheet.sector for byte in touched})
    return Access(stride, offset, width, sectors, len(touched), sectors * sheet.sector)
