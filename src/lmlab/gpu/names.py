"""Names of the precisions and of the hardware sheets; quick to import, for the command line."""

from pathlib import Path
from typing import Literal

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "fp4"]
BYTES: dict[Precision, float] = {
    "fp32": 4,
    "tf32": 4,
    "fp16": 2,
    "bf16": 2,
    "fp8": 1,
    "fp4": 0.5,
}
"""Bytes of an element in memory."""
SHEETS = Path(__file__).parent / "sheets"
"""Folder of the sheets."""


def sheet_names() -> list[str]:
    """Return the names of the sheets in the package."""
    return sorted(path.stem for path in SHEETS.glob("*.yaml"))
