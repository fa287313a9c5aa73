"""One Transformer block: two residual branches, each wrapped by the choice of norm placement."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lmlab.model.config import NormPlacement
from lmlab.model.position import Rotation


class Residual(nn.Module):
    """Add a branch to the residual stream, normalised where `placement` says.

    pre `x + f(N(x))`, post `N(x + f(x))`, double `x + N(f(N(x)))`, none `x + f(x)`.
    """

    def __init__(
        self, branch: nn.Module, placement: NormPlacement, norm: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        identity = nn.Identity
        self.norm_in = norm() if placement in ("pre", "double") else identity()
        self.branch = branch
        self.norm_out = norm() if placement == "double" else identity()
        self.norm_sum = norm() if placement == "post" else identity()

    def forward(
        self, x: Float[Tensor, "batch time d_model"], *context: Rotation | None
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the stream with the branch added."""
        return self.norm_sum(x + self.norm_out(self.branch(self.norm_in(x), *context)))


class Block(nn.Module):
    """Attention, then feed-forward, each a residual branch."""

    def __init__(
        self,
        attention: nn.Module,
        ffn: nn.Module,
        placement: NormPlacement,
        norm: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.attention = Residual(attention, placement, norm)
        self.ffn = Residual(ffn, placement, norm)

    def forward(
        self, x: Float[Tensor, "batch time d_model"], rotation: Rotation | None
    ) -> Float[Tensor, "batch time d_model"]:
        """Apply both branches."""
        return self.ffn(self.attention(x, rotation))
