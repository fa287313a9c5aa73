"""Occupancy: how many blocks of a kernel an SM holds at once, and which resource limits them."""

from dataclasses import dataclass

from lmlab.errors import UserError
from lmlab.gpu.sheets import Sheet


@dataclass(frozen=True)
class Occupancy:
    """Blocks of one kernel on one SM."""

    sheet: Sheet
    threads: int
    """Threads in a block."""
    registers: int
    """Registers of a thread."""
    shared_memory: int
    """Bytes of shared memory that a block asks for."""
    limits: dict[str, int]
    """Blocks that each resource allows: warps, blocks, registers, shared memory."""

    @property
    def blocks(self) -> int:
        """Blocks on an SM; 0: the kernel cannot start."""
        return min(self.limits.values())

    @property
    def warps(self) -> int:
        """Warps on an SM."""
        return self.blocks * ceil_div(self.threads, self.sheet.warp_size)

    @property
    def share(self) -> float:
        """Warps on an SM as a share of those that it can hold."""
        return self.warps / self.sheet.warps_per_sm

    @property
    def limited_by(self) -> list[str]:
        """The resources that allow no further block."""
        return [name for name, blocks in self.limits.items() if blocks == self.blocks]


def occupancy(sheet: Sheet, threads: int, registers: int = 32, shared_memory: int = 0) -> Occupancy:
    """Return the occupancy of a kernel, as the CUDA Occupancy Calculator counts it.

    `registers` are of a thread, `shared_memory` is of a block, in bytes. Raises UserError for a
    block that has no threads or more registers than the instruction set can name.
    """
    if threads < 1:
        raise UserError(f"a block needs a thread, got {threads}")
    if not 1 <= registers <= sheet.registers_per_thread:
        raise UserError(
            f"a thread has 1 to {sheet.registers_per_thread} registers on {sheet.name}, "
            f"got {registers}"
        )
    if shared_memory < 0:
        raise UserError(f"shared memory cannot be negative, got {shared_memory}")
    limits = {
        "warps": _by_warps(sheet, threads),
        "blocks": sheet.max_blocks_per_sm,
        "registers": _by_registers(sheet, threads, registers),
    }
    if shared_memory + sheet.reserved_shared_memory:
        limits["shared memory"] = _by_shared_memory(sheet, shared_memory)
    return Occupancy(sheet, threads, registers, shared_memory, limits)


def _by_warps(sheet: Sheet, threads: int) -> int:
    if threads > sheet.max_threads_per_block:
        return 0
    return sheet.warps_per_sm // ceil_div(threads, sheet.warp_size)


def _by_registers(sheet: Sheet, threads: int, registers: int) -> int:
    warps = ceil_div(threads, sheet.warp_size)
    of_warp = round_up(registers * sheet.warp_size, sheet.register_unit)
    # The check at launch counts as many warps in every part of the SM.
    if of_warp * round_up(warps, sheet.schedulers_per_sm) > sheet.registers_per_block:
        return 0
    of_part = sheet.registers_per_sm // sheet.schedulers_per_sm // of_warp
    return of_part * sheet.schedulers_per_sm // warps


def _by_shared_memory(sheet: Sheet, shared_memory: int) -> int:
    taken = round_up(shared_memory + sheet.reserved_shared_memory, sheet.shared_memory_unit)
    if taken > sheet.shared_memory_per_block + sheet.reserved_shared_memory:
        return 0
    return sheet.shared_memory_per_sm // taken


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up."""
    return -(-a // b)


def round_up(a: int, unit: int) -> int:
    """Return the smallest multiple of `unit` from `a` on."""
    return ceil_div(a, unit) * unit
