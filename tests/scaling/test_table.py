"""Tables of runs: what is read, what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lmlab.errors import UserError
from lmlab.scaling.files import read_table
from lmlab.scaling.table import make_runs

ROWS = [
    {"N": 1e7, "D": 2e8, "C": 1.2e16, "loss": 4.0, "set": "a"},
    {"N": 2e7, "D": 2e8, "C": 2.4e16, "loss": 3.8, "set": "a"},
    {"N": 4e7, "D": 4e8, "C": 9.6e16, "loss": 3.5, "set": "b"},
]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_all_formats_hold_the_same_runs(tmp_path: Path, suffix: str) -> None:
    runs = read_table(write(tmp_path / f"runs.{suffix}", ROWS))
    np.testing.assert_allclose(runs.parameters, [1e7, 2e7, 4e7])
    np.testing.assert_allclose(runs.flops, [1.2e16, 2.4e16, 9.6e16])
    assert len(read_table(tmp_path / f"runs.{suffix}", where={"set": "a"})) == 2
    dropped = read_table(tmp_path / f"runs.{suffix}", drop_highest=1)
    assert dropped.loss.tolist() == [3.8, 3.5]
    assert "1 runs of highest loss" in dropped.notes[0]


@pytest.mark.parametrize("missing", ["N", "D", "C"])
def test_one_of_three_columns_follows_from_the_others(tmp_path: Path, missing: str) -> None:
    rows = [{k: v for k, v in row.items() if k != missing} for row in ROWS]
    runs = read_table(write(tmp_path / "runs.csv", rows))
    np.testing.assert_allclose(runs.flops, 6 * runs.parameters * runs.tokens)
    np.testing.assert_allclose(runs.tokens, [2e8, 2e8, 4e8])


def test_names_of_published_tables(tmp_path: Path) -> None:
    rows = [{"Model Size": r["N"], "Training FLOP": r["C"], "loss": r["loss"]} for r in ROWS]
    np.testing.assert_allclose(read_table(write(tmp_path / "a.csv", rows)).tokens, [2e8, 2e8, 4e8])
    renamed = [{"x": r["N"], "y": r["D"], "z": r["loss"]} for r in ROWS]
    names = {"parameters": "x", "tokens": "y", "loss": "z"}
    assert len(read_table(write(tmp_path / "b.csv", renamed), names=names)) == 3


def test_unfinished_runs_of_collect_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"run": "a", "status": "finished", "tokens": 2e8, "parameters": 1e7, "val_loss": 4.0},
        {"run": "b", "status": "diverged", "tokens": 2e8, "parameters": 2e7, "val_loss": ""},
    ]
    runs = read_table(write(tmp_path / "runs.csv", rows))
    assert len(runs) == 1
    assert runs.notes == ("1 of 2 runs did not finish: left out.",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "nan"}, "run 2: loss is nan, it must be finite"),
        ({"loss": -1}, "run 2: loss is -1"),
        ({"loss": 1e300}, r"run 2: loss is 1e\+300, in nats it is from 0.0001 to 10000"),
        ({"loss": "high"}, "run 2: loss is 'high', not a number"),
        ({"N": 20}, "check the units"),
        (ROWS[0], "runs 1 and 2 are the same"),
        ({**ROWS[0], "loss": 4.2}, "runs 1 and 2 contradict each other"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    rows = [ROWS[0], {**ROWS[1], **change}, ROWS[2]]
    with pytest.raises(UserError, match=message):
        read_table(write(tmp_path / "runs.csv", rows))


def test_seeds_tell_equal_runs_apart(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "seed": seed, "loss": 4 + seed / 100} for seed in range(3)]
    assert len(read_table(write(tmp_path / "runs.csv", rows))) == 3


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_end_at_line_feeds_only(tmp_path: Path, mark: str) -> None:
    """Cells may hold other separators of lines; Excel begins a file with a byte-order mark."""
    name = "a\u2028b\x85c\x0cd"
    lines = ["N,D,loss,set", f'1e7,2e8,4.0,"{name}"', f"2e7,2e8,3.8,{name}", "", '4e7,2e8,3,"a\nb"']
    path = tmp_path / "runs.csv"
    path.write_bytes((mark + "\r\n".join(lines)).encode())
    runs = read_table(path)
    assert runs.columns["set"] == [name, name, "a\nb"]
    assert len(read_table(path, where={"set": name})) == 2
    for suffix, join in (("jsonl", "\n".join), ("json", lambda rows: f"[{','.join(rows)}]")):
        path = tmp_path / f"runs.{suffix}"
        rows = [json.dumps({**row, "set": name}, ensure_ascii=False) for row in ROWS]
        path.write_text(mark + join(rows), encoding="utf-8")
        assert read_table(path).columns["set"] == [name] * 3


def test_a_file_that_is_cut_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "runs.parquet", ROWS)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:40] + bytes(40) + content[80:], b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            read_table(path)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    for name, text, message in (
        ("a.txt", "", "give a file ending in"),
        ("a.json", "{", "cannot be read"),
        ("b.json", '{"a": 1}', "expected a list of objects"),
        ("a.csv", "N,D\n1e7,2e8\n", "no column for loss"),
        ("b.csv", "N,loss\n1e7,3\n", "no column for tokens and flops"),
        ("c.csv", "N,D,loss\n", "has no runs"),
        ("d.csv", "", "has no runs"),
        ("e.csv", "N,D,loss\n1e7,2e8,3\n2e7,2e8,3,4\n", "line 3 has 4 cells, its header 3"),
        ("f.csv", "N,D,loss,set\n1e7,2e8,3\n", "line 2 has 3 cells, its header 4"),
        ("g.csv", "N,D,loss,loss\n1e7,2e8,3,2\n", "has the column 'loss' twice"),
        ("h.csv", f"N,D,loss\n1e7,2e8,{'9' * 200_000}\n", "cannot be read: field larger"),
        ("i.json", f'[{{"N": 1e7, "D": 2e8, "loss": 1{"0" * 400}}}]', "not a number"),
        ("j.json", "[" * 100_000, "cannot be read"),
        ("k.jsonl", '{"N": 1e7}\n3\n', "expected a list of objects"),
        ("l.jsonl", "\x00", "cannot be read"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            read_table(tmp_path / name)
    path = write(tmp_path / "runs.csv", ROWS)
    with pytest.raises(UserError, match="no column 'kind'; its columns: N, D, C, loss, set"):
        read_table(path, where={"kind": "None"})
    with pytest.raises(UserError, match="no column 'x'"):
        make_runs(parameters=[1e7], tokens=[2e8], loss=[3]).column("x")
