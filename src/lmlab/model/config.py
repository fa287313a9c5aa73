"""Configuration of the Transformer."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lmlab.model.attention.config import AttentionConfig, HybridAttentionConfig, of_layer
from lmlab.model.ffn.config import FFNConfig
from lmlab.schema import Config

NormKind = Literal["rmsnorm", "layernorm", "none"]
NormPlacement = Literal["pre", "post", "double", "none"]
BlockKind = Literal["serial", "parallel"]
Parametrization = Literal["standard", "mup"]
InitKind = Literal["xavier", "gpt2", "depth_scaled", "zero_residual"]
Count = Annotated[int, Field(ge=1)]
NORM_EPS = 1e-5
"""Default of `norm_eps` in conf/model."""


class NoScalingConfig(Config):
    """The wavelengths of rotary embeddings as they are."""

    kind: Literal["none"]


class LinearScalingConfig(Config):
    """Positions divided by a factor (Chen et al. 2023)."""

    kind: Literal["linear"]
    factor: Annotated[float, Field(ge=1)]
    """Context length divided by the one before the scaling."""


class Llama3ScalingConfig(Config):
    """Long wavelengths times a factor, short ones as they are (Llama 3.1, Dubey et al. 2024)."""

    kind: Literal["llama3"]
    factor: Annotated[float, Field(ge=1)]
    """Multiplies wavelengths above original_context_length / low_freq_factor."""
    low_freq_factor: Annotated[float, Field(gt=0)]
    """Turns in the original context up to which a wavelength is long."""
    high_freq_factor: Annotated[float, Field(gt=0)]
    """Turns in the original context from which a wavelength is short; between, interpolated."""
    original_context_length: Count
    """Context length before the scaling."""

    @model_validator(mode="after")
    def _factors_are_ordered(self) -> Self:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor={self.low_freq_factor:g} must be less than "
                f"high_freq_factor={self.high_freq_factor:g}"
            )
        return self


ScalingConfig = Annotated[
    NoScalingConfig | LinearScalingConfig | Llama3ScalingConfig, Field(discriminator="kind")
]


class RoPEConfig(Config):
    """Rotary position embedding on queries and keys (Su et al. 2021)."""

    LATER: ClassVar[dict[str, Any]] = {"scaling": {"kind": "none"}}

    kind: Literal["rope"]
    theta: Annotated[float, Field(gt=0)]
    """Base of the wavelengths."""
    scaling: ScalingConfig
    """How the wavelengths are scaled for a longer context."""


class SinusoidalConfig(Config):
    """Sines and cosines added to the embeddings (Vaswani et al. 2017, section 3.5)."""

    kind: Literal["sinusoidal"]


class LearnedPositionConfig(Config):
    """A learned vector for each position, added to the embeddings (GPT-2)."""

    kind: Literal["learned"]


class NoPositionConfig(Config):
    """No position encoding; the causal mask alone gives the order (Kazemnejad et al. 2023)."""

    kind: Literal["none"]


PositionConfig = Annotated[
    RoPEConfig | SinusoidalConfig | LearnedPositionConfig | NoPositionConfig,
    Field(discriminator="kind"),
]


class ModelConfig(Config):
    """A decoder-only Transformer."""

    LATER: ClassVar[dict[str, Any]] = {"parametrization": "standard", "base_width": None}

    d_model: Count
    """Width of the residual stream."""
    num_layers: Annotated[int, Field(ge=1, le=10_000)]
    """Number of blocks."""
    num_heads: Count
    """Query heads of each attention layer."""
    head_dim: Count | None
    """Width of a head; null: d_model / num_heads."""
    d_ff: Count | None
    """Inner width of the feed-forward; null: 8/3 d_model rounded up to a multiple of 64 with a
    gate, 4 d_model without."""
    context_length: Count
    """Longest sequence, in tokens; training uses windows of this length."""
    vocab_size: Count | None
    """Rows of the embedding; null: the tokenizer's. More are trained as tokens that never occur;
    generation and scores leave them out."""
    block: BlockKind
    """Feed-forward after attention, or both on the same input and added (GPT-J, PaLM)."""
    norm: NormKind
    """Kind of normalisation."""
    norm_eps: Annotated[float, Field(gt=0)]
    """Added to the variance before the square root."""
    norm_placement: NormPlacement
    """pre: norm before each branch; post: after the sum; double: before and after; none."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Probability of dropping an element of embeddings and residual branches in training."""
    logit_softcap: Annotated[float, Field(gt=0)] | None
    """Cap the logits at cap * tanh(logit / cap) (Gemma 2); null: no cap."""
    init: InitKind
    """Initial weights. xavier: by fan-in and fan-out; gpt2: N(0, 0.02^2), and depth_scaled: xavier,
    both with residual outputs divided by sqrt(2 layers); zero_residual: residual outputs are 0."""
    parametrization: Parametrization
    """mup: initial weights and learning rates follow the width, so that the best learning rate at
    base_width is the best at any d_model (Yang et al. 2022). Heads keep their width."""
    base_width: Count | None
    """d_model of the model whose hyper-parameters are transferred; for mup only."""
    tie_embeddings: bool
    """Share the weight of the embedding with the output head."""
    scale_embeddings: bool
    """Multiply the embeddings by sqrt(d_model) (Vaswani et al. 2017, section 3.4)."""
    attention: AttentionConfig
    ffn: FFNConfig
    position: PositionConfig

    @property
    def attention_width(self) -> int:
        """Width of one head."""
        return self.head_dim or self.d_model // self.num_heads

    @property
    def ffn_width(self) -> int:
        """Inner width of the feed-forward."""
        return self.d_ff or self.ffn.width(self.d_model)

    @property
    def width_multiplier(self) -> float:
        """Width divided by that of the model whose hyper-parameters are transferred; else 1."""
        return self.d_model / self.base_width if self.base_width is not None else 1.0

    @model_validator(mode="after")
    def _parametrization_fits(self) -> Self:
        if self.parametrization == "standard":
            if self.base_width is not None:
                raise ValueError("base_width is for parametrization=mup; set it to null")
            return self
        if self.base_width is None:
            raise ValueError(
                "parametrization=mup needs base_width: the d_model at which lr was chosen"
            )
        for name in ("tie_embeddings", "scale_embeddings"):
            if getattr(self, name):
                raise ValueError(f"parametrization=mup needs {name}=false")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.head_dim is None and self.d_model % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide d_model={self.d_model}; "
                "choose a divisor, or set head_dim"
            )
        if self.attention_width % 2 and self.position.kind == "rope":
            raise ValueError(f"rope needs an even head width, got {self.attention_width}")
        for layer in range(self.num_layers):
            kv = of_layer(self.attention, layer).num_kv_heads
            if kv is not None and self.num_heads % kv:
                raise ValueError(f"num_kv_heads={kv} does not divide num_heads={self.num_heads}")
        return self

    @model_validator(mode="after")
    def _norms_are_used(self) -> Self:
        nowhere = self.norm_placement == "none"
        if nowhere and self.norm == "layernorm":
            raise ValueError(
                "norm=layernorm is not used with norm_placement=none; "
                "set another norm_placement, or norm=none"
            )
        if self.norm == "none" and self.norm_placement in ("post", "double"):
            raise ValueError(
                f"norm_placement={self.norm_placement} needs a norm, got norm=none; "
                "set norm=rmsnorm, or norm_placement=none"
            )
        layers = range(self.num_layers)
        qk_norm = any(of_layer(self.attention, layer).qk_norm for layer in layers)
        if self.norm_eps != NORM_EPS and (nowhere or self.norm == "none") and not qk_norm:
            raise ValueError(
                f"norm_eps={self.norm_eps:g} is not used by any norm with norm={self.norm}, "
                f"norm_placement={self.norm_placement} and no qk_norm; set it to {NORM_EPS:g}"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.position.kind == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"sinusoidal positions need an even d_model, got {self.d_model}")
        if self.ffn.kind == "moe" and self.ffn_width % self.ffn.granularity:
            raise ValueError(
                f"granularity={self.ffn.granularity} does not divide d_ff={self.ffn_width}"
            )
        if isinstance(self.attention, HybridAttentionConfig):
            length = len(self.attention.pattern)
            if length > self.num_layers:
                raise ValueError(
                    f"the attention pattern has {length} entries, more than "
                    f"num_layers={self.num_layers}; shorten the pattern"
                )
        return self
