"""From a budget to a number of steps."""

from lmlab.errors import ConfigError
from lmlab.training.config import BudgetConfig


def check_budget(budget: BudgetConfig, tokens_per_step: int | None) -> None:
    """Raise ConfigError for a budget of tokens when steps have different numbers of them."""
    if budget.kind != "steps" and tokens_per_step is None:
        raise ConfigError(
            "budget",
            f"budget={budget.kind} needs the same number of tokens in every step, as task=pretrain "
            "and task=sft task.packing=true have; use budget=steps budget.steps=N",
        )


def total_steps(
    budget: BudgetConfig, tokens_per_step: int | None, parameters: int, flops_per_token: float
) -> int:
    """Return the optimizer steps within the budget, at least one.

    `flops_per_token` is that of training: forward and backward. Raises ConfigError for a budget of
    tokens when `tokens_per_step` is None.
    """
    if budget.kind == "steps":
        return budget.steps
    check_budget(budget, tokens_per_step)
    assert tokens_per_step is not None
    if budget.kind == "tokens":
        tokens = float(budget.tokens)
    elif budget.kind == "flops":
        tokens = budget.flops / flops_per_token
    else:
        tokens = budget.tokens_per_parameter * parameters
    return max(1, int(tokens // tokens_per_step))
