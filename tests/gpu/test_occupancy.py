"""Occupancy is what the CUDA toolkit computes."""

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

from lmlab.errors import UserError
from lmlab.gpu.names import sheet_names
from lmlab.gpu.occupancy import occupancy
from lmlab.gpu.sheets import Sheet, load_sheet

LIMITS = {"warps": 1, "registers": 2, "shared memory": 4, "blocks": 8}
"""Bits of the oracle's mask."""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the program around the toolkit's header, which is in triton's wheel."""
    triton = pytest.importorskip("triton", reason="cuda_occupancy.h is in triton's wheel")
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    include = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    program = tmp_path_factory.mktemp("oracle") / "oracle"
    source = Path(__file__).parent / "oracle.cpp"
    command = [compiler, "-O1", "-w", f"-I{include}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def asked(oracle: Path, sheet: Sheet, kernels: list[tuple[int, ...]]) -> list[tuple[int, int]]:
    """Return blocks on an SM and the mask of limits by the toolkit."""
    device = [
        *sheet.compute_capability.split("."), sheet.max_threads_per_block, sheet.max_threads_per_sm,
        sheet.registers_per_block, sheet.registers_per_sm, sheet.shared_memory_per_sm,
        sheet.shared_memory_per_block, 49152, sheet.reserved_shared_memory,
    ]  # fmt: skip
    text = "\n".join(" ".join(map(str, kernel)) for kernel in kernels)
    command = [str(oracle), " ".join(map(str, device))]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return [(int(a), int(b)) for a, b in map(str.split, done.stdout.splitlines())]


@pytest.mark.parametrize("name", sheet_names())
def test_occupancy_is_that_of_the_cuda_toolkit(name: str, oracle: Path) -> None:
    """On a grid of 10,000 kernels, between the steps of the allocation as well."""
    sheet = load_sheet(name)
    threads = [1, 31, 32, 33, 64, 65, 96, 128, 160, 192, 224, 256, 257, 320, 384, 448, 512]
    threads += [513, 576, 640, 768, 896, 960, 1023, 1024]
    registers = [1, 8, 9, 16, 24, 31, 32, 33, 40, 48, 56, 63, 64, 65, 80, 96, 128, 168, 200, 255]
    top = sheet.shared_memory_per_block
    shared = [0, 1, 127, 128, 1024, 1025, 4096, 8192, 16384, 24576, 32768, 48 * 1024, 49153, 65536]
    shared += [top // 3, top // 2, top // 2 + 1, top - 1024, top, top + 1]
    grid = list(itertools.product(threads, registers, shared))
    assert len(grid) == 10_000
    expected = asked(oracle, sheet, grid)
    assert len({blocks for blocks, _ in expected}) > 10
    for kernel, (blocks, mask) in zip(grid, expected, strict=True):
        ours = occupancy(sheet, *kernel)
        limited = {limit for limit, bit in LIMITS.items() if mask & bit}
        assert (ours.blocks, set(ours.limited_by)) == (blocks, limited), kernel


def test_a_block_that_is_too_large_cannot_start() -> None:
    sheet = load_sheet("H100")
    assert occupancy(sheet, 1056).limited_by == ["warps"]
    assert occupancy(sheet, 1024, 255).blocks == 0
    assert occupancy(sheet, 32, 32, sheet.shared_memory_per_block + 1).blocks == 0


@pytest.mark.parametrize("kernel", [(0, 32, 0), (32, 0, 0), (32, 256, 0), (32, 32, -1)])
def test_kernels_that_do_not_exist_are_refused(kernel: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="got"):
        occupancy(load_sheet("H100"), *kernel)
