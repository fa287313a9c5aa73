"""Fits and predictions as text for a terminal, and as values for JSON."""

import json
import math
from typing import Any

import numpy as np

from lmlab.scaling.envelope import EnvelopeFit
from lmlab.scaling.hyperparameters import HyperparameterFit
from lmlab.scaling.intervals import Interval
from lmlab.scaling.isoflop import IsoflopFit
from lmlab.scaling.law import NAMES
from lmlab.scaling.overtraining import CONSTANTS, OvertrainingFit
from lmlab.scaling.parametric import HUBER, ParametricFit
from lmlab.scaling.power_law import PowerLaw
from lmlab.scaling.table import Runs
from lmlab.text import markdown_table

Fit = ParametricFit | IsoflopFit | EnvelopeFit | OvertrainingFit | HyperparameterFit
HEAD = ("", "value", "95 % interval")


def fit_text(fit: Fit, runs: Runs) -> str:
    """Return a table of the constants with their intervals, and the diagnostics of the fit."""
    lines = [f"{runs.source}: {len(runs)} {'rows' if isinstance(fit, EnvelopeFit) else 'runs'}"]
    lines += [*runs.notes, *getattr(fit, "notes", ())]
    return "\n".join([*lines, "", *_body(fit, runs)])


def _body(fit: Fit, runs: Runs) -> list[str]:
    if isinstance(fit, ParametricFit):
        return _parametric(fit, runs)
    if isinstance(fit, IsoflopFit):
        rows = [
            [f"{p.flops:.4g}", f"{len(p.runs)}", f"{p.parameters:.4g}", f"{p.tokens:.4g}",
             f"{p.loss:.4f}", p.edge or ""]
            for p in fit.profiles
        ]  # fmt: skip
        head = ("FLOPs", "runs", "N", "D", "loss", "edge")
        table = markdown_table(head, rows, aligned=True)
        return [f"Optimum by {fit.method}", table, "", _exponents(fit.size_law, fit.token_law)]
    if isinstance(fit, EnvelopeFit):
        where = f"{fit.inside} of {len(fit.flops)} points of the envelope are inside of the sizes"
        return [f"{len(fit.curves)} curves; {where}.", _exponents(fit.size_law, fit.token_law)]
    if isinstance(fit, OvertrainingFit):
        intervals = fit.intervals()
        rows = [[n, f"{getattr(fit.law, n):.5g}", _range(intervals[n])] for n in CONSTANTS]
        error = float(np.sqrt(np.mean(fit.residuals**2)))
        return [
            "L = E + (a M^eta + b M^-eta) C^-eta, M = D / N, C = 6 N D",
            markdown_table(HEAD, rows, aligned=True),
            "",
            f"objective {fit.objective:.6g} (squared residuals); root mean square {error:.3g} nats",
        ]
    rows = [
        [f"{b.x:.4g}", f"{b.runs}", f"{b.value:.4g}", f"{b.loss:.4f}", b.edge or ""]
        for b in fit.best
    ]
    law = fit.law
    return [
        markdown_table((fit.against, "runs", fit.name, "loss", "edge"), rows, aligned=True),
        "",
        f"best {fit.name} = {np.exp(law.log_factor):.4g} x {fit.against}^{law.exponent:.4f} "
        f"(exponent {_range(law.exponent_interval)})",
    ]


def _parametric(fit: ParametricFit, runs: Runs) -> list[str]:
    values = dict(zip(NAMES, fit.law.values(), strict=True))
    if not fit.law.flat:
        values |= dict(zip(("a", "b"), fit.law.exponents, strict=True))
    intervals = fit.intervals()
    rows = [[name, f"{value:.6g}", _range(intervals[name])] for name, value in values.items()]
    worst = int(np.argmax(np.abs(fit.residuals)))
    state = "converged" if fit.converged else "did not converge"
    lines = [
        "L = E + A/N^alpha + B/D^beta; where C = 6 N D, the optimum is N ~ C^a, D ~ C^b",
        markdown_table(HEAD, rows, aligned=True),
        "",
        f"objective {fit.objective:.7g} (Huber {HUBER:g}); {state}, gradient {fit.gradient:.1g}; "
        f"{fit.agreeing} of the {fit.finalists} best of {fit.starts:,} starts agree",
        f"residuals of log loss: median {np.median(np.abs(fit.residuals)):.2g}, largest "
        f"{fit.residuals[worst]:+.2g} ({runs.parameters[worst]:.3g} parameters, "
        f"{runs.tokens[worst]:.3g} tokens)",
    ]
    if not fit.law.flat:
        largest = float(runs.flops.max())
        low, high = fit.law.flat_region(largest, runs.cost)
        best, _ = fit.law.optimum(largest, runs.cost)
        lines.append(
            f"flat region at {largest:.3g} FLOPs: {low:.3g} to {high:.3g} parameters are within "
            f"1 % of the best loss, at {best:.3g}"
        )
    return lines


def _exponents(size_law: PowerLaw, token_law: PowerLaw) -> str:
    rows = [
        [name, f"{law.exponent:.4f}", _range(law.exponent_interval)]
        for name, law in (("a", size_law), ("b", token_law))
    ]
    return "N ~ C^a, D ~ C^b\n" + markdown_table(HEAD, rows, aligned=True)


def _range(interval: Interval) -> str:
    return f"{interval.low:.5g} to {interval.high:.5g}"


def fit_values(fit: Fit, runs: Runs) -> dict[str, Any]:
    """Return a fit as values for JSON."""
    values: dict[str, Any] = {
        "source": runs.source,
        "runs": len(runs),
        "notes": [*runs.notes, *getattr(fit, "notes", ())],
    }
    if isinstance(fit, ParametricFit | OvertrainingFit):
        names = NAMES if isinstance(fit, ParametricFit) else CONSTANTS
        values["constants"] = {name: getattr(fit.law, name) for name in names}
        values["intervals"] = {k: [i.low, i.high] for k, i in fit.intervals().items()}
        values["objective"] = fit.objective
        values["residuals"] = fit.residuals.tolist()
    if isinstance(fit, ParametricFit):
        values |= {"converged": fit.converged, "gradient": fit.gradient}
        if not fit.law.flat:
            values["flat_region"] = list(fit.law.flat_region(float(runs.flops.max()), runs.cost))
    if isinstance(fit, IsoflopFit):
        values["optima"] = [
            {"flops": p.flops, "parameters": p.parameters, "loss": p.loss, "edge": p.edge}
            for p in fit.profiles
        ]
    if isinstance(fit, IsoflopFit | EnvelopeFit):
        values |= {"a": _law_values(fit.size_law), "b": _law_values(fit.token_law)}
    if isinstance(fit, HyperparameterFit):
        values |= {"name": fit.name, "against": fit.against, "law": _law_values(fit.law)}
    return values


def _law_values(law: PowerLaw) -> dict[str, Any]:
    interval = law.exponent_interval
    return {
        "exponent": law.exponent,
        "factor": float(np.exp(law.log_factor)),
        "interval": [interval.low, interval.high],
    }


def json_text(values: Any) -> str:
    """Return values as JSON; numbers that are not finite are null, for JSON has none."""
    return json.dumps(_finite(values), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
