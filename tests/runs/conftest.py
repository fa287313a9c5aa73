import json
from pathlib import Path

import pytest
from fake_run import metrics, write_run


@pytest.fixture(
    params=["finished", "unfinished", "diverged", "one_row", "empty", "no_validation", "bare"]
)
def any_run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run directory in each state that a run can be in."""
    rows, state = metrics(), request.param
    if state == "unfinished":
        return write_run(tmp_path, rows[:70], status=None)
    if state == "diverged":
        rows = rows[:70]
        rows[-1] |= {"train/loss": None, "grad_norm": "inf"}
        return write_run(tmp_path, rows, status="diverged")
    if state == "one_row":
        return write_run(tmp_path, rows[:1], status=None)
    if state == "empty":
        return write_run(tmp_path, [], status=None)
    if state == "no_validation":
        return write_run(tmp_path, [row for row in rows if "val/loss" not in row])
    if state == "bare":  # metrics and nothing else, not even the times
        (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 3, "val/loss": 2.0}) + "\n")
        return tmp_path
    return write_run(tmp_path)
