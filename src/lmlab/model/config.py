"""Configuration of the Transformer: what is a size is a field, what has parameters of its own is a group."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lmlab.schema import Config

AttentionBackend = Literal["auto", "written_out", "sdpa"]
Activation = Literal["sigmoid", "relu", "gelu", "silu"]
NormKind = Literal["rmsnorm", "layernorm", "none"]
NormPlacement = Literal["pre", "post", "double", "none"]


class FullAttentionConfig(Config):
    """Causal attention of every token to all before it (Vaswani et al. 2017)."""

    kind: Literal["full"]
    num_kv_heads: Annotated[int, Field(ge=1)] | None
    """Heads of keys and values, shared by groups of query heads; null: as many as query heads."""
    backend: AttentionBackend
    """written_out is the definition, sdpa torch's fused kernels; auto takes sdpa."""


AttentionConfig = Annotated[FullAttentionConfig, Field()]


class GLUConfig(Config):
    """Gated feed-forward `W2(act(W1 x) * W3 x)`; silu makes it SwiGLU (Shazeer 2020)."""

    kind: Literal["glu"]
    activation: Activation
    """Of the gate: sigmoid (GLU), relu (ReGLU), gelu (GeGLU) or silu (SwiGLU)."""


FFNConfig = Annotated[GLUConfig, Field()]


class RoPEConfig(Config):
    """Rotary position embedding on queries and keys (Su et al. 2021)."""

    kind: Literal["rope"]
    theta: Annotated[float, Field(gt=0)]
    """Base of the wavelengths."""


PositionConfig = Annotated[RoPEConfig, Field()]


class ModelConfig(Config):
    """A decoder-only Transformer."""

    d_model: Annotated[int, Field(ge=1)]
    """Width of the residual stream."""
    num_layers: Annotated[int, Field(ge=1)]
    """Number of blocks."""
    num_heads: Annotated[int, Field(ge=1)]
    """Query heads of each attention layer."""
    d_ff: Annotated[int, Field(ge=1)] | None
    """Inner width of the feed-forward; null: 8/3 d_model rounded up to a multiple of 64."""
    context_length: Annotated[int, Field(ge=1)]
    """Longest sequence, in tokens; training uses windows of this length."""
    vocab_size: Annotated[int, Field(ge=1)] | None
    """Rows of the embedding; null: the tokenizer's."""
    norm: NormKind
    """Kind of normalisation."""
    norm_placement: NormPlacement
    """Where a residual branch is normalised: before it, after the sum, on both of its ends, nowhere."""
    tie_embeddings: bool
    """Use the embedding's weight for the output head too."""
    attention: AttentionConfig
    ffn: FFNConfig
    position: PositionConfig

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide d_model={self.d_model}")
        if (self.d_model // self.num_heads) % 2 and self.position.kind == "rope":
            raise ValueError(
                f"rope rotates pairs, so d_model / num_heads must be even, "
                f"got {self.d_model} / {self.num_heads}"
            )
        kv = self.attention.num_kv_heads
        if kv is not None and self.num_heads % kv:
            raise ValueError(f"num_kv_heads={kv} does not divide num_heads={self.num_heads}")
        return self
