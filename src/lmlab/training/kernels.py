"""Puts fused kernels and low-precision products into a model and its objective."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmlab.errors import ConfigError
from lmlab.kernels.low_precision import ALIGNMENT, PRODUCTS
from lmlab.kernels.measured import speedups
from lmlab.kernels.support import head_width_problem, triton_problem
from lmlab.model import build
from lmlab.model.attention.masks import Strided
from lmlab.model.attention.softmax import SoftmaxAttention
from lmlab.model.config import ModelConfig
from lmlab.model.ffn.moe import MoE
from lmlab.model.layers import Linear
from lmlab.model.norm import RMSNorm
from lmlab.model.products import low_precision
from lmlab.model.transformer import Transformer
from lmlab.training.losses import Terms
from lmlab.training.objective import NextToken

PRECISION_NAMES = {"fp8": "fp8 (tensorwise)", "mxfp8": "mxfp8 (emulated)"}
"""What a run prints for a precision, where that is more than its name."""


def set_precision(model: Transformer, precision: str) -> None:
    """Make the linear layers of a model's blocks compute in `fp8` or `mxfp8`; the head does not.

    Other precisions are autocast's.
    """
    if precision not in PRODUCTS:
        return
    for module in model.blocks.modules():
        if isinstance(module, Linear | MoE):
            module.product = low_precision(precision)


def check_widths(config: ModelConfig, precision: str) -> None:
    """Raise ConfigError when a weight of the blocks does not fit float8 products."""
    if precision != "fp8":
        return
    for name, weight in build(config, config.vocab_size or 1, device="meta").named_parameters():
        narrow = weight.ndim > 1 and any(width % ALIGNMENT for width in weight.shape[-2:])
        if narrow and name.startswith("blocks.") and not name.endswith("centroids"):
            raise ConfigError(
                "trainer.precision",
                f"'fp8' needs widths that are multiples of {ALIGNMENT}, the weight {name} has "
                f"{weight.shape[-2]} x {weight.shape[-1]}; change the width, or use mxfp8",
            )


def check_kernels(kernels: str, device: torch.device) -> None:
    """Raise ConfigError when the fused kernels were asked for and do not run on the device."""
    problem = triton_problem(device) if kernels == "triton" else None
    if problem:
        raise ConfigError("trainer.kernels", f"'triton' {problem}; use auto or torch")


def use_kernels(objective: nn.Module, kernels: str, device: torch.device) -> str | None:
    """Put the Triton kernels into an objective and its model; returns a line that names them.

    `auto` takes those that were measured faster on the device, attention among them where its
    backend is auto as well. `torch` takes none. None: no kernel was taken.
    """
    ratios: dict[str, float] = {}
    if kernels == "auto" and triton_problem(device) is None:
        ratios = {name: ratio for name, ratio in speedups(device).items() if ratio > 1}
    wanted = {"cross_entropy", "rms_norm"} if kernels == "triton" else set(ratios)
    taken = {name for name in wanted if _put(objective, name)}
    if not taken:
        return None
    found = (f"{n} ({ratios[n]:.2f} x torch)" if n in ratios else n for n in sorted(taken))
    return f"Triton kernels: {', '.join(found)}"


def _put(objective: nn.Module, name: str) -> bool:
    """Put one kernel into all modules that have a place for it; returns whether any has."""
    found = False
    for module in objective.modules():
        if name == "rms_norm" and isinstance(module, RMSNorm):
            module.fused, found = rms_norm, True
        elif name == "cross_entropy" and isinstance(module, NextToken):
            module.fused, found = fused_token_losses, True
        elif name == "attention" and isinstance(module, SoftmaxAttention) and _fits(module):
            module.backend, found = "triton", True
    return found


def _fits(attention: SoftmaxAttention) -> bool:
    """Whether the backend is open, and the Triton attention takes the layer."""
    takes = head_width_problem(attention.head_dim) is None and attention.dropout == 0
    return attention.backend == "auto" and takes and not isinstance(attention.mask, Strided)


def rms_norm(
    x: Float[Tensor, "rows d"], weight: Float[Tensor, "d"], eps: float
) -> Float[Tensor, "rows d"]:
    """Return RMSNorm by the Triton kernel."""
    from lmlab.kernels.triton_kernels.rms_norm import triton_rms_norm

    return triton_rms_norm(x, weight, eps)[0]


def fused_token_losses(
    logits: Float[Tensor, "*batch vocab"],
    targets: Int[Tensor, "*batch"],
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> Terms:
    """Return what `token_losses` does, by the Triton kernel."""
    from lmlab.kernels.triton_kernels.cross_entropy import triton_cross_entropy

    rows = logits.reshape(-1, logits.shape[-1])
    loss, lse, mean = triton_cross_entropy(rows, targets.reshape(-1))
    terms = {"loss": loss.sum()}
    if z_loss > 0:
        terms["z_loss"] = z_loss * lse.square().sum()
    if label_smoothing > 0:
        terms["label_smoothing"] = label_smoothing * (lse - loss - mean).sum()
    return terms
