"""`lmlab scaling`: scaling laws from tables of runs."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmlab.errors import UserError

if TYPE_CHECKING:
    from lmlab.scaling.table import Runs
    from lmlab.scaling.text import Fit

Subcommands = Any
COUNTINGS = ("all", "no_scores", "no_embeddings", "no_embeddings_no_scores", "6nd")
EXAMPLES = """\
examples:
  lmlab scaling fit runs/sweeps/isoflop
  lmlab scaling fit runs.csv --approach 2 --optimum akima
  lmlab scaling fit runs.csv --columns parameters=N tokens=D loss=final_loss --where dataset=c4
  lmlab scaling fit runs/sweeps/batch_size --hyperparameter lr --against tokens
"""


def register(commands: Subcommands) -> None:
    """Add `scaling` to the `lmlab` command."""
    parser = commands.add_parser(
        "scaling",
        help="fit scaling laws, predict from them, plan runs under a FLOP budget",
        description="Fit scaling laws to runs, predict from them, and plan runs under a FLOP "
        "budget.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tools = parser.add_subparsers(metavar="TOOL", required=True)
    fit = tools.add_parser(
        "fit",
        help="fit a law to a table of runs",
        description="Fit a law to a table of runs, with 95 % intervals by bootstrap.",
    )
    _table(fit)
    fit.add_argument(
        "--approach",
        choices=("1", "2", "3", "over-training"),
        default="3",
        help="1: envelope of training curves; 2: best size of each budget; 3: parametric law "
        "(default); Hoffmann et al. 2022. over-training: Gadre et al. 2024",
    )
    fit.add_argument(
        "--optimum",
        choices=("argmin", "quadratic", "akima"),
        default="quadratic",
        help="of a budget, for approach 2 (default: quadratic)",
    )
    fit.add_argument(
        "--hyperparameter", metavar="COLUMN", help="fit the best value of this column instead"
    )
    fit.add_argument(
        "--against",
        choices=("parameters", "tokens", "flops"),
        default="parameters",
        help="what the best value depends on (default: parameters)",
    )
    fit.add_argument("--json", action="store_true", help="print the fit as JSON")
    fit.set_defaults(run=run_fit)


def _table(parser: argparse.ArgumentParser) -> None:
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
        "--drop-highest", type=_count(0), default=0, metavar="K", help="runs of highest loss (0)"
    )
    parser.add_argument(
        "--counting",
        choices=COUNTINGS,
        help="what counts as parameters and FLOPs of a folder's runs (default: all)",
    )
    parser.add_argument(
        "--samples",
        type=_count(100),
        default=1000,
        metavar="N",
        help="of the bootstrap (default: 1000)",
    )
    parser.add_argument("--seed", type=_count(0), default=0, help="of the bootstrap (default: 0)")


def _count(least: int) -> Callable[[str], int]:
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
    from lmlab.scaling.folder import read_folder
    from lmlab.scaling.table import read_table

    path = options.table
    if not path.exists():
        raise UserError(f"{path} does not exist; give a table of runs or a folder of runs")
    if path.is_dir():
        for flag in ("columns", "where", "drop_highest"):
            if getattr(options, flag):
                raise UserError(f"--{flag.replace('_', '-')} is for files; {path} is a folder")
        return read_folder(path, options.counting or "all", curves=curves)
    if options.counting:
        raise UserError(f"--counting is for folders of runs; {path} has its own columns")
    return read_table(
        path,
        names=_pairs("--columns", options.columns),
        where=_pairs("--where", options.where),
        drop_highest=options.drop_highest,
    )


def run_fit(options: argparse.Namespace) -> None:
    """Print a fit."""
    import json

    from lmlab.scaling.text import fit_text, fit_values

    runs = load_runs(options, curves=options.approach == "1")
    fit = _fit(runs, options)
    if options.json:
        print(json.dumps(fit_values(fit, runs), indent=2))
    else:
        print(fit_text(fit, runs))
    if getattr(fit, "converged", True) is False:
        print("lmlab: warning: the fit did not converge; its constants are unsure", file=sys.stderr)


def _fit(runs: "Runs", options: argparse.Namespace) -> "Fit":
    settings = {"samples": options.samples, "seed": options.seed}
    if options.hyperparameter:
        from lmlab.scaling.hyperparameters import fit_hyperparameter

        return fit_hyperparameter(runs, options.hyperparameter, options.against, **settings)
    if options.approach == "1":
        from lmlab.scaling.envelope import fit_envelope

        return fit_envelope(runs, **settings)
    if options.approach == "2":
        from lmlab.scaling.isoflop import fit_isoflop

        return fit_isoflop(runs, options.optimum, **settings)
    if options.approach == "over-training":
        from lmlab.scaling.overtraining import fit_overtraining

        return fit_overtraining(runs, **settings)
    from lmlab.scaling.parametric import fit_parametric

    return fit_parametric(runs, **settings)
