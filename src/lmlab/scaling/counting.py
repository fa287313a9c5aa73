"""What counts as parameters and FLOPs in a scaling law, by name."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from lmlab.scaling.law import FLOPS_PER_PARAMETER

Counting = Literal["all", "no_scores", "no_embeddings", "no_embeddings_no_scores", "6nd"]
COUNTINGS: dict[Counting, str] = {
    "all": "all parameters; FLOPs of all matrix products",
    "no_scores": "all parameters; FLOPs without attention's scores",
    "no_embeddings": "parameters and FLOPs without embeddings and output head",
    "no_embeddings_no_scores": "parameters without embeddings and head; their matrix products "
    "alone, 6 N D (Kaplan et al. 2020)",
    "6nd": "all parameters; FLOPs 6 N D (Hoffmann et al. 2022, approach 3)",
}
assert tuple(COUNTINGS) == get_args(Counting)


def counted(
    account: Mapping[str, Any], model: Mapping[str, Any], counting: Counting
) -> tuple[float, float]:
    """Return the parameters of a run and its training FLOPs on a token.

    `account` is the run's account.json, `model` the configuration of its model.
    """
    parameters = float(account["parameters"])
    if counting == "6nd":
        return parameters, FLOPS_PER_PARAMETER * parameters
    left_out = set()
    if "no_scores" in counting:
        left_out.add("scores")
    if "no_embeddings" in counting:
        left_out.add("head")
        tables = 1 if model["tie_embeddings"] else 2
        parameters -= tables * account["vocab_size"] * model["d_model"]
        if model["position"]["kind"] == "learned":
            parameters -= model["context_length"] * model["d_model"]
    flops = sum(n for part, n in account["forward_flops"].items() if part not in left_out)
    return parameters, 3 * flops / account["context_length"]
