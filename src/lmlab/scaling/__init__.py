"""Scaling laws: fits with intervals, predictions, a planner, and the training API it plays with."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.scaling.envelope import EnvelopeFit, fit_envelope
    from lmlab.scaling.files import read_table
    from lmlab.scaling.hyperparameters import HyperparameterFit, fit_hyperparameter
    from lmlab.scaling.isoflop import IsoflopFit, fit_isoflop
    from lmlab.scaling.law import Law
    from lmlab.scaling.overtraining import OvertrainingFit, OvertrainingLaw, fit_overtraining
    from lmlab.scaling.parametric import ParametricFit, fit_parametric
    from lmlab.scaling.power_law import PowerLaw, fit_power_law
    from lmlab.scaling.table import Runs, make_runs

__all__ = [
    "EnvelopeFit",
    "HyperparameterFit",
    "IsoflopFit",
    "Law",
    "OvertrainingFit",
    "OvertrainingLaw",
    "ParametricFit",
    "PowerLaw",
    "Runs",
    "fit_envelope",
    "fit_hyperparameter",
    "fit_isoflop",
    "fit_overtraining",
    "fit_parametric",
    "fit_power_law",
    "make_runs",
    "read_table",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "table": ("Runs", "make_runs"),
        "files": ("read_table",),
        "law": ("Law",),
        "parametric": ("ParametricFit", "fit_parametric"),
        "isoflop": ("IsoflopFit", "fit_isoflop"),
        "envelope": ("EnvelopeFit", "fit_envelope"),
        "overtraining": ("OvertrainingFit", "OvertrainingLaw", "fit_overtraining"),
        "hyperparameters": ("HyperparameterFit", "fit_hyperparameter"),
        "power_law": ("PowerLaw", "fit_power_law"),
    },
)
