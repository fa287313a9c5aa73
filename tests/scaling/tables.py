"""Tables of simulated runs."""

import numpy as np

from lmlab.scaling.law import Law
from lmlab.scaling.table import Runs, make_runs

SIZES = ((32, 1), (32, 2), (64, 1), (64, 2))
"""Width and depth of the runs in `folder`."""
BUDGETS = (4e8, 1.2e9)
"""Their FLOPs."""
COURSE = Law(2.69, 1606.4, 3210.7, 0.34, 0.36)


def isoflop_table(
    law: Law = COURSE, noise: float = 0.0, seed: int = 0, budgets: int = 6, sizes: int = 8
) -> Runs:
    """Return runs of several sizes around the optimum of each budget."""
    rng = np.random.default_rng(seed)
    flops = np.repeat(np.geomspace(1e18, 1e21, budgets), sizes)
    parameters = law.optimum(flops)[0] * np.tile(np.geomspace(0.2, 5, sizes), budgets)
    loss = law.loss(parameters, flops / 6 / parameters)
    return make_runs(
        parameters=parameters, flops=flops, loss=loss * np.exp(rng.normal(0, noise, len(loss)))
    )
