"""Configuration of the choices of `model/ffn`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lmlab.schema import Config

MLPActivation = Literal["relu", "gelu", "gelu_tanh", "silu", "relu2"]
GateActivation = Literal["sigmoid", "relu", "gelu", "gelu_tanh", "silu"]
RouterSoftmax = Literal["before", "after"]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class MLPConfig(Config):
    """Feed-forward without a gate, `W2 act(W1 x)` (Vaswani et al. 2017)."""

    kind: Literal["mlp"]
    activation: MLPActivation
    """relu2 is relu squared (So et al. 2021), gelu_tanh GPT-2's approximation of gelu."""
    bias: bool
    """Add a bias after both matrices."""

    def width(self, d_model: int) -> int:
        """Return the default inner width for `d_model`."""
        return 4 * d_model


class GLUConfig(Config):
    """Gated feed-forward `W2(act(W1 x) * W3 x)`; silu makes it SwiGLU (Shazeer 2020)."""

    kind: Literal["glu"]
    activation: GateActivation
    """Activation of the gate: sigmoid (GLU), relu (ReGLU), gelu (GeGLU) or silu (SwiGLU)."""

    def width(self, d_model: int) -> int:
        """Return the default inner width for `d_model`."""
        return gated_width(d_model)


class MoEConfig(Config):
    """Mixture of gated experts; each token uses the top k (Shazeer et al. 2017).

    `sum_i g_i FFN_i(x)` over the chosen experts, without capacity limits: no token is dropped.
    """

    kind: Literal["moe"]
    activation: GateActivation
    """Activation of the experts' gates."""
    num_experts: Count
    """Routed experts, before they are split by `granularity`."""
    top_k: Count
    """Experts of a token, before they are split by `granularity`."""
    granularity: Count
    """Split every expert into m of width d_ff / m, and choose m times as many (Dai et al. 2024)."""
    shared_experts: Annotated[int, Field(ge=0)]
    """Experts used by every token, as wide as the routed ones after the split."""
    router_softmax: RouterSoftmax
    """Softmax over all experts (before top-k) or over the chosen ones (after, as in Mixtral)."""
    load_balancing_loss: Weight
    """Weight of num_experts * sum_i load_i * probability_i (Fedus et al. 2021)."""
    router_z_loss: Weight
    """Weight of mean(logsumexp(router logits)^2) (Zoph et al. 2022)."""

    @model_validator(mode="after")
    def _experts_suffice(self) -> Self:
        if self.top_k > self.num_experts:
            raise ValueError(
                f"top_k={self.top_k} exceeds num_experts={self.num_experts}; lower top_k"
            )
        if self.num_experts * self.granularity == 1:
            raise ValueError(
                "num_experts=1 with granularity=1 leaves a single expert; "
                "raise num_experts, or use model/ffn=glu"
            )
        if self.router_softmax == "after" and self.top_k * self.granularity == 1:
            raise ValueError(
                "router_softmax=after with top_k=1 gives every chosen expert the weight 1, so "
                "the router has no gradient; use router_softmax=before, or top_k=2"
            )
        return self

    def width(self, d_model: int) -> int:
        """Return the default inner width for `d_model`, before the split."""
        return gated_width(d_model)


FFNConfig = Annotated[MLPConfig | GLUConfig | MoEConfig, Field(discriminator="kind")]


def gated_width(d_model: int) -> int:
    """Return 8/3 d_model rounded up to a multiple of 64; as many weights as 4 d_model ungated."""
    return -(-8 * d_model // (3 * 64)) * 64
