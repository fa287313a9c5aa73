"""The architectures of llama.cpp that models are exported to, in the order they are tried."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lmlab.export.architectures import ALL
from lmlab.export.features import SET, Allowed, attention_of
from lmlab.export.layouts import QKV, Layout
from lmlab.model.config import LinearScalingConfig, Llama3ScalingConfig, ModelConfig, RoPEConfig

Keys = dict[str, Any]
"""Key of GGUF without the architecture's prefix -> value."""


@dataclass(frozen=True)
class GGUFArchitecture:
    """An architecture of llama.cpp."""

    name: str
    layout: Layout
    allows: Allowed = field(default_factory=dict)
    """Values of features, where they differ from Llama's of transformers."""
    write: Callable[[ModelConfig], Keys] = lambda config: {}
    """Returns keys beside those that all have."""

    def keys(self, config: ModelConfig) -> Keys:
        """Return the keys that describe the model."""
        shared = attention_of(config).shared
        width = config.attention_width
        eps = "layer_norm_rms_epsilon" if config.norm == "rmsnorm" else "layer_norm_epsilon"
        return {
            "context_length": config.context_length,
            "embedding_length": config.d_model,
            "block_count": config.num_layers,
            "feed_forward_length": config.ffn_width,
            "attention.head_count": config.num_heads,
            "attention.head_count_kv": shared.num_kv_heads or config.num_heads,
            "attention.key_length": width,
            "attention.value_length": width,
            f"attention.{eps}": config.norm_eps,
            **_rope(config),
            **self.write(config),
        }


def _rope(config: ModelConfig) -> Keys:
    if not isinstance(config.position, RoPEConfig):
        return {}
    keys: Keys = {
        "rope.dimension_count": config.attention_width,
        "rope.freq_base": config.position.theta,
    }
    scaling = config.position.scaling
    if isinstance(scaling, LinearScalingConfig):
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
    if isinstance(scaling, Llama3ScalingConfig):
        # The factor of each frequency is a tensor, see `rope_factors`.
        keys["rope.scaling.original_context_length"] = scaling.original_context_length
    return keys


def _moe(config: ModelConfig) -> Keys:
    if config.ffn.kind != "moe":
        return {}
    split = config.ffn.granularity
    return {
        "expert_count": config.ffn.num_experts * split,
        "expert_used_count": config.ffn.top_k * split,
        "feed_forward_length": config.ffn_width // split,
        "expert_feed_forward_length": config.ffn_width // split,
    }


def _gemma2(config: ModelConfig) -> Keys:
    return {
        "attention.sliding_window": attention_of(config).window or config.context_length,
        "attn_logit_softcapping": getattr(attention_of(config).shared, "logit_softcap", None),
        "final_logit_softcapping": config.logit_softcap,
    }


def _stablelm(config: ModelConfig) -> Keys:
    return {"use_parallel_residual": config.block == "parallel"}


NAMES = {
    "token_embedding": "token_embd",
    "position.embedding": "position_embd",
    "lm_head": "output",
    "final_norm": "output_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "output_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "attention.norm_in": "attn_norm",
    "attention.norm_out": "post_attention_norm",
    "ffn.norm_in": "ffn_norm",
    "ffn.norm_out": "post_ffw_norm",
    "w1": "ffn_gate",
    "w2": "ffn_down",
    "w3": "ffn_up",
    "experts.centroids": "ffn_gate_inp",
    "experts.w1": "ffn_gate_exps",
    "experts.w2": "ffn_down_exps",
    "experts.w3": "ffn_up_exps",
}
MLP_NAMES = NAMES | {"w1": "ffn_up"}
LAYERS = "blk.{layer}."
_SILU: Allowed = {"ffn.activation": ("silu",)}
_QWEN: Allowed = {**_SILU, "position.scaling.kind": ("none", "linear")}
_MLP: Allowed = {
    "ffn.kind": ("mlp",),
    "ffn.activation": ("gelu_tanh",),
    "ffn.bias": (False, True),
    "norm": ("layernorm",),
    "attention.bias": ("none", "qkv", "all"),
    "position.scaling.kind": ("none", "linear"),
}

GGUF_ARCHITECTURES = (
    GGUFArchitecture(
        "llama",
        Layout(LAYERS, NAMES, halves=False),
        {
            **_SILU,
            "attention.bias": ("none", "qkv", "all"),
            "ffn.kind": ("glu", "moe"),
            "ffn.router_softmax": ("after",),
        },
        _moe,
    ),
    GGUFArchitecture("qwen3", Layout(LAYERS, NAMES), {**_QWEN, "attention.qk_norm": (True,)}),
    GGUFArchitecture(
        "qwen3moe",
        Layout(LAYERS, NAMES),
        {
            **_QWEN,
            "attention.qk_norm": (True,),
            "ffn.kind": ("moe",),
            "ffn.router_softmax": ("after",),
        },
        _moe,
    ),
    GGUFArchitecture(
        "gemma2",
        Layout(LAYERS, NAMES, scales_embeddings=True),
        {
            "ffn.activation": ("gelu_tanh",),
            "norm_placement": ("double",),
            "scale_embeddings": (True,),
            "tie_embeddings": (True,),
            "logit_softcap": (SET,),
            "attention.logit_softcap": (SET,),
            "attention.pattern": ("full", "alternating"),
            "position.scaling.kind": ("none", "linear"),
        },
        _gemma2,
    ),
    GGUFArchitecture(
        "gpt2",
        Layout(
            LAYERS,
            MLP_NAMES,
            {"attn_qkv": QKV},
            biases=lambda config: (*ALL, "w1", "w2"),
        ),
        {
            **_MLP,
            "position.kind": ("learned", "sinusoidal", "none"),
            "head_dim": (None,),
            "attention.num_kv_heads": (None,),
        },
    ),
    GGUFArchitecture(
        "starcoder2",
        Layout(LAYERS, MLP_NAMES, biases=lambda config: (*ALL, "w1", "w2")),
        {**_MLP, "head_dim": (None,)},
    ),
    GGUFArchitecture(
        "phi2",
        Layout(LAYERS, MLP_NAMES, biases=lambda config: (*ALL, "w1", "w2", "lm_head")),
        {**_MLP, "block": ("parallel",), "head_dim": (None,), "tie_embeddings": (False,)},
    ),
    GGUFArchitecture(
        "stablelm",
        Layout(
            LAYERS,
            NAMES,
            biases=lambda config: QKV if attention_of(config).shared.bias != "none" else (),
        ),
        {
            **_QWEN,
            "norm": ("layernorm",),
            "attention.bias": ("none", "qkv"),
            "block": ("serial", "parallel"),
            "head_dim": (None,),
            "tie_embeddings": (False,),
        },
        _stablelm,
    ),
    GGUFArchitecture(
        "arcee",
        Layout(LAYERS, MLP_NAMES, halves=False),
        {"ffn.kind": ("mlp",), "ffn.activation": ("relu2",)},
    ),
)
