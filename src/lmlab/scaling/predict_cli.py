"""`lmlab scaling predict` and `report`."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lmlab.accounting.vocabulary import GPT2_VOCABULARY
from lmlab.arguments import png_file
from lmlab.errors import UserError
from lmlab.gpu.names import Precision, sheet_names
from lmlab.scaling.arguments import add_table, load_other, load_runs, positive, training_flops

if TYPE_CHECKING:
    from lmlab.scaling.cost import RunCost
    from lmlab.scaling.parametric import ParametricFit
    from lmlab.scaling.table import Runs

Subcommands = Any


def register_predict(tools: Subcommands) -> None:
    """Add `predict` to `lmlab scaling`."""
    predict = tools.add_parser(
        "predict",
        help="predict the best size, tokens and loss of a budget",
        description="Predict the best size, tokens and loss of a budget from the parametric law of "
        "a table (approach 3), with 95 % intervals, and what the run costs on a device.",
    )
    add_table(predict)
    predict.add_argument(
        "--budget", type=training_flops, nargs="+", default=[], metavar="FLOPS", help="of training"
    )
    _add_check(predict)
    predict.add_argument(
        "--device",
        metavar="NAME",
        help=f"cost on this device: {', '.join(sheet_names())}, or a sheet FILE.yaml",
    )
    predict.add_argument(
        "--mfu", type=positive, default=0.4, help="share of the device's peak (default: 0.4)"
    )
    predict.add_argument("--precision", choices=get_args(Precision), default="bf16")
    predict.add_argument(
        "--model",
        nargs="+",
        default=["model=small"],
        metavar="KEY=VALUE",
        help="the model of the cost, apart from its size (default: model=small)",
    )
    predict.add_argument("--json", action="store_true", help="print the predictions as JSON")
    predict.set_defaults(run=run_predict)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        type=Path,
        metavar="TABLE",
        help="runs that are not fitted, a file or a folder: predicted from their size and tokens, "
        "and compared",
    )


def register_report(tools: Subcommands) -> None:
    """Add `report` to `lmlab scaling`."""
    report = tools.add_parser(
        "report",
        help="make a page of a table's laws",
        description="Make one self-contained page: runs, curves, optima, fits, the frontier with "
        "intervals, residuals.",
    )
    add_table(report)
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="default: scaling.html beside the table"
    )
    report.add_argument("--plot", type=png_file, metavar="FILE.png", help="draw a picture as well")
    report.add_argument(
        "--target", type=training_flops, metavar="FLOPS", help="predict this budget on the page"
    )
    _add_check(report)
    report.set_defaults(run=run_report)


def run_predict(options: argparse.Namespace) -> None:
    """Print predictions."""
    from lmlab.scaling.check import check_lines, check_runs
    from lmlab.scaling.parametric import fit_parametric
    from lmlab.scaling.text import json_text
    from lmlab.text import duration

    if not 0 < options.mfu <= 1:
        raise UserError(f"--mfu is a share of the peak, between 0 and 1, got {options.mfu:g}")
    if not options.budget and not options.check:
        raise UserError("give --budget FLOPS or --check TABLE")
    runs = load_runs(options)
    others = load_other(options, options.check) if options.check else None
    fit = fit_parametric(runs, samples=options.samples, seed=options.seed)
    checks = check_runs(fit, others, seed=options.seed) if others else ()
    values = [_prediction(fit, runs, budget) for budget in options.budget]
    if options.json:
        for found in values:
            if options.device is not None:
                cost = _cost(found["parameters"], found["tokens"], options)
                found |= {"device": options.device, "device_hours": cost.device_hours}
                found |= {"devices": cost.devices}
        values += [asdict(check) | {"error": check.error} for check in checks]
        print(json_text(values))
        return
    print("\n".join(fit.notes), end="\n" if fit.notes else "")
    for found in values:
        print("\n".join(_lines(found, runs)))
        if options.device is not None:
            cost = _cost(found["parameters"], found["tokens"], options)
            s = cost.shape
            print(
                f"  {options.device}: {duration(cost.seconds)} of one device at "
                f"{100 * options.mfu:g} % of its peak in {options.precision}, "
                f"{cost.device_hours:,.1f} device hours; memory for at least {cost.devices}\n"
                f"  counted for d_model={s.d_model} num_layers={s.num_layers} "
                f"num_heads={s.num_heads}: {cost.costs.parameters:.4g} parameters with embeddings, "
                f"{found['tokens'] * cost.costs.flops_per_token:.3g} FLOPs with scores and head"
            )
    print("\n".join(check_lines(checks)), end="\n" if checks else "")


def _prediction(fit: "ParametricFit", runs: "Runs", budget: float) -> dict[str, Any]:
    """Return the best loss, size and tokens of a budget, with their intervals."""
    from lmlab.scaling.intervals import interval

    law, laws, cost = fit.law, fit.laws, runs.cost
    size, tokens = law.optimum(budget, cost)
    sizes, lengths = laws.optimum(budget, cost)
    found: dict[str, Any] = {"flops": budget, "times_largest": budget / float(runs.flops.max())}
    for name, value, drawn in (
        ("loss", law.best_loss(budget, cost), laws.best_loss(budget, cost)),
        ("parameters", size, sizes),
        ("tokens", tokens, lengths),
    ):
        range_ = interval(drawn)
        found[name] = float(value)
        found[f"{name}_interval"] = [range_.low, range_.high]
    return found | {"flat_region": list(law.flat_region(budget, cost))}


def _lines(found: dict[str, Any], runs: "Runs") -> list[str]:
    lines = [
        f"{found['flops']:.4g} FLOPs, {found['times_largest']:.3g} times the largest run of "
        f"{runs.source}",
        f"  {runs.cost}",
    ]
    for name, form in (("loss", ".4f"), ("parameters", ".4g"), ("tokens", ".4g")):
        low, high = found[f"{name}_interval"]
        lines.append(f"  {name:<10} {found[name]:{form}}  ({low:{form}} to {high:{form}})")
    low, high = found["flat_region"]
    return [*lines, f"  within 1 % of the best loss: {low:.3g} to {high:.3g} parameters"]


def _cost(parameters: float, tokens: float, options: argparse.Namespace) -> "RunCost":
    from lmlab.gpu.sheets import load_sheet
    from lmlab.hydra_app import compose
    from lmlab.scaling.cost import run_cost

    config = compose(*options.model)
    return run_cost(
        parameters,
        tokens,
        load_sheet(options.device),
        model=config.model,
        optimizer=config.optimizer,
        vocab_size=config.model.vocab_size or GPT2_VOCABULARY,
        precision=options.precision,
        mfu=options.mfu,
    )


def run_report(options: argparse.Namespace) -> None:
    """Write the page, and say where it is."""
    from lmlab.scaling.page import write_page
    from lmlab.scaling.report import make_report

    runs = load_runs(options)
    report = make_report(
        runs,
        samples=options.samples,
        seed=options.seed,
        target=options.target,
        others=load_other(options, options.check) if options.check else None,
    )
    folder = options.table if options.table.is_dir() else options.table.parent
    print(write_page(report, options.output or folder / "scaling.html"))
    if options.plot:
        from lmlab.scaling.picture import write_picture

        write_picture(report, options.plot)
        print(options.plot)
