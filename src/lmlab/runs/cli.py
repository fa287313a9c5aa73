"""`lmlab collect` and `lmlab report`: the results of a sweep."""

import argparse
import sys
from pathlib import Path

from lmlab.arguments import png_file
from lmlab.errors import UserError


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `collect` and `report` to the `lmlab` command."""
    collect = commands.add_parser(
        "collect",
        help="make a table of a sweep's results",
        description="Make a table of a sweep's results: mean, standard deviation and 95 % "
        "confidence interval over seeds for each setting, the best one and whether the difference "
        "is significant, and a line for each run. Example: lmlab collect runs/sweeps/lr_tuning "
        "--plot lr_tuning.png",
    )
    collect.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    collect.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    collect.add_argument(
        "--plot", type=png_file, metavar="FILE.png", help="draw the metric of each setting as well"
    )
    collect.set_defaults(run=write_table)

    report = commands.add_parser(
        "report",
        help="make a page of a sweep, or of a run",
        description="Make one self-contained page: of a sweep's folder sweep.html with the answer, "
        "curves and tables; of a run's folder report.html, and rollouts.html if it has rollouts.",
    )
    report.set_defaults(run=write_page)
    for parser in (collect, report):
        parser.add_argument("directory", type=Path, metavar="DIR", help="runs/sweeps/NAME")
        parser.add_argument(
            "--metric",
            help="a key of result.json (default: that of the task, val_loss for pretraining)",
        )


def write_table(options: argparse.Namespace) -> None:
    """Print the table, or write it to a file."""
    from lmlab.files import atomic_write
    from lmlab.runs.collect import collect
    from lmlab.runs.sweep_plot import write_sweep_plot
    from lmlab.runs.tables import to_csv, to_markdown

    sweep = collect(_folder(options.directory), options.metric)
    text = to_csv(sweep) if options.format == "csv" else to_markdown(sweep)
    if options.plot is not None:
        write_sweep_plot(sweep, options.plot)
    if sweep.note:
        print(f"lmlab: {sweep.note}", file=sys.stderr)
    if options.output is None:
        sys.stdout.write(text)
    else:
        with atomic_write(options.output) as file:
            file.write(text)


def write_page(options: argparse.Namespace) -> None:
    """Write the page of a sweep or of a run, and say where it is."""
    from lmlab.layout import CONFIG
    from lmlab.runs.report import write_report
    from lmlab.runs.rollouts import PAGE
    from lmlab.runs.sweep_report import write_sweep_report

    folder = _folder(options.directory)
    if (folder / CONFIG).exists():
        print(write_report(folder))
        if (folder / PAGE).exists():
            print(folder / PAGE)
    else:
        print(write_sweep_report(folder, options.metric))


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; name one that holds runs")
    return path
