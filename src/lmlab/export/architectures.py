"""The architectures of transformers that models are exported to, in the order they are tried."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lmlab.export.features import GATES, MLPS, SET, Allowed, attention_of
from lmlab.export.layouts import QKV, Layout
from lmlab.model.config import LinearScalingConfig, Llama3ScalingConfig, ModelConfig, RoPEConfig

ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "sigmoid": "sigmoid",
}
"""Names of activations here and in transformers."""
ALL = (*QKV, "output_proj")
Values = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """An architecture of transformers."""

    name: str
    """Class of the model."""
    model_type: str
    layout: Layout
    write: Callable[[ModelConfig], Values]
    """Returns the keys of config.json that describe the model, without those that all have."""
    allows: Allowed = field(default_factory=dict)
    """Values of features, where they differ from Llama's."""

    def config(self, config: ModelConfig, vocab_size: int) -> Values:
        """Return the content of config.json, without the special tokens."""
        tied = self.layout.tied(config)
        values = {"architectures": [self.name], "model_type": self.model_type}
        values |= {"vocab_size": vocab_size, "tie_word_embeddings": tied}
        return values | self.write(config)


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
    """Return the rotary embedding; `rope_theta` is what transformers before version 5 reads."""
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
    return {"rope_theta": theta, "rope_parameters": {"rope_theta": theta, **parameters}}


def layer_types(config: ModelConfig) -> Values:
    """Return windows by layer."""
    attention = attention_of(config)
    kinds = ["full_attention" if w is None else "sliding_attention" for w in attention.windows]
    return {"layer_types": kinds, "sliding_window": attention.window}


def _llama(config: ModelConfig) -> Values:
    bias = attention_of(config).shared.bias != "none"
    values = {"rms_norm_eps": config.norm_eps, "attention_bias": bias, "mlp_bias": False}
    return shape(config) | rope(config) | values


def _arcee(config: ModelConfig) -> Values:
    assert config.ffn.kind == "mlp"
    return _llama(config) | {"mlp_bias": config.ffn.bias}


def _mistral(config: ModelConfig) -> Values:
    window = {"rms_norm_eps": config.norm_eps, "sliding_window": attention_of(config).window}
    return shape(config) | rope(config) | window


def _qwen2(config: ModelConfig) -> Values:
    windows = layer_types(config)
    use = {"use_sliding_window": windows["sliding_window"] is not None, "max_window_layers": 0}
    return shape(config) | rope(config) | {"rms_norm_eps": config.norm_eps} | windows | use


def _qwen3(config: ModelConfig) -> Values:
    return _qwen2(config) | {"attention_bias": attention_of(config).shared.bias != "none"}


def _gemma2(config: ModelConfig) -> Values:
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


def _gemma3(config: ModelConfig) -> Values:
    values = _gemma2(config)
    angles = values.pop("rope_parameters")
    theta = values["rope_theta"]
    kinds = ("sliding_attention", "full_attention")
    return values | {
        "rope_parameters": dict.fromkeys(kinds, angles),
        "rope_local_base_freq": theta,
        "sliding_window_pattern": None,
    }


def _mixtral(config: ModelConfig) -> Values:
    assert config.ffn.kind == "moe"
    split = config.ffn.granularity
    return _mistral(config) | {
        "intermediate_size": config.ffn_width // split,
        "num_local_experts": config.ffn.num_experts * split,
        "num_experts_per_tok": config.ffn.top_k * split,
    }


def _qwen3_moe(config: ModelConfig) -> Values:
    assert config.ffn.kind == "moe"
    values = _mixtral(config)
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


def _granite_moe(config: ModelConfig) -> Values:
    assert config.ffn.kind == "moe"
    values = _mixtral(config)
    del values["sliding_window"]
    return values | {
        "shared_intermediate_size": config.ffn.shared_experts * values["intermediate_size"],
        "attention_bias": attention_of(config).shared.bias != "none",
        "attention_multiplier": config.attention_width**-0.5,
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    }


def _smollm3(config: ModelConfig) -> Values:
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


def _starcoder2(config: ModelConfig) -> Values:
    window = attention_of(config).window
    values = {"norm_epsilon": config.norm_eps, "use_bias": True, "sliding_window": window}
    dropout = {"residual_dropout": config.dropout, "embedding_dropout": config.dropout}
    return shape(config) | rope(config) | values | dropout


def _whole_rotary(config: ModelConfig) -> Values:
    values = rope(config)
    whole = {"partial_rotary_factor": 1.0}
    return values | whole | {"rope_parameters": values["rope_parameters"] | whole}


def _phi(config: ModelConfig) -> Values:
    values = {"layer_norm_eps": config.norm_eps, "qk_layernorm": False}
    dropout = {"resid_pdrop": config.dropout, "embd_pdrop": config.dropout}
    return shape(config) | _whole_rotary(config) | values | dropout


def _stablelm(config: ModelConfig) -> Values:
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


def _gpt2(config: ModelConfig) -> Values:
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


def _opt(config: ModelConfig) -> Values:
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


def _if_biased(config: ModelConfig) -> tuple[str, ...]:
    return ALL if attention_of(config).shared.bias != "none" else ()


LLAMA_NAMES = {
    "token_embedding": "model.embed_tokens",
    "lm_head": "lm_head",
    "final_norm": "model.norm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "output_proj": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "attention.norm_in": "input_layernorm",
    "ffn.norm_in": "post_attention_layernorm",
    "w1": "mlp.gate_proj",
    "w2": "mlp.down_proj",
    "w3": "mlp.up_proj",
}
GEMMA_NAMES = LLAMA_NAMES | {
    "attention.norm_out": "post_attention_layernorm",
    "ffn.norm_in": "pre_feedforward_layernorm",
    "ffn.norm_out": "post_feedforward_layernorm",
}
MIXTRAL_NAMES = LLAMA_NAMES | {
    "experts.centroids": "block_sparse_moe.gate",
    "experts.w1": "block_sparse_moe.experts.{expert}.w1",
    "experts.w2": "block_sparse_moe.experts.{expert}.w2",
    "experts.w3": "block_sparse_moe.experts.{expert}.w3",
}
QWEN_MOE_NAMES = LLAMA_NAMES | {
    "experts.centroids": "mlp.gate",
    "experts.w1": "mlp.experts.{expert}.gate_proj",
    "experts.w2": "mlp.experts.{expert}.down_proj",
    "experts.w3": "mlp.experts.{expert}.up_proj",
}
GRANITE_MOE_NAMES = LLAMA_NAMES | {
    "experts.centroids": "block_sparse_moe.router.layer",
    "experts.w2": "block_sparse_moe.output_linear",
    "shared.w2": "shared_mlp.output_linear",
}
GRANITE_MOE_FUSED = {
    "block_sparse_moe.input_linear": ("experts.w1", "experts.w3"),
    "shared_mlp.input_linear": ("shared.w1", "shared.w3"),
}
PHI_NAMES = LLAMA_NAMES | {
    "final_norm": "model.final_layernorm",
    "output_proj": "self_attn.dense",
    "w1": "mlp.fc1",
    "w2": "mlp.fc2",
}
GPT2_NAMES = {
    "token_embedding": "transformer.wte",
    "position.embedding": "transformer.wpe",
    "lm_head": "lm_head",
    "final_norm": "transformer.ln_f",
    "output_proj": "attn.c_proj",
    "attention.norm_in": "ln_1",
    "ffn.norm_in": "ln_2",
    "w1": "mlp.c_fc",
    "w2": "mlp.c_proj",
}
OPT_NAMES = {
    "token_embedding": "model.decoder.embed_tokens",
    "position.embedding": "model.decoder.embed_positions",
    "lm_head": "lm_head",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "output_proj": "self_attn.out_proj",
    "attention.norm_sum": "self_attn_layer_norm",
    "ffn.norm_sum": "final_layer_norm",
    "w1": "fc1",
    "w2": "fc2",
}
LAYERS = "model.layers.{layer}."
_BIASED: Allowed = {"attention.bias": ("none", "qkv", "all")}
_WINDOWS: Allowed = {"attention.pattern": ("full", "sliding_window", "alternating", "mixed")}
_WINDOW: Allowed = {"attention.pattern": ("full", "sliding_window")}
_MLP: Allowed = {"ffn.kind": ("mlp",), "ffn.activation": MLPS, "ffn.bias": (False, True)}
_MOE: Allowed = {"ffn.kind": ("moe",), "ffn.activation": GATES}
_LAYERNORM: Allowed = {"norm": ("layernorm",)}
_TABLE: Allowed = {
    "position.kind": ("learned", "sinusoidal", "none"),
    "head_dim": (None,),
    "attention.num_kv_heads": (None,),
}

ARCHITECTURES = (
    Architecture("LlamaForCausalLM", "llama", Layout(LAYERS, LLAMA_NAMES), _llama),
    Architecture("MistralForCausalLM", "mistral", Layout(LAYERS, LLAMA_NAMES), _mistral, _WINDOW),
    Architecture(
        "Qwen2ForCausalLM",
        "qwen2",
        Layout(LAYERS, LLAMA_NAMES, biases=lambda config: QKV),
        _qwen2,
        _WINDOWS | {"attention.bias": ("none", "qkv")},
    ),
    Architecture(
        "LlamaForCausalLM",
        "llama",
        Layout(LAYERS, LLAMA_NAMES, biases=_if_biased),
        _llama,
        _BIASED,
    ),
    Architecture(
        "Qwen3ForCausalLM",
        "qwen3",
        Layout(LAYERS, LLAMA_NAMES, biases=_if_biased),
        _qwen3,
        _WINDOWS | _BIASED | {"attention.qk_norm": (True,)},
    ),
    Architecture(
        "Gemma2ForCausalLM",
        "gemma2",
        Layout(LAYERS, GEMMA_NAMES, gain_offset=1.0, biases=_if_biased, scales_embeddings=True),
        _gemma2,
        _WINDOWS
        | _BIASED
        | {
            "norm_placement": ("double",),
            "attention.logit_softcap": (None, SET),
            "logit_softcap": (None, SET),
        },
    ),
    Architecture(
        "Gemma3ForCausalLM",
        "gemma3_text",
        Layout(LAYERS, GEMMA_NAMES, gain_offset=1.0, biases=_if_biased, scales_embeddings=True),
        _gemma3,
        _WINDOWS
        | _BIASED
        | {
            "norm_placement": ("double",),
            "attention.qk_norm": (True,),
            "logit_softcap": (None, SET),
        },
    ),
    Architecture(
        "MixtralForCausalLM",
        "mixtral",
        Layout(LAYERS, MIXTRAL_NAMES),
        _mixtral,
        _MOE | _WINDOW | {"ffn.router_softmax": ("after",)},
    ),
    Architecture(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        Layout(LAYERS, QWEN_MOE_NAMES, biases=_if_biased),
        _qwen3_moe,
        _MOE
        | _WINDOW
        | _BIASED
        | {"ffn.router_softmax": ("before", "after"), "attention.qk_norm": (True,)},
    ),
    Architecture(
        "GraniteMoeSharedForCausalLM",
        "granitemoeshared",
        Layout(LAYERS, GRANITE_MOE_NAMES, GRANITE_MOE_FUSED, biases=_if_biased),
        _granite_moe,
        _MOE | _BIASED | {"ffn.router_softmax": ("after",), "ffn.shared_experts": (None, SET)},
    ),
    Architecture(
        "SmolLM3ForCausalLM",
        "smollm3",
        Layout(LAYERS, LLAMA_NAMES, biases=_if_biased),
        _smollm3,
        _WINDOWS | _BIASED | {"position.kind": ("rope", "none")},
    ),
    Architecture(
        "ArceeForCausalLM",
        "arcee",
        Layout(LAYERS, LLAMA_NAMES | {"w1": "mlp.up_proj"}, biases=_if_biased),
        _arcee,
        _BIASED | _MLP,
    ),
    Architecture(
        "Starcoder2ForCausalLM",
        "starcoder2",
        Layout(
            LAYERS,
            LLAMA_NAMES | {"w1": "mlp.c_fc", "w2": "mlp.c_proj"},
            biases=lambda config: (*ALL, "w1", "w2"),
        ),
        _starcoder2,
        _LAYERNORM | _MLP | _BIASED | _WINDOW,
    ),
    Architecture(
        "PhiForCausalLM",
        "phi",
        Layout(LAYERS, PHI_NAMES, biases=lambda config: (*ALL, "w1", "w2", "lm_head")),
        _phi,
        _LAYERNORM | _MLP | _BIASED | {"block": ("parallel",)},
    ),
    Architecture(
        "StableLmForCausalLM",
        "stablelm",
        Layout(
            LAYERS,
            LLAMA_NAMES,
            biases=lambda config: QKV if attention_of(config).shared.bias != "none" else (),
        ),
        _stablelm,
        _LAYERNORM
        | {
            "attention.bias": ("none", "qkv"),
            "block": ("serial", "parallel"),
            "head_dim": (None,),
        },
    ),
    Architecture(
        "GPT2LMHeadModel",
        "gpt2",
        Layout(
            "transformer.h.{layer}.",
            GPT2_NAMES,
            {"attn.c_attn": QKV},
            transposed=(*ALL, "w1", "w2"),
            biases=lambda config: (*ALL, "w1", "w2"),
        ),
        _gpt2,
        _LAYERNORM | _MLP | _BIASED | _TABLE,
    ),
    Architecture(
        "OPTForCausalLM",
        "opt",
        Layout(
            "model.decoder.layers.{layer}.",
            OPT_NAMES,
            biases=lambda config: (*ALL, "w1", "w2"),
            position_rows=2,
        ),
        _opt,
        _LAYERNORM | _MLP | _BIASED | _TABLE | {"norm_placement": ("post",), "norm_eps": (None,)},
    ),
)
