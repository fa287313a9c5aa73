"""The architectures of transformers that models are exported to, in the order they are tried."""

from collections.abc import Callable
from dataclasses import dataclass, field

from lmlab.export.features import GATES, MLPS, SET, Allowed, attention_of
from lmlab.export.layouts import QKV, Layout
from lmlab.export.writing import (
    Values,
    write_arcee,
    write_gemma2,
    write_gemma3,
    write_gpt2,
    write_granite_moe,
    write_llama,
    write_mistral,
    write_mixtral,
    write_opt,
    write_phi,
    write_qwen2,
    write_qwen3,
    write_qwen3_moe,
    write_smollm3,
    write_stablelm,
    write_starcoder2,
)
from lmlab.model.config import ModelConfig

ALL = (*QKV, "output_proj")


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
        values: Values = {"architectures": [self.name], "model_type": self.model_type}
        values |= {"vocab_size": vocab_size, "tie_word_embeddings": tied}
        return values | self.write(config)


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
    Architecture("LlamaForCausalLM", "llama", Layout(LAYERS, LLAMA_NAMES), write_llama),
    Architecture(
        "MistralForCausalLM", "mistral", Layout(LAYERS, LLAMA_NAMES), write_mistral, _WINDOW
    ),
    Architecture(
        "Qwen2ForCausalLM",
        "qwen2",
        Layout(LAYERS, LLAMA_NAMES, biases=lambda config: QKV),
        write_qwen2,
        _WINDOWS | {"attention.bias": ("none", "qkv")},
    ),
    Architecture(
        "LlamaForCausalLM",
        "llama",
        Layout(LAYERS, LLAMA_NAMES, biases=_if_biased),
        write_llama,
        _BIASED,
    ),
    Architecture(
        "Qwen3ForCausalLM",
        "qwen3",
        Layout(LAYERS, LLAMA_NAMES, biases=_if_biased),
        write_qwen3,
        _WINDOWS | _BIASED | {"attention.qk_norm": (True,)},
    ),
    Architecture(
        "Gemma2ForCausalLM",
        "gemma2",
        Layout(LAYERS, GEMMA_NAMES, gain_offset=1.0, biases=_if_biased, scales_embeddings=True),
        write_gemma2,
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
        write_gemma3,
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
        write_mixtral,
        _MOE | _WINDOW | {"ffn.router_softmax": ("after",)},
    ),
    Architecture(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        Layout(LAYERS, QWEN_MOE_NAMES, biases=_if_biased),
        write_qwen3_moe,
        _MOE
        | _WINDOW
        | _BIASED
        | {"ffn.router_softmax": ("before", "after"), "attention.qk_norm": (True,)},
    ),
    Architecture(
        "GraniteMoeSharedForCausalLM",
        "granitemoeshared",
        Layout(LAYERS, GRANITE_MOE_NAMES, GRANITE_MOE_FUSED, biases=_if_biased),
        write_granite_moe,
        _MOE | _BIASED | {"ffn.router_softmax": ("after",), "ffn.shared_experts": (None, SET)},
    ),
    Architecture(
        "SmolLM3ForCausalLM",
        "smollm3",
        Layout(LAYERS, LLAMA_NAMES, biases=_if_biased),
        write_smollm3,
        _WINDOWS | _BIASED | {"position.kind": ("rope", "none")},
    ),
    Architecture(
        "ArceeForCausalLM",
        "arcee",
        Layout(LAYERS, LLAMA_NAMES | {"w1": "mlp.up_proj"}, biases=_if_biased),
        write_arcee,
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
        write_starcoder2,
        _LAYERNORM | _MLP | _BIASED | _WINDOW,
    ),
    Architecture(
        "PhiForCausalLM",
        "phi",
        Layout(LAYERS, PHI_NAMES, biases=lambda config: (*ALL, "w1", "w2", "lm_head")),
        write_phi,
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
        write_stablelm,
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
        write_gpt2,
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
        write_opt,
        _LAYERNORM | _MLP | _BIASED | _TABLE | {"norm_placement": ("post",), "norm_eps": (None,)},
    ),
)
