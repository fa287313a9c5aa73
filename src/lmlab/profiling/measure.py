"""Measurements on a GPU that `lmlab gpu --measure` prints beside its predictions."""

import statistics
from collections.abc import Callable

import torch

from lmlab.errors import UserError
from lmlab.gpu.names import Precision
from lmlab.gpu.sheets import Sheet, find_sheet

ELEMENTS = 2**26
"""Elements that a measured access reads."""
REPEATS = 20
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def require_gpu() -> torch.device:
    """Return the CUDA device; raises UserError when torch finds none."""
    if not torch.cuda.is_available():
        raise UserError("torch finds no CUDA device here; leave out --measure for the prediction")
    return torch.device("cuda")


def measured_on(sheet: Sheet) -> str:
    """Return the line that names the GPU of the measurements, and whether the sheet is its own."""
    name = torch.cuda.get_device_name(require_gpu())
    own = find_sheet(name)
    other = "" if own == sheet else f"; the predictions are for {sheet.name}"
    return f"measured on {name}{other}"


def matmul_seconds(m: int, n: int, k: int, precision: Precision) -> float:
    """Return the median seconds of an (m, k) by (k, n) product; UserError without a GPU."""
    device = require_gpu()
    if precision not in DTYPES:
        raise UserError(f"--measure multiplies in {', '.join(DTYPES)}, not in {precision}")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    left = torch.randn(m, k, device=device, dtype=DTYPES[precision])
    right = torch.randn(k, n, device=device, dtype=DTYPES[precision])
    return device_seconds(lambda: left @ right)


def read_bandwidth(stride: int, offset: int, width: int) -> float:
    """Return the useful bytes per second of reading elements of `width` bytes with a stride.

    Raises UserError without a GPU, and for widths that torch has no type for.
    """
    device = require_gpu()
    dtypes = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if width not in dtypes:
        raise UserError(f"--measure reads 1, 2, 4 or 8 bytes at a time, got {width}")
    count = ELEMENTS // max(stride, 1)
    begin, step = offset // width, stride
    data = torch.zeros(begin + count * max(step, 1), device=device, dtype=dtypes[width])
    view = torch.as_strided(data, (count,), (step,), begin)
    out = torch.empty(count, device=device, dtype=dtypes[width])
    seconds = device_seconds(lambda: out.copy_(view))
    written = device_seconds(lambda: out.fill_(1))  # the copy writes, too
    return count * width / max(seconds - written, 1e-9)


def device_seconds(run: Callable[[], object]) -> float:
    """Return the median seconds of work on the GPU, by its own clock, after three warmups."""
    for _ in range(3):
        run()
    times = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)
