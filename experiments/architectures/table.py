"""Put the results of `python train.py -m sweep=architectures` into the README beside this file.

python experiments/architectures/table.py [runs/sweeps/architectures]
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).with_name("README.md")
sys.path.insert(0, str(README.parents[2]))

from benchmarks.tables import machine, markdown, put_section  # noqa: E402


def main(directory: Path) -> None:
    """Read the runs, write the table, best first."""
    runs = [read(path.parent) for path in sorted(directory.glob("*/result.json"))]
    if not runs:
        sys.exit(f"no result.json in {directory}/*/; first: python train.py -m sweep=architectures")
    runs.sort(key=lambda run: (run["status"] != "finished", run["val_bits_per_byte"] or 0.0))
    put_section(README, "table", f"{machine(['torch'])}.\n\n{table(runs)}")
    print(table(runs))


def read(directory: Path) -> dict[str, Any]:
    """Return a run's result, and which experiment it was."""
    result: dict[str, Any] = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    account = json.loads((directory / "account.json").read_text(encoding="utf-8"))
    found = re.search(r"experiment[=-]architectures-(\w+)_[0-9a-f]{8}$", directory.name)
    name = found[1] if found else directory.name
    return result | {
        "name": name,
        "forward_flops": account["total_forward_flops"],
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Return the rows."""
    header = ["architecture", "parameters", "forward FLOPs", "loss", "bits per byte", "tokens/s"]
    rows = []
    for run in runs:
        loss, bits = (
            f"{run[key]:.{digits}f}" if run["status"] == "finished" else run["status"]
            for key, digits in (("val_loss", 4), ("val_bits_per_byte", 3))
        )
        flops, speed = f"{run['forward_flops']:.3g}", f"{run['tokens_per_second']:,.0f}"
        rows.append([run["name"], f"{run['parameters']:,}", flops, loss, bits, speed])
    return markdown(header, rows)


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]) if sys.argv[1:] else Path("runs/sweeps/architectures"))
