"""From a budget to a number of steps."""

from lmlab.training.config import BudgetConfig


def total_steps(
    budget: BudgetConfig, tokens_per_step: int, parameters: int, flops_per_token: float
) -> int:
    """Return the optimizer steps within the budget, at least one.

    `flops_per_token` is that of training: forward and backward.
    """
    if budget.kind == "steps":
        return budget.steps
    if budget.kind == "tokens":
        tokens = float(budget.tokens)
    elif budget.kind == "flops":
        tokens = budget.flops / flops_per_token
    else:
        tokens = budget.tokens_per_parameter * parameters
    return max(1, int(tokens // tokens_per_step))
