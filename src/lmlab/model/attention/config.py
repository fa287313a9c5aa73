"""Configuration of the choices of `model/attention`."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lmlab.schema import Config

AttentionBackend = Literal["auto", "eager", "sdpa", "flex"]
AttentionBias = Literal["none", "qkv", "all"]
FeatureMap = Literal["identity", "elu", "relu"]
Probability = Annotated[float, Field(ge=0, lt=1)]


class HeadsConfig(Config):
    """What every kind of attention has: heads."""

    num_kv_heads: Annotated[int, Field(ge=1)] | None
    """Heads of keys and values, shared by groups of query heads; null: as many as query heads."""
    qk_norm: bool
    """RMSNorm queries and keys per head before their product (Dehghani et al. 2023)."""
    bias: AttentionBias
    """Which projections add a bias: none, those of query, key and value (Qwen 2), all (GPT-2)."""


class SoftmaxAttentionConfig(HeadsConfig):
    """What the kinds of attention with a softmax share."""

    logit_softcap: Annotated[float, Field(gt=0)] | None
    """Squash the scores to cap * tanh(score / cap) (Gemma 2); null: do not."""
    dropout: Probability
    """Probability of dropping an attention weight in training."""
    backend: AttentionBackend
    """eager is the definition, sdpa and flex fused kernels; auto: the fastest that can."""

    @model_validator(mode="after")
    def _backend_can(self) -> Self:
        if self.backend == "sdpa" and self.logit_softcap is not None:
            raise ValueError(
                "backend=sdpa has no soft-cap; take backend=flex, eager or auto, "
                "or logit_softcap=null"
            )
        if self.backend == "flex" and self.dropout > 0:
            raise ValueError(
                "backend=flex has no dropout; take backend=sdpa, eager or auto, or dropout=0"
            )
        return self


class FullAttentionConfig(SoftmaxAttentionConfig):
    """Causal attention of every token to all before it (Vaswani et al. 2017)."""

    kind: Literal["full"]


class SlidingWindowConfig(SoftmaxAttentionConfig):
    """Attention to the last `window` tokens, itself included (Beltagy et al. 2020)."""

    kind: Literal["sliding_window"]
    window: Annotated[int, Field(ge=1)]
    """Tokens that a token sees, itself included."""


class StridedAttentionConfig(SoftmaxAttentionConfig):
    """Attention to every `stride`-th token and to the last `window` (Child et al. 2019)."""

    kind: Literal["strided"]
    stride: Annotated[int, Field(ge=1)]
    """Tokens 0, stride, 2 stride, ... are seen by all after them."""
    window: Annotated[int, Field(ge=1)]
    """Tokens of the local band, itself included."""


class LinearAttentionConfig(HeadsConfig):
    """Attention without a softmax, `Q (K^T V)`, linear in time (Katharopoulos et al. 2020)."""

    kind: Literal["linear"]
    feature_map: FeatureMap
    """Of queries and keys: identity, elu (+ 1), relu; the last two divide by the sum of weights."""
    chunk_size: Annotated[int, Field(ge=1)]
    """Tokens that are computed in parallel; the result does not depend on it."""

    REFUSED: ClassVar[dict[str, str]] = {
        "logit_softcap": "linear attention has no scores before a softmax that could be capped",
        "dropout": "linear attention never forms the attention weights that dropout would drop",
        "backend": "linear attention has no softmax for a fused kernel to compute",
    }


LayerAttentionConfig = Annotated[
    FullAttentionConfig | SlidingWindowConfig | StridedAttentionConfig | LinearAttentionConfig,
    Field(discriminator="kind"),
]


class HybridAttentionConfig(Config):
    """Different attention in different layers, in a repeating pattern."""

    kind: Literal["hybrid"]
    pattern: Annotated[list[str], Field(min_length=1)]
    """Names of members, the first for layer 0; repeated over the layers."""
    members: dict[str, LayerAttentionConfig]
    """What the names mean; model/attention@model.attention.members.NAME=KIND changes one."""

    @model_validator(mode="after")
    def _names_match(self) -> Self:
        for name in self.pattern:
            if name not in self.members:
                known = ", ".join(self.members) or "none"
                raise ValueError(
                    f"pattern names '{name}', which is not a member (members: {known})"
                )
        for name in self.members:
            if name not in self.pattern:
                raise ValueError(
                    f"the member '{name}' is not in the pattern, no layer would use it"
                )
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
