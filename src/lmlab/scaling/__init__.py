"""Scaling laws: fits with intervals, predictions, a planner, and the training API it plays with."""

from lmlab.lazy import lazy_exports

__getattr__ = lazy_exports(
    __name__,
    {
        "table": ("Runs", "make_runs", "read_table"),
        "law": ("Law",),
        "parametric": ("ParametricFit", "fit_parametric"),
        "isoflop": ("IsoflopFit", "fit_isoflop"),
        "envelope": ("EnvelopeFit", "fit_envelope"),
        "overtraining": ("OvertrainingFit", "OvertrainingLaw", "fit_overtraining"),
        "hyperparameters": ("HyperparameterFit", "fit_hyperparameter"),
        "power_law": ("PowerLaw", "fit_power_law"),
    },
)
