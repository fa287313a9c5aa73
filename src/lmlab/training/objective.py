"""What is minimised."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Terms = dict[str, Float[Tensor, ""]]
Losses = tuple[Float[Tensor, ""], Terms]
"""What is minimised and, detached, what is logged of it, `loss` among it: sums over sequences."""


class LanguageModel(Protocol):
    """What an objective needs of a model."""

    @property
    def lm_head(self) -> nn.Module:
        """What turns hidden states into logits."""

    def hidden(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time d_model"]:
        """Return what the head reads."""

    def logits(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Apply the head."""

    def auxiliary_losses(self) -> Terms:
        """Return what the last forward pass adds to the objective."""


def cross_entropy(
    logits: Float[Tensor, "*batch vocab"], targets: Int[Tensor, "*batch"], reduction: str = "mean"
) -> Float[Tensor, ""]:
    """Return `log sum exp(logits) - logits[target]` in nats: the mean or the sum over all tokens.

    Float32 inside; `logsumexp` subtracts the maximum, so large logits do not overflow.
    """
    logits = logits.float()
    target_logits = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    losses = torch.logsumexp(logits, dim=-1) - target_logits
    return losses.sum() if reduction == "sum" else losses.mean()


def token_losses(
    logits: Float[Tensor, "*batch vocab"],
    targets: Int[Tensor, "*batch"],
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> Terms:
    """Return the cross-entropy and what is added to it, each summed over all tokens.

    The z-loss is `log^2 Z` with `Z = sum exp(logits)` (Chowdhery et al. 2022, section 5). Label
    smoothing by e moves a share e of the target evenly to all tokens (Szegedy et al. 2016): it adds
    `e (logits[target] - mean(logits))`, and the cross-entropy stays comparable.
    """
    logits = logits.float()
    target_logits = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    normaliser = torch.logsumexp(logits, dim=-1)
    terms = {"loss": (normaliser - target_logits).sum()}
    if z_loss > 0:
        terms["z_loss"] = z_loss * normaliser.square().sum()
    if label_smoothing > 0:
        terms["label_smoothing"] = label_smoothing * (target_logits - logits.mean(dim=-1)).sum()
    return terms


class _TokenLosses(torch.autograd.Function):
    """`token_losses` with its gradient written out: softmax - one-hot, in place."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, z_loss: float, label_smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        places = targets.unsqueeze(-1)
        log_p = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        target_log_p = log_p.gather(-1, places)
        target_logits = logits.gather(-1, places).float()
        normaliser = target_logits - target_log_p
        smoothing = normaliser.new_zeros(())
        if label_smoothing > 0:
            means = logits.mean(dim=-1, keepdim=True, dtype=torch.float32)
            smoothing = label_smoothing * (target_logits - means).sum()
        ctx.save_for_backward(places, normaliser)
        ctx.log_p, ctx.settings, ctx.dtype = log_p, (z_loss, label_smoothing), logits.dtype
        return -target_log_p.sum(), z_loss * normaliser.square().sum(), smoothing

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        places, normaliser = ctx.saved_tensors
        z_loss, label_smoothing = ctx.settings
        loss_grad, z_grad, smoothing_grad = grads
        p, ctx.log_p = ctx.log_p.exp_(), None  # which was kept for this alone
        p.mul_(loss_grad + 2 * z_loss * z_grad * normaliser)
        evenly = label_smoothing * smoothing_grad
        if label_smoothing > 0:
            p.sub_(evenly / p.shape[-1])
        p.scatter_add_(-1, places, (evenly - loss_grad).expand(places.shape))
        return p.to(ctx.dtype), None, None, None


def fused_token_losses(
    logits: Float[Tensor, "*batch vocab"],
    targets: Int[Tensor, "*batch"],
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> Terms:
    """Return what `token_losses` does, in fewer passes over the logits; it can go backward once."""
    loss, z, smoothing = _TokenLosses.apply(logits, targets, z_loss, label_smoothing)
    terms = {"loss": loss}
    terms |= {"z_loss": z} if z_loss > 0 else {}
    return terms | ({"label_smoothing": smoothing} if label_smoothing > 0 else {})


class Objective(nn.Module, ABC):
    """A model with its loss, for a kind of batch."""

    @abstractmethod
    def forward(self, *batch: Any) -> Losses:
        """Return what is minimised and what is logged of it: sums over the batch's sequences."""

    @abstractmethod
    def weight(self, *batch: Any) -> float:
        """Return what the sums are divided by: tokens, sequences, or the sum of a mask."""


class NextToken(Objective):
    """Loss of predicting each next token, summed, with the model's auxiliary losses.

    `chunk_tokens` is how many tokens go through the head and the loss at a time, so that the logits
    of the whole batch are never in memory together; the result is the same up to rounding.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        z_loss: float = 0.0,
        label_smoothing: float = 0.0,
        chunk_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.z_loss = z_loss
        self.label_smoothing = label_smoothing
        self.chunk_tokens = chunk_tokens

    def forward(
        self, inputs: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]
    ) -> Losses:
        """Return what is minimised, and its terms: sums over the tokens."""
        hidden = self.model.hidden(inputs)
        if self.chunk_tokens is None:
            sums = self._losses(hidden, targets)
        else:
            sums = chunked(
                self._losses,
                tuple(self.model.lm_head.parameters()),
                hidden.flatten(0, 1),
                targets.flatten(),
                self.chunk_tokens,
            )
        if self.training:  # auxiliary losses are means over the micro-batch
            auxiliary = self.model.auxiliary_losses()
            sums |= {name: value * targets.numel() for name, value in auxiliary.items()}
        return torch.stack(list(sums.values())).sum(), {k: v.detach() for k, v in sums.items()}

    def weight(self, inputs: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]) -> int:
        """Return what the sums are divided by: the number of tokens."""
        return targets.numel()

    def _losses(self, hidden: Tensor, targets: Tensor) -> Terms:
        logits = self.model.logits(hidden)
        # A compiler fuses the definition by itself.
        losses = token_losses if torch.compiler.is_compiling() else fused_token_losses
        return losses(logits, targets, self.z_loss, self.label_smoothing)


def fastest_chunk(device: torch.device) -> int | None:
    """Return how many tokens at a time are fastest, measured with vocabularies up to 50,257."""
    return 1024 if device.type == "cpu" else None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def chunked(
    losses: Callable[[Tensor, Tensor], Terms],
    parameters: tuple[Tensor, ...],
    hidden: Float[Tensor, "tokens d_model"],
    targets: Int[Tensor, "tokens"],
    size: int,
) -> Terms:
    """Return `losses(hidden, targets)`, sums over tokens, computed on `size` tokens at a time.

    `parameters` are those that `losses` uses. Only the sum of all terms has a gradient: it is
    carried by the first of them, and the others are detached.
    """
    if not torch.is_grad_enabled():
        pieces = zip(hidden.split(size), targets.split(size), strict=True)
        return _add(losses(*piece) for piece in pieces)
    names: list[str] = []
    total, *values = _Chunked.apply(losses, names, size, hidden, targets, *parameters)
    terms = dict(zip(names, values, strict=True))
    first = names[0]
    # The value of the first term with the gradient of the total.
    terms[first] = terms[first] + (total - total.detach())
    return terms


def _add(parts: Any) -> Terms:
    sums: Terms = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums[name] + value if name in sums else value
    return sums


class _Chunked(torch.autograd.Function):
    """Computes the gradients of a chunk right after its losses, while its logits are there."""

    @staticmethod
    def forward(
        ctx: Any,
        losses: Callable[[Tensor, Tensor], Terms],
        names: list[str],
        size: int,
        hidden: Tensor,
        targets: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        sums: Terms = {}
        hidden_grad = torch.empty_like(hidden)
        parameter_grads = [torch.zeros_like(p) for p in parameters]
        chunks = zip(hidden.split(size), targets.split(size), hidden_grad.split(size), strict=True)
        for piece, piece_targets, piece_grad in chunks:
            with torch.enable_grad():
                piece = piece.detach().requires_grad_()
                terms = losses(piece, piece_targets)
                total = torch.stack(list(terms.values())).sum()
            grad, *grads = torch.autograd.grad(total, (piece, *parameters))
            piece_grad.copy_(grad)
            torch._foreach_add_(parameter_grads, grads)
            sums = _add([sums, {name: value.detach() for name, value in terms.items()}])
        ctx.save_for_backward(hidden_grad, *parameter_grads)
        names.extend(sums)
        values = list(sums.values())
        ctx.mark_non_differentiable(*values)
        return torch.stack(values).sum(), *values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        scaled = [saved * grads[0] for saved in ctx.saved_tensors]
        return None, None, None, scaled[0], None, *scaled[1:]
