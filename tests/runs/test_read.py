import json
import math
from pathlib import Path

import pytest
from fake_run import CONFIG, NASTY, SAMPLE, metrics, write_run

from lmlab.errors import DataError
from lmlab.runs.read import RunRecord, read_run


def read_lines(tmp_path: Path, text: str) -> RunRecord:
    (tmp_path / "metrics.jsonl").write_text(text)
    return read_run(tmp_path)


def test_reads_everything_back(tmp_path: Path) -> None:
    rows = metrics()
    run = read_run(write_run(tmp_path, rows))
    training = [row for row in rows if "train/loss" in row]
    validation = [row for row in rows if "val/loss" in row]
    assert run.series("train/loss") == (
        [row["step"] for row in training],
        [row["train/loss"] for row in training],
    )
    assert run.series("val/loss", "seconds") == (
        [row["seconds"] for row in validation],
        [row["val/loss"] for row in validation],
    )
    assert run.series("mfu") == ([], [])
    assert run.config == CONFIG
    assert (run.name, run.status, run.unreadable_lines) == ("demo", "finished", 0)
    assert run.best() == next(row for row in run.rows if row["step"] == 1200)
    assert run.bits_per_byte_over_loss() == pytest.approx(0.4193)
    assert run.xz_bits_per_byte() == 1.62


def test_samples_keep_their_text(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    assert [sample.step for sample in run.samples] == [0, 500, 1200]
    assert run.samples[0].text == NASTY
    assert run.samples[2].text == SAMPLE.strip("\n")


def test_rows_of_one_step_become_one(tmp_path: Path) -> None:
    text = '{"step": 2, "lr": 1.0}\n{"step": 1, "lr": 2.0}\n{"step": 2, "val/loss": 3.0}\n'
    assert read_lines(tmp_path, text).rows == (
        {"step": 1, "lr": 2.0},
        {"step": 2, "lr": 1.0, "val/loss": 3.0},
    )


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_torn_last_line_is_left_out(tmp_path: Path, cut: int) -> None:
    whole, last = '{"step": 1, "lr": 0.5}\n', json.dumps({"step": 22, "lr": 0.25})
    run = read_lines(tmp_path, whole + last[:cut])
    assert run.rows == ({"step": 1, "lr": 0.5},)
    assert run.unreadable_lines == 0


def test_a_last_line_without_newline_counts_when_it_is_whole(tmp_path: Path) -> None:
    assert len(read_lines(tmp_path, '{"step": 1}\n{"step": 2}').rows) == 2


def test_damaged_lines_are_counted(tmp_path: Path) -> None:
    text = '{"step": 1}\n{"step": 2, "l\n\0\0\0\n[1]\n{"lr": 1}\n\n{"step": null}\n{"step": 3}\n'
    run = read_lines(tmp_path, text)
    assert [row["step"] for row in run.rows] == [1, 3]
    assert run.unreadable_lines == 5


@pytest.mark.parametrize("written", ["null", '"nan"', '"NaN"', "NaN", '"inf"', "-Infinity"])
def test_losses_that_are_no_numbers(tmp_path: Path, written: str) -> None:
    text = f'{{"step": 1, "train/loss": 2.5}}\n{{"step": 2, "train/loss": {written}}}\n'
    run = read_lines(tmp_path, text)
    assert not math.isfinite(run.rows[1]["train/loss"])
    assert run.series("train/loss") == ([1], [2.5])
    bad = run.diverged_at()
    assert bad is not None
    assert bad["step"] == 2


def test_values_that_are_no_numbers_are_not_curves(tmp_path: Path) -> None:
    text = '{"step": 1, "note": "warm", "done": true, "list": [1], "lr": 0.5}\n'
    assert read_lines(tmp_path, text).rows == ({"step": 1, "lr": 0.5},)


def test_an_unmeasured_value_is_no_divergence(tmp_path: Path) -> None:
    assert read_run(write_run(tmp_path)).diverged_at() is None  # its mfu is null throughout


def test_no_run_directory(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="not a run directory; expected"):
            read_run(directory)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("result.json", '{"status": "fin', "damaged"),
        ("environment.json", "[]", "expected keys and values, got list"),
        ("config.yaml", "a: [1\nb: 2", "damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=problem) as caught:
        read_run(tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
