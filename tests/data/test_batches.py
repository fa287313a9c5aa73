"""Batches out of token shards: python -m pytest tests/data/test_batches.py."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmlab.data import Batches, get_batch, validation_starts
from lmlab.errors import DataError

# Every token is its own position, so that windows say where they begin.
PLACES = np.arange(1000, dtype=np.uint16)


@given(
    length=st.integers(2, 200),
    context=st.integers(1, 199),
    batch=st.integers(1, 9),
    seed=st.integers(0, 2**64),
    step=st.integers(0, 2**60),
)
def test_windows_are_whole_and_targets_one_ahead(
    length: int, context: int, batch: int, seed: int, step: int
) -> None:
    tokens = np.arange(length, dtype=np.uint16)
    if context >= length:
        with pytest.raises(DataError, match="shorter than one context"):
            Batches(tokens, batch, context, seed)
        return
    x, y = Batches(tokens, batch, context, seed)(step)
    assert x.shape == y.shape == (batch, context)
    assert x.dtype == y.dtype == torch.int64
    assert x.is_contiguous()
    assert y.is_contiguous()
    assert torch.equal(y, x + 1)
    assert torch.equal(x, x[:, :1] + torch.arange(context))


@pytest.mark.parametrize("draw", ["batches", "get_batch"])
def test_every_place_is_drawn_equally_often(draw: str) -> None:
    """Ten places, the last one being length - context - 1: chi-squared over 20,000 draws."""
    tokens, context = PLACES[:14], 4
    if draw == "batches":
        batches = Batches(tokens, 100, context, seed=3)
        starts = torch.cat([batches(step)[0][:, 0] for step in range(200)])
    else:
        generator = torch.Generator().manual_seed(3)
        starts = get_batch(tokens, 20_000, context, generator=generator)[0][:, 0]
    counts = Counter(starts.tolist())
    assert sorted(counts) == list(range(10))
    chi_squared = sum((count - 2000) ** 2 / 2000 for count in counts.values())
    assert chi_squared < 27.9  # 99.9 % of fair draws, 9 degrees of freedom


def test_the_only_place_of_the_shortest_corpus() -> None:
    x, y = Batches(PLACES[:5], 3, 4, seed=0)(7)
    assert x.tolist() == [[0, 1, 2, 3]] * 3
    assert y.tolist() == [[1, 2, 3, 4]] * 3
    with pytest.raises(DataError, match="shorter than one context"):
        get_batch(PLACES[:4], 3, 4)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    one, two = Batches(PLACES, 8, 16, seed=1), Batches(PLACES, 8, 16, seed=1)
    forward = [one(step)[0] for step in range(20)]
    backward = [two(step)[0] for step in reversed(range(20))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    other = Batches(PLACES, 8, 16, seed=2)
    assert len({tuple(batch[:, 0].tolist()) for batch in forward}) == 20
    assert not any(torch.equal(other(step)[0], forward[step]) for step in range(20))


def test_a_smaller_batch_is_the_beginning_of_a_larger_one() -> None:
    small, large = Batches(PLACES, 3, 8, seed=5), Batches(PLACES, 10, 8, seed=5)
    assert np.array_equal(small.starts(4), large.starts(4)[:3])


def test_starts_stay_what_they_are() -> None:
    """A run must be repeatable by later versions of this project and of NumPy."""
    assert Batches(PLACES, 6, 8, seed=42).starts(3).tolist() == [754, 647, 813, 300, 390, 74]


def test_a_memory_map_gives_what_an_array_gives(tmp_path: Path) -> None:
    PLACES.tofile(tmp_path / "train.bin")
    mapped = np.memmap(tmp_path / "train.bin", np.uint16, mode="r")
    for a, b in zip(
        Batches(mapped, 4, 32, seed=0)(1), Batches(PLACES, 4, 32, seed=0)(1), strict=True
    ):
        assert torch.equal(a, b)


def test_ids_above_16_bits_survive() -> None:
    x, y = Batches(np.array([70_000, 199_999], np.uint32), 1, 1, seed=0)(0)
    assert (x.item(), y.item()) == (70_000, 199_999)


def test_get_batch_goes_to_the_device() -> None:
    x, y = get_batch(PLACES, 2, 8, device="meta")
    assert (x.device.type, y.device.type) == ("meta", "meta")
    assert (x.shape, y.shape) == ((2, 8), (2, 8))


@given(length=st.integers(2, 300), context=st.integers(1, 299), windows=st.integers(1, 40))
def test_validation_windows_do_not_overlap(length: int, context: int, windows: int) -> None:
    tokens = np.zeros(length, np.uint16)
    if context >= length:
        with pytest.raises(DataError):
            validation_starts(tokens, context, windows)
        return
    everything = validation_starts(tokens, context, None)
    assert everything.tolist() == list(range(0, length - context, context))
    some = validation_starts(tokens, context, windows)
    assert some.tolist() == sorted(set(some.tolist()) & set(everything.tolist()))
    assert len(some) == min(windows, len(everything))
    gaps = np.diff(some) // context
    assert gaps.max(initial=1) - gaps.min(initial=10**9) <= 1  # evenly spaced


@pytest.mark.parametrize("bad", [0, -1])
def test_sizes_below_one_are_refused(bad: int) -> None:
    for call in (
        lambda: Batches(PLACES, bad, 8, seed=0),
        lambda: Batches(PLACES, 8, bad, seed=0),
        lambda: validation_starts(PLACES, 8, bad),
    ):
        with pytest.raises(ValueError, match="must be >= 1"):
            call()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_parts_of_the_processes_are_the_batch(processes: int) -> None:
    whole = Batches(PLACES, 8, 16, seed=1)(3)
    parts = [
        Batches(PLACES, 8, 16, seed=1, rank=rank, processes=processes)(3)
        for rank in range(processes)
    ]
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
    with pytest.raises(ValueError, match="not divisible by 3"):
        Batches(PLACES, 8, 16, seed=1, processes=3)
