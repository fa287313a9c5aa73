"""Our models as transformers' Llama: the peer of benchmarks, and the reference of tests."""

from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from lmlab.model import Transformer
from lmlab.model.config import ModelConfig

NAMES = {
    "attention.norm_in": "input_layernorm",
    "ffn.norm_in": "post_attention_layernorm",
    "attention.branch.q_proj": "self_attn.q_proj",
    "attention.branch.k_proj": "self_attn.k_proj",
    "attention.branch.v_proj": "self_attn.v_proj",
    "attention.branch.output_proj": "self_attn.o_proj",
    "ffn.branch.w1": "mlp.gate_proj",
    "ffn.branch.w2": "mlp.down_proj",
    "ffn.branch.w3": "mlp.up_proj",
}
"""Our modules of a block, and theirs."""


def llama_config(config: ModelConfig, vocab_size: int) -> LlamaConfig:
    """Return the configuration of a Llama of the same shape, without special tokens."""
    attention: Any = config.attention
    position: Any = config.position
    rotation: dict[str, Any] = {"rope_theta": position.theta}  # of transformers 4 and 5
    return LlamaConfig(
        **rotation,
        vocab_size=vocab_size,
        hidden_size=config.d_model,
        intermediate_size=config.ffn_width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=attention.num_kv_heads or config.num_heads,
        max_position_embeddings=config.context_length,
        rms_norm_eps=config.norm_eps,
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )


def llama_of(model: Transformer) -> LlamaForCausalLM:
    """Return a Llama with our weights, in evaluation mode; it rotates halves, we rotate pairs."""
    config, state = model.config, model.state_dict()
    copied = {
        "model.embed_tokens.weight": state["token_embedding.weight"],
        "model.norm.weight": state["final_norm.weight"],
        "lm_head.weight": state["lm_head.weight"],
    }
    for layer in range(config.num_layers):
        for ours, theirs in NAMES.items():
            weight = state[f"blocks.{layer}.{ours}.weight"]
            if theirs.endswith(("q_proj", "k_proj")):
                pairs = weight.unflatten(0, (-1, config.attention_width // 2, 2))
                weight = pairs.transpose(1, 2).flatten(0, 2)
            copied[f"model.layers.{layer}.{theirs}.weight"] = weight
    llama = LlamaForCausalLM(llama_config(config, model.vocab_size)).eval()
    llama.load_state_dict(copied)
    return llama
