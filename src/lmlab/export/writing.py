"""What config.json says of a model: one function for each architecture."""

from typing import Any

from lmlab.export.features import attention_of
from lmlab.model.config import (
    LinearScalingConfig,
    Llama3ScalingConfig,
    ModelConfig,
    NoScalingConfig,
    RoPEConfig,
)

ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "sigmoid": "sigmoid",
}
"""Names of activations here and in transformers."""
Values = dict[str, Any]


def shape(config: ModelConfig) -> Values:
    """Return the shape under the names of Llama."""
    shared = attention_of(config).shared
    return {
        "hidden_size": config.d_model,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": shared.num_kv_heads or config.num_heads,
        "head_dim": config.attention_width,
        "max_position_embeddings": config.context_length,
        "hidden_act": ACTIVATIONS[config.ffn.activation],
        "attention_dropout": getattr(shared, "dropout", 0.0),
    }


def rope(config: ModelConfig) -> Values:
    """Return the rotary embedding.

    `rope_theta` and `rope_scaling` are what transformers before version 5 reads, which does not
    know `rope_parameters`.
    """
    assert isinstance(config.position, RoPEConfig)
    theta, scaling = config.position.theta, config.position.scaling
    parameters: Values = {"rope_type": "default"}
    if isinstance(scaling, LinearScalingConfig):
        parameters = {"rope_type": "linear", "factor": scaling.factor}
    elif isinstance(scaling, Llama3ScalingConfig):
        parameters = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context_length,
        }
    earlier = {} if isinstance(scaling, NoScalingConfig) else {"rope_scaling": parameters}
    angles = {"rope_theta": theta, **parameters}
    return {"rope_theta": theta, "rope_parameters": angles, **earlier}


def layer_types(config: ModelConfig) -> Values:
    """Return windows by layer."""
    attention = attention_of(config)
    kinds = ["full_attention" if w is None else "sliding_attention" for w in attention.windows]
    return {"layer_types": kinds, "sliding_window": attention.window}


def write_llama(config: ModelConfig) -> Values:
    """Return the keys of Llama."""
    bias = attention_of(config).shared.bias != "none"
    values = {"rms_norm_eps": config.norm_eps, "attention_bias": bias, "mlp_bias": False}
    return shape(config) | rope(config) | values


def write_arcee(config: ModelConfig) -> Values:
    """Return the keys of Arcee."""
    assert config.ffn.kind == "mlp"
    return write_llama(config) | {"mlp_bias": config.ffn.bias}


def write_mistral(config: ModelConfig) -> Values:
    """Return the keys of Mistral."""
    window = {"rms_norm_eps": config.norm_eps, "sliding_window": attention_of(config).window}
    return shape(config) | rope(config) | window


def write_qwen2(config: ModelConfig) -> Values:
    """Return the keys of Qwen2."""
    windows = layer_types(config)
    use = {"use_sliding_window": windows["sliding_window"] is not None, "max_window_layers": 0}
    return shape(config) | rope(config) | {"rms_norm_eps": config.norm_eps} | windows | use


def write_qwen3(config: ModelConfig) -> Values:
    """Return the keys of Qwen3."""
    return write_qwen2(config) | {"attention_bias": attention_of(config).shared.bias != "none"}


def write_gemma2(config: ModelConfig) -> Values:
    """Return the keys of Gemma 2."""
    values = shape(config) | rope(config) | layer_types(config)
    act = values.pop("hidden_act")
    shared = attention_of(config).shared
    return values | {
        "hidden_activation": act,
        "hidden_act": act,
        "rms_norm_eps": config.norm_eps,
        "attention_bias": shared.bias != "none",
        "query_pre_attn_scalar": config.attention_width,
        "sliding_window": values["sliding_window"] or config.context_length,
        "attn_logit_softcapping": getattr(shared, "logit_softcap", None),
        "final_logit_softcapping": config.logit_softcap,
    }


def write_gemma3(config: ModelConfig) -> Values:
    """Return the keys of Gemma 3."""
    values = write_gemma2(config)
    angles = values.pop("rope_parameters")
    theta = values["rope_theta"]
    kinds = ("sliding_attention", "full_attention")
    return values | {
        "rope_parameters": dict.fromkeys(kinds, angles),
        "rope_local_base_freq": theta,
        "sliding_window_pattern": None,
    }


def write_mixtral(config: ModelConfig) -> Values:
    """Return the keys of Mixtral."""
    assert config.ffn.kind == "moe"
    split = config.ffn.granularity
    return write_mistral(config) | {
        "intermediate_size": config.ffn_width // split,
        "num_local_experts": config.ffn.num_experts * split,
        "num_experts_per_tok": config.ffn.top_k * split,
    }


def write_qwen3_moe(config: ModelConfig) -> Values:
    """Return the keys of Qwen3 MoE."""
    assert config.ffn.kind == "moe"
    values = write_mixtral(config)
    window = values["sliding_window"]
    return values | {
        "moe_intermediate_size": values["intermediate_size"],
        "num_experts": values.pop("num_local_experts"),
        "norm_topk_prob": config.ffn.router_softmax == "after",
        "attention_bias": attention_of(config).shared.bias != "none",
        "use_sliding_window": window is not None,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def write_granite_moe(config: ModelConfig) -> Values:
    """Return the keys of Granite MoE with shared experts."""
    assert config.ffn.kind == "moe"
    values = write_mixtral(config)
    del values["sliding_window"]
    return values | {
        "shared_intermediate_size": config.ffn.shared_experts * values["intermediate_size"],
        "attention_bias": attention_of(config).shared.bias != "none",
        "attention_multiplier": config.attention_width**-0.5,
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    }


def write_smollm3(config: ModelConfig) -> Values:
    """Return the keys of SmolLM3."""
    rotates = config.position.kind == "rope"
    bias = attention_of(config).shared.bias != "none"
    values = shape(config) | layer_types(config)
    values |= rope(config) if rotates else {"rope_theta": 10000.0}  # that no layer uses
    return values | {
        "rms_norm_eps": config.norm_eps,
        "attention_bias": bias,
        "mlp_bias": False,
        "no_rope_layers": [int(rotates)] * config.num_layers,
        "use_sliding_window": attention_of(config).window is not None,
        "max_window_layers": 0,
    }


def write_starcoder2(config: ModelConfig) -> Values:
    """Return the keys of StarCoder2."""
    window = attention_of(config).window
    values = {"norm_epsilon": config.norm_eps, "use_bias": True, "sliding_window": window}
    dropout = {"residual_dropout": config.dropout, "embedding_dropout": config.dropout}
    return shape(config) | rope(config) | values | dropout


def _whole_rotary(config: ModelConfig) -> Values:
    values = rope(config)
    whole = {"partial_rotary_factor": 1.0}
    return values | whole | {"rope_parameters": values["rope_parameters"] | whole}


def write_phi(config: ModelConfig) -> Values:
    """Return the keys of Phi."""
    values = {"layer_norm_eps": config.norm_eps, "qk_layernorm": False}
    dropout = {"resid_pdrop": config.dropout, "embd_pdrop": config.dropout}
    return shape(config) | _whole_rotary(config) | values | dropout


def write_stablelm(config: ModelConfig) -> Values:
    """Return the keys of StableLM."""
    return (
        shape(config)
        | _whole_rotary(config)
        | {
            "layer_norm_eps": config.norm_eps,
            "qk_layernorm": False,
            "use_qkv_bias": attention_of(config).shared.bias != "none",
            "use_parallel_residual": config.block == "parallel",
            "hidden_dropout": config.dropout,
        }
    )


def write_gpt2(config: ModelConfig) -> Values:
    """Return the keys of GPT-2."""
    return {
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.ffn_width,
        "n_positions": config.context_length,
        "activation_function": ACTIVATIONS[config.ffn.activation],
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": getattr(attention_of(config).shared, "dropout", 0.0),
    }


def write_opt(config: ModelConfig) -> Values:
    """Return the keys of OPT."""
    return {
        "hidden_size": config.d_model,
        "word_embed_proj_dim": config.d_model,
        "ffn_dim": config.ffn_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": config.context_length,
        "activation_function": ACTIVATIONS[config.ffn.activation],
        "do_layer_norm_before": False,
        "dropout": config.dropout,
        "attention_dropout": getattr(attention_of(config).shared, "dropout", 0.0),
    }
