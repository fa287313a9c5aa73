"""Tokens per second, and their share of what the device can compute."""

import json
import os
import platform
import resource
import sys
import time
from pathlib import Path

import torch

from lmlab.files import atomic_write
from lmlab.gpu.sheets import bf16_peak
from lmlab.model.products import linear, upcasts
from lmlab.training.device import DTYPES

SECONDS = 0.3
"""Seconds for which the peak is measured at the start of a run."""


def measured_peak(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of the device's fastest large matrix product in the given precision.

    It is the highest value that any run on this machine has measured, so that a measurement on a
    busy machine does no lasting harm. `~/.cache/lmlab/peaks.json`, or `$LMLAB_CACHE`, keeps it for
    each device, precision and number of threads.
    """
    folder = os.environ.get("LMLAB_CACHE") or Path.home() / ".cache" / "lmlab"
    path = Path(folder, "peaks.json")
    dtype = _multiplied(device, precision)
    key = f"{_name(device)}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}"
    peak = measure_peak(device, precision)
    try:
        peaks = json.loads(path.read_text(encoding="utf-8"))
        best = max(peak, float(peaks.get(key, 0)))
    except (OSError, ValueError, TypeError, AttributeError):
        peaks, best = {}, peak
    try:
        with atomic_write(path) as file:
            json.dump(peaks | {key: best}, file, indent=2)
    except OSError:  # the home directory is not writable: use this measurement alone
        pass
    return best


def measure_peak(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of the fastest of the matrix products that fit into `SECONDS`.

    Their size doubles while time is left: without fast kernels for the precision, the largest one
    would take a minute.
    """
    largest, dtype = 8192 if device.type == "cuda" else 2048, _multiplied(device, precision)
    size = 128
    # The first product of a process loads its kernels, for longer than all that are measured.
    a = torch.zeros(size, size, device=device, dtype=dtype)
    linear(a, a)
    synchronize(device)
    began = time.perf_counter()
    while True:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        best, left, grows = float("inf"), SECONDS, False
        while left > 0 and not grows:
            start = time.perf_counter()
            linear(a, b)
            synchronize(device)
            end = time.perf_counter()
            best, left = min(best, end - start), SECONDS - (end - began)
            grows = size < largest and 8 * best < left
        if not grows:
            return 2 * size**3 / best
        size *= 2


def _multiplied(device: torch.device, precision: str) -> torch.dtype:
    """Return the dtype in which matrix products of the precision are computed."""
    dtype = DTYPES[precision]
    return torch.float32 if upcasts(device, dtype) else dtype


def data_sheet_peak(device: torch.device) -> float | None:
    """Return the vendor's bfloat16 FLOP/s of a known GPU; None for others."""
    return bf16_peak(_name(device))


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} {platform.node()} {platform.processor()} {threads} threads"


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> float:
    """Return the peak memory so far in GiB: of torch's allocator on CUDA, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class Meter:
    """Counts tokens and FLOPs over the seconds of training, without evaluations and checkpoints."""

    def __init__(self, peaks: dict[str, float]) -> None:
        self.peaks = peaks
        """FLOP/s by the name of the metric that is the share of it."""
        self.continue_from(0, 0.0)
        self._started = self._batch_seconds = 0.0

    def continue_from(self, tokens: int, seconds: float) -> None:
        """Set what was counted before."""
        self.tokens, self.seconds = tokens, seconds
        self._logged_tokens, self._logged_seconds = tokens, seconds
        self._flops: float | None = 0.0

    def start(self) -> None:
        """Begin to measure a step."""
        self._started = time.perf_counter()

    def batch_is_ready(self) -> None:
        """Note that the step has its batch: what came before was waiting for data."""
        self._batch_seconds += time.perf_counter() - self._started

    def count(self, tokens: int, flops: float | None) -> None:
        """Count the tokens and the FLOPs of a step; None: not known."""
        self.tokens += tokens
        self._flops = None if flops is None or self._flops is None else self._flops + flops

    def stop(self) -> None:
        """End measuring a step."""
        self.seconds += time.perf_counter() - self._started

    def rates(self) -> dict[str, float]:
        """Return, since the last call, tokens per second, the share of the time that was spent on
        making batches, and the share of each peak, left out where FLOPs are not known.
        """
        tokens, seconds = self.tokens - self._logged_tokens, self.seconds - self._logged_seconds
        self._logged_tokens, self._logged_seconds = self.tokens, self.seconds
        rate = tokens / max(seconds, 1e-9)
        share, self._batch_seconds = self._batch_seconds / max(seconds, 1e-9), 0.0
        rates = {"tokens_per_second": rate, "batch_time_share": share}
        if self._flops is not None:
            done = self._flops / max(seconds, 1e-9)
            rates |= {name: done / peak for name, peak in self.peaks.items()}
        self._flops = 0.0
        return rates

    def overall(self) -> float:
        """Return tokens per second of the whole run."""
        return self.tokens / max(self.seconds, 1e-9)
