"""Linear attention: a sum of outer products instead of a softmax, in chunks or token by token."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lmlab.model.attention.config import FeatureMap, LinearAttentionConfig
from lmlab.model.attention.heads import HeadProjections, rotate_heads
from lmlab.model.cache import StateCache
from lmlab.model.context import Context
from lmlab.model.layers import full_precision

FEATURE_MAPS: dict[FeatureMap, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "elu": lambda x: F.elu(x) + 1,
    "relu": torch.relu,
}
Queries = Float[Tensor, "*batch kv_heads group time d_k"]
Keys = Float[Tensor, "*batch kv_heads time d_k"]
State = Float[Tensor, "*batch kv_heads d_k d_v"]


def recurrent(
    q: Queries, k: Keys, v: Keys, state: State
) -> tuple[Float[Tensor, "*batch kv_heads group time d_v"], State]:
    """Return `q_t S_t` with `S_t = S_(t-1) + k_t^T v_t`, token by token: the definition."""
    outputs = []
    for t in range(q.shape[-2]):
        state = state + k[..., t, :, None] * v[..., t, None, :]
        outputs.append(q[..., t : t + 1, :] @ state.unsqueeze(-3))
    return torch.cat(outputs, dim=-2), state


def chunked(
    q: Queries, k: Keys, v: Keys, state: State, chunk_size: int
) -> tuple[Float[Tensor, "*batch kv_heads group time d_v"], State]:
    """Return what `recurrent` does, in parallel within chunks (Yang et al. 2024, section 2.2)."""
    time = q.shape[-2]
    size = min(chunk_size, time)
    q, k, v = (F.pad(x, (0, 0, 0, -time % size)).unflatten(-2, (-1, size)) for x in (q, k, v))
    added = k.mT @ v  # what each chunk adds to the state
    states = torch.cat((state.unsqueeze(-3), added), dim=-3).cumsum(dim=-3)
    k, v, before = k.unsqueeze(-4), v.unsqueeze(-4), states[..., None, :-1, :, :]
    out = q @ before + (q @ k.mT).tril() @ v
    return out.flatten(-3, -2)[..., :time, :], states[..., -1, :, :]


class LinearAttention(HeadProjections):
    """`phi(Q) (phi(K)^T V)`, causal (Katharopoulos et al. 2020); divided by the sum of the weights
    unless phi is the identity.

    A rotation turns `phi(q)` and `phi(k)` in the product, but not in the sum (Su et al. 2021, 3.3).
    """

    def __init__(
        self,
        config: LinearAttentionConfig,
        d_model: int,
        num_heads: int,
        head_dim: int,
        norm_eps: float,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(config, d_model, num_heads, head_dim, norm_eps, device=device)
        self.feature_map = FEATURE_MAPS[config.feature_map]
        self.normalised = config.feature_map != "identity"
        self.chunk_size = config.chunk_size

    def new_cache(self) -> StateCache:
        """Return an empty cache, of constant size."""
        return StateCache()

    def cache_elements(self, length: int) -> int:
        """Return the number of elements in the cache of one sequence of any length."""
        return self.num_kv_heads * self.head_dim * (self.head_dim + self.normalised)

    def attend(
        self, x: Float[Tensor, "batch time d_model"], context: Context
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the attention's output over the cache's state and the tokens of `x`.

        Computed in float32. Raises ValueError for segments, across which the state is carried, and
        for rows of shared tokens.
        """
        if context.segments is not None:
            raise ValueError("linear attention cannot keep the examples of a row apart")
        if context.rows is not None:
            raise ValueError("linear attention reads rows one by one")
        q, k, v = self.split(x)
        with full_precision(x.device):
            out = self._attend(q.float(), k.float(), v.float(), context)
        return self.merge(out.to(v.dtype))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        q, k = self.feature_map(q), self.feature_map(k)
        if context.positions is not None:
            k = k * (context.positions >= 0).unsqueeze(-1).unsqueeze(-3)  # padding adds nothing
        cache = context.cache if context.cache is not None else StateCache()
        assert isinstance(cache, StateCache)
        state, total = cache.read(k, v)
        group = self.num_heads // self.num_kv_heads
        turned = [rotate_heads(heads, context.rotation) for heads in (q, k)]
        queries = turned[0].unflatten(1, (-1, group))
        if q.shape[-2] == 1:
            out, state = recurrent(queries, turned[1], v, state)
        else:
            out, state = chunked(queries, turned[1], v, state, self.chunk_size)
        if self.normalised:
            totals = total.unsqueeze(-2) + k.cumsum(dim=-2)
            weights = (q.unflatten(1, (-1, group)) * totals.unsqueeze(2)).sum(dim=-1, keepdim=True)
            out = out / (weights + 1e-6)  # relu can leave nothing to divide by
            total = totals[..., -1, :]
        cache.write(state, total)
        return out.flatten(1, 2)
