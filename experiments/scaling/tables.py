"""Put the runs of the study here: runs.csv, and the tables and the picture of README.md.

python experiments/scaling/tables.py runs    # from runs/sweeps/isoflop
python experiments/scaling/tables.py mup     # from runs/sweeps/mup
"""

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

README = Path(__file__).with_name("README.md")
sys.path.insert(0, str(README.parents[2]))

from benchmarks.tables import machine, markdown, put_section  # noqa: E402

from lmlab.figures import COLORS, picture  # noqa: E402
from lmlab.runs.read import find_runs, read_run  # noqa: E402
from lmlab.scaling.counting import counted  # noqa: E402
from lmlab.scaling.isoflop import lowest_point  # noqa: E402

Row = dict[str, Any]


def rows_of(directory: Path) -> list[Row]:
    """Return the finished runs of a sweep, everything counted."""
    rows = []
    for path in find_runs(directory):
        run = read_run(path)
        if run.status != "finished":
            continue
        model, result = run.config["model"], run.result
        parameters, per_token = counted(run.account, model, "all")
        rows.append(
            {
                "d_model": model["d_model"],
                "num_layers": model["num_layers"],
                "parametrization": model["parametrization"],
                "lr": run.config["lr"],
                "seed": run.config["seed"],
                "parameters": int(parameters),
                "tokens": result["tokens"],
                "flops": result["tokens"] * per_token,
                "loss": result["val_loss"],
                "budget": run.config["budget"].get("flops"),
            }
        )
    keys = ("budget", "parameters", "seed", "lr")
    return sorted(rows, key=lambda row: tuple(row[key] or 0 for key in keys))


def runs() -> None:
    """Write runs.csv, and the losses of all sizes and budgets."""
    rows = rows_of(Path("runs/sweeps/isoflop"))
    columns = ("d_model", "num_layers", "seed", "parameters", "tokens", "flops", "loss")
    with README.with_name("runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    budgets = sorted({row["budget"] for row in rows})
    table = []
    for size in sorted({row["parameters"] for row in rows}):
        mine = [row for row in rows if row["parameters"] == size]
        shape = f"{mine[0]['d_model']} x {mine[0]['num_layers']}"
        cells = [
            " / ".join(f"{row['loss']:.3f}" for row in mine if row["budget"] == budget) or "–"
            for budget in budgets
        ]
        table.append([shape, f"{size:,}", *cells])
    head = ["width x layers", "parameters", *(f"{budget:.2g} FLOPs" for budget in budgets)]
    put_section(README, "runs", f"{machine(['torch'])}.\n\n{markdown(head, table)}")


def mup() -> None:
    """Write the losses by learning rate, width and parametrization, and draw them."""
    rows = rows_of(Path("runs/sweeps/mup"))
    rates = sorted({row["lr"] for row in rows})
    kinds, widths = ("standard", "mup"), sorted({row["d_model"] for row in rows})
    table = []
    with picture(README.with_name("mup.png"), TITLE, (8.6, 3.6), panels=2) as panels:
        for axes, kind in zip(panels, kinds, strict=True):
            for color, width in zip(COLORS, widths, strict=False):
                mine = {
                    row["lr"]: row["loss"]
                    for row in rows
                    if (row["parametrization"], row["d_model"]) == (kind, width)
                }
                losses = np.array([mine[rate] for rate in rates])
                best = _best(np.log(rates), losses)
                table.append([kind, f"{width}", *(f"{loss:.3f}" for loss in losses), best])
                axes.plot(rates, losses, "o-", color=color, markersize=4, label=f"d_model {width}")
            axes.set(xscale="log", xlabel="learning rate", title=kind)
            axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
            axes.set_xticks([], minor=True)
            axes.legend(frameon=False, fontsize=8)
        low, high = (f(axes.get_ylim()[i] for axes in panels) for i, f in enumerate((min, max)))
        for axes in panels:
            axes.set_ylim(low, high)
        panels[0].set_ylabel("validation loss")
    head = ["parametrization", "d_model", *(f"{rate:g}" for rate in rates), "best rate"]
    text = markdown(head, table, text=2)
    put_section(README, "mup", f"{machine(['torch'])}.\n\n{text}")


TITLE = "The best learning rate falls as 1 / width, and stays in muP"


def _best(log_rates: np.ndarray, losses: np.ndarray) -> str:
    """Return the vertex of a parabola through the lowest loss and its neighbours."""
    lowest = int(np.clip(np.argmin(losses), 1, len(losses) - 2))
    near = slice(lowest - 1, lowest + 2)
    found, _ = lowest_point(log_rates[near], losses[near], 1, np.random.default_rng(0))
    return f"{np.exp(found.at):.2g}" + (f" ({found.edge})" if found.edge else "")


COMMANDS: dict[str, Callable[[], None]] = {"runs": runs, "mup": mup}

if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in COMMANDS]:
        sys.exit(f"give one of: {', '.join(COMMANDS)}")
    COMMANDS[sys.argv[1]]()
