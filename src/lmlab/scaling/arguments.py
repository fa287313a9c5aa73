"""Arguments of `lmlab scaling` that name a table of runs."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lmlab.errors import UserError

if TYPE_CHECKING:
    from lmlab.scaling.table import Runs

MOST_FLOPS = 1e100
COUNTINGS = ("all", "no_scores", "no_embeddings", "no_embeddings_no_scores", "6nd")


def add_table(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a table of runs and the size of the bootstrap."""
    parser.add_argument(
        "table",
        type=Path,
        metavar="TABLE",
        help="a file (CSV, JSON, JSONL, Parquet; `lmlab collect --format csv` writes one), or a "
        "folder of runs",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME=COLUMN",
        help="columns of parameters, tokens, flops and loss where their names differ; one of the "
        "first three may be missing: FLOPs = 6 N D",
    )
    parser.add_argument(
        "--where", nargs="+", default=[], metavar="COLUMN=VALUE", help="keep these rows only"
    )
    parser.add_argument(
        "--drop-highest", type=count(0), default=0, metavar="K", help="runs of highest loss (0)"
    )
    parser.add_argument(
        "--counting",
        choices=COUNTINGS,
        help="what counts as parameters and FLOPs of a folder's runs (default: all)",
    )
    parser.add_argument(
        "--samples",
        type=count(100),
        default=1000,
        metavar="N",
        help="of the bootstrap (default: 1000)",
    )
    parser.add_argument("--seed", type=count(0), default=0, help="of the bootstrap (default: 0)")


def count(least: int) -> Callable[[str], int]:
    """Return a parser of integers of at least `least`."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text}")
        return int(text)

    return parse


def _pairs(flag: str, given: list[str]) -> dict[str, str]:
    for pair in given:
        if "=" not in pair:
            raise UserError(f"{flag} takes NAME=VALUE, got '{pair}'")
    return dict(pair.split("=", 1) for pair in given)


def load_runs(options: argparse.Namespace, curves: bool = False) -> "Runs":
    """Read the table that a command names."""
    from lmlab.scaling.files import read_table
    from lmlab.scaling.folder import read_folder

    path, where = options.table, _pairs("--where", options.where)
    if not path.exists():
        raise UserError(f"{path} does not exist; give a table of runs or a folder of runs")
    if path.is_dir():
        if options.columns:
            raise UserError(f"--columns is for files; {path} is a folder")
        runs = read_folder(path, options.counting or "all", curves=curves)
        return runs.where(where).without_highest(options.drop_highest)
    if options.counting:
        raise UserError(f"--counting is for folders of runs; {path} has its own columns")
    return read_table(
        path,
        names=_pairs("--columns", options.columns),
        where=where,
        drop_highest=options.drop_highest,
    )


def load_other(options: argparse.Namespace, path: Path) -> "Runs":
    """Read a second table in the way of the first."""
    file = not path.is_dir()
    return load_runs(
        argparse.Namespace(
            table=path,
            columns=options.columns if file else [],
            where=options.where,
            drop_highest=0,
            counting=None if file else options.counting,
        )
    )


def positive(text: str) -> float:
    """Parse a positive finite number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return value


def training_flops(text: str) -> float:
    """Parse the FLOPs of training, within what pictures and laws can compute with."""
    value = positive(text)
    if not 1 <= value <= MOST_FLOPS:
        raise argparse.ArgumentTypeError(f"must be from 1 to {MOST_FLOPS:g} FLOPs, got {text}")
    return value
