"""Tokens per second, and how close they come to what the device can do."""

import time

import torch

from lmlab.training.device import DTYPES


def measured_peak(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of the device's best large matrix product in the given precision."""
    dtype = DTYPES[precision]
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Meter:
    """Counts tokens over the seconds of training, evaluations and checkpoints left out."""

    def __init__(self, flops_per_token: float, peak: float, tokens: int, seconds: float) -> None:
        self.flops_per_token = flops_per_token
        self.peak = peak
        self.tokens, self.seconds = tokens, seconds
        self._logged_tokens, self._logged_seconds = tokens, seconds
        self._started = 0.0

    def start(self) -> None:
        """Begin to count time."""
        self._started = time.perf_counter()

    def stop(self, tokens: int) -> None:
        """End counting time; `tokens` were trained on since `start`."""
        self.seconds += time.perf_counter() - self._started
        self.tokens += tokens

    def rates(self) -> dict[str, float]:
        """Return tokens per second since the last call, and their share of the device's peak."""
        tokens, seconds = self.tokens - self._logged_tokens, self.seconds - self._logged_seconds
        self._logged_tokens, self._logged_seconds = self.tokens, self.seconds
        rate = tokens / max(seconds, 1e-9)
        return {"tokens_per_second": rate, "mfu": rate * self.flops_per_token / self.peak}

    def overall(self) -> float:
        """Return tokens per second of the whole run."""
        return self.tokens / max(self.seconds, 1e-9)
