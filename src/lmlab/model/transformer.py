"""The decoder-only Transformer language model."""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lmlab.kernels.native import INSTRUCTIONS
from lmlab.model.attention import build_attention
from lmlab.model.attention.softmax import SoftmaxAttention
from lmlab.model.block import BLOCKS, Residual
from lmlab.model.cache import Cache
from lmlab.model.config import ModelConfig
from lmlab.model.context import Context, Rows
from lmlab.model.ffn import build_ffn
from lmlab.model.ffn.moe import MoE
from lmlab.model.init import INITS, mup, truncated_normal_
from lmlab.model.layers import Embedding, Linear, softcap
from lmlab.model.norm import NORMS
from lmlab.model.position import POSITIONS


class Transformer(nn.Module):
    """Token embedding, blocks, final norm and linear head; returns logits."""

    def __init__(
        self, config: ModelConfig, vocab_size: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        target = torch.device(device) if device is not None else torch.get_default_device()
        device = "meta"  # each weight is allocated and drawn once, at the end
        self.config = config
        self.context_length = config.context_length
        self.vocab_size = vocab_size
        self.logit_softcap = config.logit_softcap
        d_model = config.d_model
        norm = partial(NORMS[config.norm], d_model, config.norm_eps, device=device)
        wrap = partial(Residual, placement=config.norm_placement, norm=norm, dropout=config.dropout)
        self.token_embedding = Embedding(vocab_size, d_model, device=device)
        self.embedding_scale = d_model**0.5 if config.scale_embeddings else None
        self.position = POSITIONS[config.position.kind](config, device)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        attentions = [build_attention(config, layer, device) for layer in range(config.num_layers)]
        self.blocks = nn.ModuleList(
            BLOCKS[config.block](
                attention, build_ffn(config.ffn, d_model, config.ffn_width, device), wrap
            )
            for attention in attentions
        )
        # After post-norm the stream is normalised already.
        last = config.norm_placement in ("pre", "double")
        self.final_norm = norm() if last else nn.Identity()
        self.lm_head = Linear(d_model, vocab_size, device=device)
        self.checkpoint_activations = False
        self._attentions = attentions  # a list, so not registered twice
        self._moes = [module for module in self.modules() if isinstance(module, MoE)]
        self._loads: Tensor | None = None
        self._tie()
        if target.type != "meta":
            self.to_empty(device=target)
            self.reset_parameters()

    def _tie(self) -> None:
        if self.config.tie_embeddings:
            self.lm_head.weight = self.token_embedding.weight

    def reset_parameters(self) -> None:
        """Draw all weights and compute all tables, on the device they are on.

        For a model built on the meta device, after `to_empty` and sharding. The weights depend on
        torch's seed alone.
        """
        self._tie()  # `to_empty` unties
        done: set[nn.Module] = {self}
        for part in (self.token_embedding, self.position, *self._attentions, self):
            for module in part.modules():
                reset = getattr(module, "reset_parameters", None)
                if module not in done and callable(reset):
                    reset()
                done.add(module)
        if self.config.tie_embeddings or self.config.scale_embeddings:
            # With N(0, 1) a tied head or the scale would give logits of size sqrt(d_model).
            truncated_normal_(self.token_embedding.weight, std=self.config.d_model**-0.5)
        INITS[self.config.init](self, self.config.num_layers)
        if self.config.parametrization == "mup":
            mup(self, self.config)

    def forward(
        self,
        ids: Int[Tensor, "*batch time"],
        positions: Int[Tensor, "*batch time"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "*batch time vocab"]:
        """Return the logits of the next token at each position, up to the context length.

        With a cache, `ids` follow the tokens in the cache. Padding has negative `positions`.
        """
        return self.logits(self.hidden(ids, positions, cache))

    def logits(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Return the logits of hidden states."""
        logits = self.lm_head(hidden)
        return logits if self.logit_softcap is None else softcap(logits, self.logit_softcap)

    def hidden(
        self,
        ids: Int[Tensor, "*batch time"],
        positions: Int[Tensor, "*batch time"] | None = None,
        cache: Cache | None = None,
        segments: Int[Tensor, "*batch time"] | None = None,
        rows: Rows | None = None,
        counted: Bool[Tensor, "*batch time"] | None = None,
    ) -> Float[Tensor, "*batch time d_model"]:
        """Return the input of the head; arguments as in `forward`.

        `segments` numbers the examples of rows that hold several, whose tokens attend within their
        example; `positions` then begin at 0 in each. With `rows`, `ids` and `positions` are those
        of the tokens (tokens) that the rows share; see `takes_rows`. `counted` are the tokens that
        count in the losses and loads of experts; None: all.
        With `checkpoint_activations` a block saves its input only, and is computed again in the
        backward pass (Chen et al. 2016). Raises ValueError beyond the context length.
        """
        if ids.ndim == 0:
            raise ValueError("ids need a time dimension, got a single id")
        if cache is not None and ids.dim() != 2:
            raise ValueError(f"with a cache, ids are (batch, time), not {tuple(ids.shape)}")
        time = ids.shape[-1] if rows is None else rows.token.shape[-1]
        before = cache.length if cache is not None else 0
        if before + time > self.context_length and (positions is None or cache is None):
            raise ValueError(
                f"{before + time} tokens exceed the context length of {self.context_length}"
            )
        where = positions
        if where is None:
            where = torch.arange(before, before + time, device=ids.device)
        else:
            where = where.clamp(min=0)
        x = self.token_embedding(ids)
        if self.embedding_scale is not None:
            x = x * self.embedding_scale
        x = self.dropout(self.position.add(x, where))
        rotation = self.position.rotation(where)
        if cache is not None:
            cache.prepare(where if positions is None else positions, len(ids))
        for moe in self._moes:
            moe.counted = counted
        for layer, block in enumerate(self.blocks):
            layer_cache = cache.layers[layer] if cache is not None else None
            context = Context(
                positions=positions,
                rotation=rotation,
                segments=segments,
                rows=rows,
                cache=layer_cache,
            )
            if self.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, context, use_reentrant=False)
            else:
                x = block(x, context)
        if self._moes and self.training:
            self._add_loads(ids.numel() if counted is None else counted.sum())
        return self.final_norm(x)

    @property
    def takes_rows(self) -> bool:
        """Whether rows that share tokens give what whole rows do.

        Attention must have a softmax; the losses of experts count each token of a row.
        """
        return all(isinstance(attention, SoftmaxAttention) for attention in self._attentions) and (
            not any(isinstance(module, MoE) for module in self.modules())
        )

    def new_cache(self, num_rows: int | None = None, longest: int | None = None) -> Cache:
        """Return an empty cache for `num_rows` sequences; None: as many as the first batch has.

        `longest` is the number of tokens of the longest sequence; None: the context length, which
        is always taken without the native core: torch's sums depend on the number of slots.
        """
        layers = [attention.new_cache() for attention in self._attentions]
        limit = self.context_length
        if longest is not None and INSTRUCTIONS:
            limit = min(longest, limit)
        return Cache(layers, limit, num_rows)

    def cache_elements(self, length: int) -> int:
        """Return the number of elements in the cache of one sequence of `length` tokens."""
        return sum(attention.cache_elements(length) for attention in self._attentions)

    def auxiliary_losses(self) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted auxiliary losses of the last forward pass by name."""
        losses: dict[str, list[Tensor]] = {}
        for moe in self._moes:
            if moe.routing is not None:
                losses.setdefault("moe/load_balancing_loss", []).append(
                    moe.load_balancing_loss * moe.routing.balance
                )
                losses.setdefault("moe/router_z_loss", []).append(moe.router_z_loss * moe.routing.z)
        return {name: torch.stack(layers).mean() for name, layers in losses.items()}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _add_loads(self, tokens: int | Tensor) -> None:
        routings = [moe.routing for moe in self._moes if moe.routing is not None]
        loads = tokens * torch.stack([routing.load.detach() for routing in routings])
        self._loads = loads if self._loads is None else self._loads + loads

    def take_metrics(self) -> dict[str, Float[Tensor, ""]]:
        """Return the load of each expert in training since the last call, in this process."""
        if self._loads is None:
            return {}
        loads = self._loads / self._loads.sum(dim=-1, keepdim=True)
        self._loads = None
        metrics = {
            f"moe/load/layer_{layer}/expert_{expert}": load
            for layer, row in enumerate(loads.unbind())
            for expert, load in enumerate(row.unbind())
        }
        # 1: balanced; num_experts: one expert only.
        return metrics | {"moe/largest_load": loads.max() * loads.shape[1]}
