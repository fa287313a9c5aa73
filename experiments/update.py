"""Put the results of a sweep into the README of its folder here, as `lmlab collect` gives them.

python experiments/update.py lr_tuning                    # from runs/sweeps/lr_tuning
python experiments/update.py weight_decay --metric train_loss
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.tables import machine, put_section  # noqa: E402

from lmlab.errors import UserError  # noqa: E402
from lmlab.runs.collect import collect  # noqa: E402
from lmlab.runs.sweep_plot import write_sweep_plot  # noqa: E402
from lmlab.runs.tables import to_markdown  # noqa: E402


def main() -> None:
    """Write the table and the plot of one sweep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topic", help="a folder here, and in runs/sweeps/")
    parser.add_argument("--metric", default="val_loss")
    parser.add_argument("--runs", type=Path, help="default: runs/sweeps/TOPIC")
    options = parser.parse_args()
    folder = HERE / options.topic
    sweep = collect(options.runs or Path("runs/sweeps") / options.topic, options.metric)
    settings, best, runs = to_markdown(sweep).split("\n\n")
    plot = write_sweep_plot(sweep, folder / f"{options.metric}.png")
    details = f"<details><summary>Every run</summary>\n\n{runs}\n</details>"
    picture = f"![{sweep.metric_name} of each setting]({plot.name})"
    put_section(
        folder / "README.md",
        options.metric,
        "\n\n".join([f"{machine(['torch'])}.", settings, best, picture, details]),
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
