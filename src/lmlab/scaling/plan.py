"""Plans against a training API, and as sweeps of real runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmlab.errors import UserError
from lmlab.scaling.client import ApiClient
from lmlab.scaling.journal import JOURNAL, Journal, carry_out, open_journal, plan_lock
from lmlab.scaling.planner import require_budget
from lmlab.scaling.sweeps import launched_together
from lmlab.scaling.trial import COURSE, Config, Space

Say = Callable[[str], None]


def plan_with_api(
    client: ApiClient, folder: Path, budget: float, target: float, say: Say
) -> Journal:
    """Carry out a plan on a training API.

    Runs that the server already has are read from it and not paid again. Raises UserError when
    runs of others have spent so much that the budget is used, and while another process carries out
    the plan.
    """
    require_budget(COURSE, budget)
    used = client.total_flops_used()
    known = {trial.config: trial.loss for trial in client.previous_runs()}
    settings = {"budget": budget, "target": target, "server": client.url}
    spent = {"spent_before": used}
    if used >= budget and not (folder / JOURNAL).exists():
        raise UserError(
            f"{used:.4g} of {budget:.4g} FLOPs are already spent on {client.url}; nothing is left "
            "to plan"
        )

    def run(configs: Sequence[Config]) -> Mapping[Config, float]:
        config = configs[0]
        loss = known[config] if config in known else client.run(config)
        if not (math.isfinite(loss) and loss > 0):
            raise UserError(f"{client.url} answers loss {loss} for {config}")
        return {config: loss}

    with plan_lock(folder):
        journal = open_journal(folder, settings, spent)
        if before := journal.settings["spent_before"]:
            say(f"{before:.3g} FLOPs were spent before this plan")
        return carry_out(journal, COURSE, run, say)


def plan_with_sweeps(
    launch: Callable[[Sequence[Config]], Mapping[Config, float]],
    space: Space,
    folder: Path,
    budget: float,
    target: float,
    overrides: Sequence[str],
    say: Say,
) -> Journal:
    """Carry out a plan as real runs: `launch` makes runs of different shapes as a sweep."""
    require_budget(space, budget)
    settings: dict[str, Any] = {"budget": budget, "target": target, "overrides": list(overrides)}

    def run(configs: Sequence[Config]) -> Mapping[Config, float]:
        return launch(launched_together(configs))

    with plan_lock(folder):
        return carry_out(open_journal(folder, settings), space, run, say)
