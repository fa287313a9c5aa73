"""Reports as Markdown, CSV and JSON, and pairs of answers as JSON lines."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from lmlab.errors import UserError
from lmlab.evaluation.results import Preference, Report
from lmlab.files import atomic_write
from lmlab.text import markdown_table

OutputFormat = Literal["markdown", "csv", "json"]
SUFFIXES: dict[str, OutputFormat] = {".md": "markdown", ".csv": "csv", ".json": "json"}


def output_format(path: Path | None, given: str | None) -> OutputFormat:
    """Return the format by flag or by the file's name; raises UserError for another suffix."""
    for name in get_args(OutputFormat):
        if given == name:
            return name
    if path is None:
        return "markdown"
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"--output {path}: the name must end in {', '.join(SUFFIXES)}, or give --format"
        )
    return SUFFIXES[path.suffix.lower()]


def rendered(report: Report, format: OutputFormat) -> str:
    """Return the report as text that ends with a newline."""
    if format == "json":
        return json.dumps({"results": report.rows, "notes": report.notes}, indent=2) + "\n"
    if format == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(report.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(report.rows)
        return text.getvalue()
    notes: Sequence[str] = report.notes and ["", *report.notes]
    table = markdown_table(report.header, report.cells, text=report.text_columns, aligned=True)
    return "\n".join([table, *notes]) + "\n"


def write(text: str, path: Path | None) -> None:
    """Print a text, or write it to a file."""
    if path is None:
        print(text, end="")
        return
    with atomic_write(path) as file:
        file.write(text)


def write_preferences(path: Path, pairs: Sequence[Preference]) -> None:
    """Write pairs as JSON lines; raises UserError when there is none."""
    if not pairs:
        raise UserError(
            f"--preferences {path}: no problem has a right and a wrong sample; raise --samples, or "
            "take another run"
        )
    with atomic_write(path) as file:
        for pair in pairs:
            file.write(json.dumps(pair._asdict(), ensure_ascii=False) + "\n")
