"""Names of runs in a table differ, and say which run it is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.errors import UserError
from lmlab.evaluation.candidates import distinct_names, find_candidates
from lmlab.loading import TrainedRun

A = Path("/runs/demo/2026-01-01")
B = Path("/runs/demo/2026-01-02")
C = Path("/runs/sweeps/lr/lr=0.1_ab")


def test_names_grow_where_they_are_the_same() -> None:
    assert distinct_names([("demo", A, 5), ("lr", C, 5)]) == ["demo", "lr"]
    assert distinct_names([("demo", A, 5), ("demo", B, 5), ("lr", C, 5)]) == [
        "demo/2026-01-01",
        "demo/2026-01-02",
        "lr",
    ]
    assert distinct_names([("demo", A, 5), ("demo", A, 10)]) == ["demo step 5", "demo step 10"]
    assert distinct_names([("demo", A, 5), ("demo", A, 5)]) == ["demo step 5", "demo step 5 (2)"]
    assert distinct_names([("x", Path("/a/b/r"), 1), ("x", Path("/c/b/r"), 1)]) == [
        "x/a/b/r",
        "x/c/b/r",
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(lambda p: Path("/", *p)),
            st.integers(1, 2),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_names_always_differ(runs: list[tuple[str, Path, int]]) -> None:
    assert len(set(distinct_names(runs))) == len(runs)


def test_what_is_no_run_is_refused(run: TrainedRun, tmp_path: Path) -> None:
    found = find_candidates([run.directory, run.directory / "checkpoints" / "step_00000012.pt"])
    assert [candidate.name for candidate in found] == ["one step 12", "one step 12 (2)"]
    with pytest.raises(UserError, match=r"has no checkpoint in checkpoints/"):
        find_candidates([tmp_path])
    with pytest.raises(UserError, match="missing does not exist; give a run directory"):
        find_candidates([tmp_path / "missing"])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_00000001.pt").touch()
    with pytest.raises(UserError, match=r"config\.yaml"):
        find_candidates([tmp_path])
