"""Transformer blocks: residual branches in series or in parallel."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lmlab.model.config import BlockKind, NormPlacement
from lmlab.model.context import NO_CONTEXT, Context

Stream = Float[Tensor, "*batch time d_model"]


class Residual(nn.Module):
    """Add a branch to the residual stream, with norms by `placement`.

    pre `x + f(N(x))`, post `N(x + f(x))`, double `x + N(f(N(x)))`, none `x + f(x)`.
    """

    def __init__(
        self,
        branch: nn.Module,
        placement: NormPlacement,
        norm: Callable[[], nn.Module],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        identity = nn.Identity
        self.norm_in = norm() if placement in ("pre", "double") else identity()
        self.branch = branch
        self.norm_out = norm() if placement == "double" else identity()
        self.dropout = nn.Dropout(dropout) if dropout else identity()
        self.norm_sum = norm() if placement == "post" else identity()

    def forward(self, x: Stream, *context: Context) -> Stream:
        """Return the stream with the branch added."""
        added = self.dropout(self.norm_out(self.branch(self.norm_in(x), *context)))
        return self.norm_sum(x + added)


class Serial(nn.Module):
    """Attention, then feed-forward, each a residual branch (Vaswani et al. 2017)."""

    def __init__(
        self, attention: nn.Module, ffn: nn.Module, wrap: Callable[[nn.Module], Residual]
    ) -> None:
        super().__init__()
        self.attention = wrap(attention)
        self.ffn = wrap(ffn)

    def forward(self, x: Stream, context: Context = NO_CONTEXT) -> Stream:
        """Apply both branches."""
        return self.ffn(self.attention(x, context))


class Parallel(nn.Module):
    """Attention and feed-forward on the same input, one branch (Wang and Komatsuzaki 2021)."""

    def __init__(
        self, attention: nn.Module, ffn: nn.Module, wrap: Callable[[nn.Module], Residual]
    ) -> None:
        super().__init__()
        self.both = wrap(Sum(attention, ffn))

    def forward(self, x: Stream, context: Context = NO_CONTEXT) -> Stream:
        """Apply both in one branch."""
        return self.both(x, context)


class Sum(nn.Module):
    """`Attention(x) + FFN(x)`."""

    def __init__(self, attention: nn.Module, ffn: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.ffn = ffn

    def forward(self, x: Stream, context: Context = NO_CONTEXT) -> Stream:
        """Return the sum of both."""
        return self.attention(x, context) + self.ffn(x)


BLOCKS: dict[BlockKind, Callable[..., nn.Module]] = {"serial": Serial, "parallel": Parallel}
