"""The Transformer and its layers; `build` returns the configured model."""

from typing import TYPE_CHECKING, Any

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.model.config import ModelConfig
    from lmlab.model.ffn.glu import GLU, SwiGLU
    from lmlab.model.layers import Embedding, Linear, scaled_dot_product_attention, silu, softmax
    from lmlab.model.norm import LayerNorm, RMSNorm
    from lmlab.model.position import RotaryEmbedding
    from lmlab.model.transformer import Transformer

__all__ = [
    "GLU",
    "Embedding",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "RotaryEmbedding",
    "SwiGLU",
    "Transformer",
    "build",
    "scaled_dot_product_attention",
    "silu",
    "softmax",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "layers": ("Embedding", "Linear", "scaled_dot_product_attention", "silu", "softmax"),
        "norm": ("LayerNorm", "RMSNorm"),
        "ffn.glu": ("GLU", "SwiGLU"),
        "position": ("RotaryEmbedding",),
        "transformer": ("Transformer",),
    },
)


def build(
    config: "ModelConfig", vocab_size: int, device: Any = None, *, value_head: bool = False
) -> "Transformer":
    """Return the configured model for a vocabulary, with weights drawn by torch's seed.

    On `device="meta"` nothing is allocated; `to_empty` and `reset_parameters` draw the weights.
    Raises ConfigError when `model.vocab_size` is smaller than the tokenizer's vocabulary.
    """
    from lmlab.errors import ConfigError
    from lmlab.model.transformer import Transformer
    from lmlab.model.value_head import ActorCritic

    if config.vocab_size is not None and config.vocab_size < vocab_size:
        raise ConfigError(
            "model.vocab_size",
            f"{config.vocab_size} is less than the tokenizer's {vocab_size}; "
            "set null or a larger one",
        )
    cls = ActorCritic if value_head else Transformer
    return cls(config, config.vocab_size or vocab_size, device)
