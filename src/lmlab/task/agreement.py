"""Whether all processes of a run were started with the same configuration."""

import hashlib
import json
from typing import Any

from lmlab.config import RunConfig
from lmlab.errors import UserError
from lmlab.schema import flatten
from lmlab.training.distributed import DistributedContext

KEYS = {"trainer", "parallel", "resume"}
"""Keys beside the identity of a run that all processes must share."""


def require_agreement(config: RunConfig, distributed: DistributedContext) -> None:
    """Raise UserError, in all processes, when one has another configuration than rank 0.

    They would wait for each other forever, or train different models.
    """
    values = flatten(config.identity() | config.model_dump(mode="json", include=KEYS))
    text = json.dumps(values, sort_keys=True)
    hashes = distributed.gather(hashlib.sha256(text.encode()).hexdigest())
    if len(set(hashes)) == 1:
        return
    other = next(rank for rank, found in enumerate(hashes) if found != hashes[0])
    everyone = distributed.gather(values)
    first, second = everyone[0], everyone[other]
    changes = ", ".join(
        f"{key}: {_show(second, key)}, not {_show(first, key)}"
        for key in first | second
        if first.get(key) != second.get(key)
    )
    raise UserError(
        f"rank {other} has another configuration than rank 0 ({changes}); start all processes "
        "with the same command"
    )


def _show(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "not set"
