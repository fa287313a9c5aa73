"""Configuration of the choices of `model/attention`."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lmlab.schema import Config

AttentionBackend = Literal["auto", "eager", "sdpa", "flex", "blocked", "tiled", "triton"]
AttentionBias = Literal["none", "qkv", "all"]
FeatureMap = Literal["identity", "elu", "relu"]
Probability = Annotated[float, Field(ge=0, lt=1)]


class HeadsConfig(Config):
    """Keys of every kind of attention."""

    num_kv_heads: Annotated[int, Field(ge=1)] | None
    """Heads of keys and values, shared by groups of query heads; null: as many as query heads."""
    qk_norm: bool
    """RMSNorm queries and keys per head before their product (Dehghani et al. 2023)."""
    bias: AttentionBias
    """Which projections add a bias: none, those of query, key and value (Qwen 2), all (GPT-2)."""


class SoftmaxAttentionConfig(HeadsConfig):
    """Keys of every kind of attention with a softmax."""

    logit_softcap: Annotated[float, Field(gt=0)] | None
    """Cap the scores at cap * tanh(score / cap) (Gemma 2); null: no cap."""
    dropout: Probability
    """Probability of dropping an attention weight in training."""
    backend: AttentionBackend
    """eager: the definition; sdpa, flex: torch's fused kernels; blocked: FlashAttention-2 for
    the CPU; tiled: FlashAttention-2 in plain torch; triton: the same in Triton; auto: the fastest
    applicable one."""

    @model_validator(mode="after")
    def _backend_can(self) -> Self:
        if self.backend in ("sdpa", "blocked") and self.logit_softcap is not None:
            raise ValueError(
                f"backend={self.backend} has no soft-cap; use backend=flex, eager or auto, "
                "or logit_softcap=null"
            )
        if self.backend in ("flex", "blocked", "tiled", "triton") and self.dropout > 0:
            raise ValueError(
                f"backend={self.backend} has no dropout; use backend=sdpa, eager or auto, "
                "or dropout=0"
            )
        return self


class FullAttentionConfig(SoftmaxAttentionConfig):
    """Causal attention to all earlier tokens (Vaswani et al. 2017)."""

    kind: Literal["full"]


class SlidingWindowConfig(SoftmaxAttentionConfig):
    """Attention to the last `window` tokens, itself included (Beltagy et al. 2020)."""

    kind: Literal["sliding_window"]
    window: Annotated[int, Field(ge=1)]
    """Tokens each token attends to, itself included."""


class StridedAttentionConfig(SoftmaxAttentionConfig):
    """Attention to every `stride`-th token and to the last `window` (Child et al. 2019)."""

    kind: Literal["strided"]
    stride: Annotated[int, Field(ge=1)]
    """All later tokens attend to tokens 0, stride, 2 stride, ..."""
    window: Annotated[int, Field(ge=1)]
    """Size of the local window, the token itself included."""

    @model_validator(mode="after")
    def _mask_has_no_blocks(self) -> Self:
        if self.backend in ("blocked", "tiled", "triton"):
            raise ValueError(
                f"backend={self.backend} has no strided mask; use backend=sdpa, flex or auto"
            )
        return self


class LinearAttentionConfig(HeadsConfig):
    """Attention without a softmax, `Q (K^T V)`, linear in time (Katharopoulos et al. 2020)."""

    kind: Literal["linear"]
    feature_map: FeatureMap
    """Applied to queries and keys; elu adds 1; elu and relu divide by the sum of weights."""
    chunk_size: Annotated[int, Field(ge=1)]
    """Tokens computed in parallel; does not change the result."""

    REFUSED: ClassVar[dict[str, str]] = {
        "logit_softcap": "linear attention has no softmax, so no scores to cap",
        "dropout": "linear attention has no attention weights to drop",
        "backend": "linear attention has one implementation",
    }


LayerAttentionConfig = Annotated[
    FullAttentionConfig | SlidingWindowConfig | StridedAttentionConfig | LinearAttentionConfig,
    Field(discriminator="kind"),
]


class HybridAttentionConfig(Config):
    """Different attention in different layers, in a repeating pattern."""

    kind: Literal["hybrid"]
    pattern: Annotated[list[str], Field(min_length=1)]
    """Names of members by layer, from layer 0; repeated over all layers."""
    members: dict[str, LayerAttentionConfig]
    """Attention by name; model/attention@model.attention.members.NAME=KIND changes one."""

    @model_validator(mode="after")
    def _names_match(self) -> Self:
        for name in self.pattern:
            if name not in self.members:
                known = ", ".join(self.members) or "none"
                raise ValueError(f"pattern names '{name}', which is not a member; members: {known}")
        for name in self.members:
            if name not in self.pattern:
                raise ValueError(f"the member '{name}' is not in the pattern; add or remove it")
        return self


AttentionConfig = Annotated[
    FullAttentionConfig
    | SlidingWindowConfig
    | StridedAttentionConfig
    | LinearAttentionConfig
    | HybridAttentionConfig,
    Field(discriminator="kind"),
]


def of_layer(config: AttentionConfig, layer: int) -> LayerAttentionConfig:
    """Return the attention of one layer, counted from 0."""
    if isinstance(config, HybridAttentionConfig):
        return config.members[config.pattern[layer % len(config.pattern)]]
    return config
