"""Reading a run directory, at any stage of the run."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmlab.errors import DataError
from lmlab.layout import CONFIG
from lmlab.runs.run import LINEAGE

_SAMPLE_HEAD = re.compile(r"^=== step (\d+) ===[ \t]*$", re.MULTILINE)
_FILES = ("metrics.jsonl", "config.yaml", "result.json", "environment.json", "samples.txt")


@dataclass(frozen=True)
class Sample:
    """Text that the model generated at `step`."""

    step: int
    text: str


@dataclass(frozen=True)
class RunRecord:
    """The content of a run directory; empty for files that do not exist (yet)."""

    directory: Path
    rows: tuple[dict[str, float], ...]
    """One row a step, ascending, with all values logged at that step, also `nan` and `inf`."""
    unreadable_lines: int
    """Lines of metrics.jsonl that hold no row, except a last line that is being written."""
    config: dict[str, Any]
    result: dict[str, Any]
    environment: dict[str, Any]
    account: dict[str, Any]
    lineage: dict[str, Any]
    """Of a run that started from another's weights: parent, step, fingerprint, optimizer."""
    samples: tuple[Sample, ...]

    @property
    def name(self) -> str:
        """The configured name, or else the directory's."""
        return str(self.config.get("name") or self.directory.resolve().name)

    @property
    def status(self) -> str:
        """The status in result.json; `unfinished` while there is none."""
        return str(self.result.get("status", "unfinished"))

    def series(self, key: str, x: str = "step") -> tuple[list[float], list[float]]:
        """Return `x` and `key` of the rows in which both are finite."""
        points = [
            (row[x], row[key])
            for row in self.rows
            if math.isfinite(row.get(x, math.nan)) and math.isfinite(row.get(key, math.nan))
        ]
        return [point[0] for point in points], [point[1] for point in points]

    def losses(self) -> list[float]:
        """Return all finite losses, of training and of validation."""
        return self.series("train/loss")[1] + self.series("val/loss")[1]

    def best(self) -> dict[str, float] | None:
        """Return the row with the lowest validation loss."""
        rows = [row for row in self.rows if math.isfinite(row.get("val/loss", math.nan))]
        return min(rows, key=lambda row: row["val/loss"], default=None)

    def diverged_at(self) -> dict[str, float] | None:
        """Return the first row with a loss that is not finite."""
        losses = ("train/loss", "val/loss")
        bad = (row for row in self.rows if not all(math.isfinite(row.get(k, 0.0)) for k in losses))
        return next(bad, None)

    def bits_per_byte_over_loss(self) -> float | None:
        """Return the factor from validation loss (nats per token) to bits per byte, when known.

        It is a constant of the validation text and the tokenizer: tokens / (bytes * ln 2).
        """
        losses, bits = self.series("val/bits_per_byte", x="val/loss")
        return bits[-1] / losses[-1] if losses and losses[-1] > 0 else None

    def xz_bits_per_byte(self) -> float | None:
        """Return the bits per byte of xz on the validation text, when the run recorded it."""
        value = _number((self.environment | self.result).get("xz_bits_per_byte"))
        return value if value is not None and math.isfinite(value) else None


def lineage_text(lineage: Mapping[str, Any]) -> str:
    """Return the run and the step that a run started from; nothing for one from random weights."""
    if not lineage.get("parent"):
        return ""
    name = Path(str(lineage["parent"])).name
    step = lineage.get("step")
    return f"{name} at step {step:,}" if isinstance(step, int) else name


def find_runs(root: Path) -> list[Path]:
    """Return the run directories at and below `root`, sorted by path."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if CONFIG in files:
            found.append(Path(folder))
            folders.clear()
    return sorted(found)


def read_run(directory: Path) -> RunRecord:
    """Read a run directory; raises DataError for another folder or a damaged file."""
    if not any((directory / name).is_file() for name in _FILES):
        raise DataError(f"{directory}: not a run directory; expected {', '.join(_FILES[:3])}")
    rows, unreadable = _read_metrics(directory / "metrics.jsonl")
    return RunRecord(
        directory=directory,
        rows=rows,
        unreadable_lines=unreadable,
        config=_read_mapping(directory / CONFIG),
        result=_read_mapping(directory / "result.json"),
        environment=_read_mapping(directory / "environment.json"),
        account=_read_mapping(directory / "account.json"),
        lineage=_read_mapping(directory / LINEAGE),
        samples=tuple(_read_samples(directory / "samples.txt")),
    )


def _read_text(path: Path) -> str:
    """Read a file that need not exist, damaged UTF-8 and all."""
    return path.read_bytes().decode("utf-8", errors="replace") if path.exists() else ""


def _read_metrics(path: Path) -> tuple[tuple[dict[str, float], ...], int]:
    rows: dict[float, dict[str, float]] = {}
    unreadable = 0
    *lines, torn = _read_text(path).split("\n")  # what follows the last newline is being written
    for line in [*lines, torn]:
        row = _parse_row(line)
        if row is not None:
            rows.setdefault(row["step"], {}).update(row)  # training and validation rows of a step
        elif line.strip() and line is not torn:
            unreadable += 1
    return tuple(rows[step] for step in sorted(rows)), unreadable


def _parse_row(line: str) -> dict[str, float] | None:
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    if not isinstance(parsed, dict):
        return None
    numbers = {key: _number(value) for key, value in parsed.items()}
    row = {key: value for key, value in numbers.items() if value is not None}
    return row if math.isfinite(row.get("step", math.nan)) else None


def _number(value: object) -> float | None:
    """Return a logged value as a number: JSON has no NaN, so null and "nan" stand for it."""
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        load = yaml.safe_load if path.suffix == ".yaml" else json.loads
        content = load(_read_text(path) or "{}")
    except (ValueError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{path}: damaged ({problem}); repair it or remove it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected keys and values, got {type(content).__name__}")
    return content


def _read_samples(path: Path) -> Iterator[Sample]:
    _, *parts = _SAMPLE_HEAD.split(_read_text(path))
    for step, text in zip(parts[::2], parts[1::2], strict=True):
        yield Sample(int(step), text.strip("\n"))
