"""`lmlab scaling`: scaling laws from tables of runs."""

import argparse
from typing import TYPE_CHECKING, Any

from lmlab.scaling.arguments import add_table, load_runs
from lmlab.scaling.coordinates_cli import register_coordinates
from lmlab.scaling.plan_cli import register_plan, register_serve
from lmlab.scaling.predict_cli import register_predict, register_report

if TYPE_CHECKING:
    from lmlab.scaling.table import Runs
    from lmlab.scaling.text import Fit

Subcommands = Any
EXAMPLES = """\
examples:
  lmlab scaling fit runs/sweeps/isoflop
  lmlab scaling fit runs.csv --approach 2 --optimum akima
  lmlab scaling fit runs.csv --columns parameters=N tokens=D loss=final_loss --where dataset=c4
  lmlab scaling fit runs/sweeps/batch_size --hyperparameter lr --against tokens
  lmlab scaling predict runs/sweeps/isoflop --budget 4e13 --device H100
  lmlab scaling predict runs/sweeps/isoflop --check runs/large
  lmlab scaling serve --api-key secret            a training API to plan against
  lmlab scaling plan --budget 2e18 --target 1e19 --server http://127.0.0.1:8080 --api-key secret
  lmlab scaling plan --budget 1e14 --target 4e14 experiment=cpu_scale       real runs
  lmlab scaling report runs/sweeps/isoflop
  lmlab scaling coordinates optimizer=adamw lr=1e-2 --plot coordinates.png
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
    add_table(fit)
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
    register_predict(tools)
    register_plan(tools)
    register_serve(tools)
    register_report(tools)
    register_coordinates(tools)


def run_fit(options: argparse.Namespace) -> None:
    """Print a fit."""
    from lmlab.scaling.text import fit_text, fit_values, json_text

    runs = load_runs(options, curves=options.approach == "1")
    fit = _fit(runs, options)
    if options.json:
        print(json_text(fit_values(fit, runs)))
    else:
        print(fit_text(fit, runs))


def _fit(runs: "Runs", options: argparse.Namespace) -> "Fit":
    settings = {"samples": options.samples, "seed": options.seed}
    if options.hyperparameter is not None:
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
