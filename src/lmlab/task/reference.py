"""The reference model that a policy is kept close to."""

from lmlab.config import RunConfig
from lmlab.errors import UserError
from lmlab.model import Transformer
from lmlab.model import build as build_model
from lmlab.model.value_head import without_value_head
from lmlab.training.checkpoint import read_checkpoint
from lmlab.training.resume import load_weights


def reference_model(config: RunConfig, policy: Transformer) -> Transformer:
    """Return the model in `init_from`, on the policy's device, in evaluation mode, frozen.

    Raises UserError when it is gone, or does not fit.
    """
    path = config.init_from
    if path is None or not path.exists():
        raise UserError(f"init_from={path} does not exist, and the reference is its model")
    reference = build_model(config.model, policy.vocab_size)
    weights = read_checkpoint(path, optimizer=False)["model"]
    load_weights(reference, without_value_head(weights), f"init_from={path}")
    reference.to(next(policy.parameters()).device)
    return reference.eval().requires_grad_(False)
