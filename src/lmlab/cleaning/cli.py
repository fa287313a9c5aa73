"""`lmlab cleaning`: tools of the cleaning pipeline."""

import argparse
from pathlib import Path
from typing import Any

from lmlab.cleaning.classifier_cli import register_train_classifier

Subcommands = Any


def register(commands: Subcommands) -> None:
    """Add `cleaning` and its subcommands to the `lmlab` command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "cleaning",
        help="show what a cleaning run removed; train classifiers of texts",
        description="Tools of the cleaning pipeline.",
    )
    tools = parser.add_subparsers(metavar="TOOL", required=True)
    report = tools.add_parser(
        "report",
        help="write a page of what a cleaning run removed and why",
        description="Write DIR/report.html: documents by step, histograms of scores whose "
        "thresholds can be moved, and documents to read with the offending parts marked.",
    )
    report.add_argument("directory", type=Path, metavar="DIR", help="the output of clean.py")
    report.add_argument("--quiet", action="store_true", help="no progress bar")
    report.set_defaults(run=run_report)
    register_train_classifier(tools)


def run_report(options: argparse.Namespace) -> None:
    """Write the page of a cleaning run."""
    from lmlab.cleaning.page import write_page

    print(write_page(options.directory, progress=not options.quiet))
