"""The decoder-only Transformer language model."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lmlab.model.attention import build_attention
from lmlab.model.block import BLOCKS, Residual
from lmlab.model.cache import Cache
from lmlab.model.config import ModelConfig
from lmlab.model.context import Context
from lmlab.model.ffn import build_ffn
from lmlab.model.ffn.moe import MoE
from lmlab.model.init import INITS, truncated_normal_
from lmlab.model.layers import Embedding, Linear, softcap
from lmlab.model.norm import NORMS
from lmlab.model.position import POSITIONS


class Transformer(nn.Module):
    """Token embedding, blocks, a last norm and a linear head; returns logits."""

    def __init__(
        self, config: ModelConfig, vocab_size: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
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
        # Post-norm has just normalised the stream; without norms there is none here either.
        last = config.norm_placement in ("pre", "double")
        self.final_norm = norm() if last else nn.Identity()
        self.lm_head = Linear(d_model, vocab_size, device=device)
        if config.tie_embeddings:
            self.lm_head.weight = self.token_embedding.weight
        if config.tie_embeddings or config.scale_embeddings:
            # N(0, 1) would give a tied head logits of size sqrt(d_model), and so would the scale.
            truncated_normal_(self.token_embedding.weight, std=d_model**-0.5)
        INITS[config.init](self, config.num_layers)
        self.checkpoint_activations = False
        self._attentions = attentions  # in a list, unlike the modules that hold the parameters
        self._moes = [module for module in self.modules() if isinstance(module, MoE)]
        self._loads: Tensor | None = None

    def forward(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "*batch time"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch time vocab"]:
        """Return the logits of the next token at each position, up to the context length.

        With a cache the tokens follow those it has read; padding has negative `positions`.
        """
        return self.logits(self.hidden(ids, positions, cache))

    def logits(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Return the logits of what `hidden` returned, or of a part of it."""
        logits = self.lm_head(hidden)
        return logits if self.logit_softcap is None else softcap(logits, self.logit_softcap)

    def hidden(
        self,
        ids: Int[Tensor, "batch time"],
        positions: Int[Tensor, "*batch time"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch time d_model"]:
        """Return what the head reads, arguments as in `forward`.

        With `checkpoint_activations` a block keeps its input alone, and is computed again in the
        backward pass (Chen et al. 2016).
        """
        time, before = ids.shape[1], cache.length if cache is not None else 0
        if before + time > self.context_length and (positions is None or cache is None):
            raise ValueError(
                f"{before + time} tokens are more than the context of {self.context_length}"
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
        for layer, block in enumerate(self.blocks):
            layer_cache = cache.layers[layer] if cache is not None else None
            context = Context(positions, rotation, layer_cache)
            if self.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, context, use_reentrant=False)
            else:
                x = block(x, context)
        if self._moes and self.training:
            self._add_loads(ids.numel())
        return self.final_norm(x)

    def new_cache(self, num_rows: int | None = None) -> Cache:
        """Return an empty cache for `num_rows` sequences; None: as many as the first batch has."""
        layers = [attention.new_cache() for attention in self._attentions]
        return Cache(layers, self.context_length, num_rows)

    def cache_elements(self, length: int) -> int:
        """Return the numbers that a cache must hold for one sequence of `length` tokens."""
        return sum(attention.cache_elements(length) for attention in self._attentions)

    def auxiliary_losses(self) -> dict[str, Float[Tensor, ""]]:
        """Return what the last forward pass adds to the objective, by name, weighted."""
        losses: dict[str, list[Tensor]] = {}
        for moe in self._moes:
            if moe.routing is not None:
                losses.setdefault("moe/load_balancing_loss", []).append(
                    moe.load_balancing_loss * moe.routing.balance
                )
                losses.setdefault("moe/router_z_loss", []).append(moe.router_z_loss * moe.routing.z)
        return {name: torch.stack(layers).mean() for name, layers in losses.items()}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _add_loads(self, tokens: int) -> None:
        routings = [moe.routing for moe in self._moes if moe.routing is not None]
        loads = tokens * torch.stack([routing.load.detach() for routing in routings])
        # Loads add up as gradients do: those of a step begin where there are none yet.
        if self._loads is not None and self.lm_head.weight.grad is not None:
            loads = loads + self._loads
        self._loads = loads

    def metrics(self) -> dict[str, Float[Tensor, ""]]:
        """Return what the last step is worth watching for: the load of each expert.

        Over all micro-batches of the step; of several processes, over those of this one.
        """
        if self._loads is None:
            return {}
        loads = self._loads / self._loads.sum(dim=-1, keepdim=True)
        metrics = {
            f"moe/load/layer_{layer}/expert_{expert}": load
            for layer, row in enumerate(loads.unbind())
            for expert, load in enumerate(row.unbind())
        }
        # 1 is balance, num_experts a layer that uses one expert only.
        return metrics | {"moe/largest_load": loads.max() * loads.shape[1]}
