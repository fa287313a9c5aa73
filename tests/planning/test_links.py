"""Costs of collective operations, against formulas by hand and the course's figures."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.cli import main
from lmlab.errors import UserError
from lmlab.gpu.sheets import load_sheet
from lmlab.planning.course import XXL
from lmlab.planning.links import (
    LINK_STEP,
    NETWORK_STEP,
    REACHED,
    START,
    Cluster,
    best_buckets,
    bucket_overhead,
    cluster_of,
    compute_bound_tokens,
)

H100 = load_sheet("H100")


def test_the_course_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert XXL.parameters == 219_848_638_464
    assert XXL.bytes == 16 * 219_848_638_464
    assert XXL.devices(80e9) == 44
    assert compute_bound_tokens(4.6e14, 1.8e11, 53248) == pytest.approx(61.3, abs=0.1)
    assert main(["demo", "communication"]) == 0
    out = capsys.readouterr().out
    for figure in ("219,848,638,464", "3.52 TB", "44 devices", "above 61 tokens"):
        assert figure in out


@given(st.floats(1e6, 1e12), st.floats(1e8, 1e12), st.floats(1e-6, 1e-2), st.integers(1, 100_000))
def test_no_number_of_buckets_beats_the_best(
    size: float, bandwidth: float, start: float, buckets: int
) -> None:
    best = best_buckets(size, bandwidth, start)
    least = 2 * math.sqrt(size * start / bandwidth)  # s/(n w) + n o at n = sqrt(s/(w o))
    assert size / (best * bandwidth) + best * start == pytest.approx(least)
    assert bucket_overhead(size, bandwidth, start, buckets) >= least * (1 - 1e-9)


def test_a_ring_in_a_node() -> None:
    cluster = cluster_of(H100, 8)
    group = cluster.group(8)
    wanted = START + 7 * LINK_STEP + 8e9 * 7 / 8 / (REACHED * 450e9)
    assert cluster.all_gather(group, 8e9) == pytest.approx(wanted)
    assert cluster.all_reduce(group, 8e9) == pytest.approx(2 * wanted - START)
    assert cluster.all_reduce(cluster.group(1), 8e9) == 0


def test_rings_through_all_connections_of_a_node() -> None:
    cluster = cluster_of(H100, 64)
    assert cluster.nodes == 8
    assert cluster.bandwidth(cluster.group(64)) == REACHED * 8 * 50e9
    between = cluster.group(8, stride=8)  # one device a node
    assert (between.nodes, cluster.bandwidth(between)) == (8, REACHED * 50e9)
    wanted = START + 56 * LINK_STEP + 7 * NETWORK_STEP + 63 / 64 / (REACHED * 400)
    assert cluster.all_gather(cluster.group(64), 1e9) == pytest.approx(wanted)


def test_small_sums_go_through_trees() -> None:
    cluster = Cluster(1024, 8, 450e9, 50e9)
    group = cluster.group(1024)
    assert cluster.all_reduce(group, 1e3) < 0.2 * 2 * cluster.all_gather(group, 1e3)


@pytest.mark.parametrize(
    ("devices", "changes", "message"),
    [
        (12, {}, "--devices 12 is not a multiple of 8 devices a node"),
        (8, {"link": None}, "has no `link`.*give --link"),
        (16, {"network": None}, "has no `network`.*give --network"),
    ],
)
def test_missing_links_are_named(devices: int, changes: dict[str, None], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster_of(H100.model_copy(update=changes), devices)


def test_arguments_replace_the_sheet() -> None:
    cluster = cluster_of(load_sheet("RTX_4090"), 8, per_node=4, network=1e9)
    assert (cluster.nodes, cluster.network, cluster.link) == (2, 1e9, 31.5e9)
    alone = cluster_of(load_sheet("RTX_4090"), 8, network=1e9)
    assert alone.nodes == 8
