"""Whole models against transformers, with random weights: the same logits to 1e-5 in float32."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from einops import rearrange
from torch import Tensor, nn

from lmlab.model import Transformer, build
from tests_support import composed

VOCAB, D_MODEL, LAYERS, HEADS, KV, HEAD_DIM, D_FF, CONTEXT = 61, 48, 3, 4, 2, 16, 40, 24
SHAPE = (
    f"model.d_model={D_MODEL}",
    f"model.num_layers={LAYERS}",
    f"model.num_heads={HEADS}",
    f"model.head_dim={HEAD_DIM}",
    f"model.d_ff={D_FF}",
    f"model.context_length={CONTEXT}",
)
LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": D_MODEL,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": HEAD_DIM,
    "intermediate_size": D_FF,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attn_implementation": "eager",
}


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a projection: they rotate (j, j + half), we rotate (2j, 2j + 1)."""
    return rearrange(rows, "(h two half) ... -> (h half two) ...", h=heads, two=2)


def randomise(model: nn.Module) -> None:
    """Move gains and biases away from the ones and zeros that would hide a mistake."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)


def llama_weights(theirs: nn.Module) -> dict[str, Tensor]:
    """Return our parameters out of theirs for what is named as in Llama."""
    given = theirs.state_dict()
    ours = {
        "token_embedding.weight": given["model.embed_tokens.weight"],
        "final_norm.weight": given["model.norm.weight"],
        "lm_head.weight": given["lm_head.weight"],
    }
    for layer in range(LAYERS):
        old, new = f"model.layers.{layer}", f"blocks.{layer}"
        for name, heads in (("q_proj", HEADS), ("k_proj", KV), ("v_proj", None), ("o_proj", None)):
            for kind in ("weight", "bias"):
                key = f"{old}.self_attn.{name}.{kind}"
                if key in given:
                    rows = interleaved(given[key], heads) if heads else given[key]
                    target = name.replace("o_proj", "output_proj")
                    ours[f"{new}.attention.branch.{target}.{kind}"] = rows
        for name in ("q_norm", "k_norm"):
            if f"{old}.self_attn.{name}.weight" in given:
                gain = interleaved(given[f"{old}.self_attn.{name}.weight"], 1)
                ours[f"{new}.attention.branch.{name}.weight"] = gain
        for name, target in (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")):
            if f"{old}.mlp.{name}.weight" in given:
                ours[f"{new}.ffn.branch.{target}.weight"] = given[f"{old}.mlp.{name}.weight"]
        norms = {
            "attention.norm_in": "input_layernorm",
            "ffn.norm_in": "post_attention_layernorm",
        }
        if f"{old}.pre_feedforward_layernorm.weight" in given:  # Gemma 2
            norms |= {
                "attention.norm_out": "post_attention_layernorm",
                "ffn.norm_in": "pre_feedforward_layernorm",
                "ffn.norm_out": "post_feedforward_layernorm",
            }
        for target, name in norms.items():
            ours[f"{new}.{target}.weight"] = given[f"{old}.{name}.weight"]
    return ours


def llama() -> tuple[list[str], nn.Module, dict[str, Tensor]]:
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    randomise(theirs)
    return [f"model.attention.num_kv_heads={KV}"], theirs, llama_weights(theirs)


def qwen2() -> tuple[list[str], nn.Module, dict[str, Tensor]]:
    theirs = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**LLAMA))
    randomise(theirs)
    own = [f"model.attention.num_kv_heads={KV}", "model.attention.bias=qkv"]
    own.append(f"model.position.theta={theirs.config.rope_parameters['rope_theta']}")
    return own, theirs, llama_weights(theirs)


def qwen3() -> tuple[list[str], nn.Module, dict[str, Tensor]]:
    theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**LLAMA))
    randomise(theirs)
    own = [f"model.attention.num_kv_heads={KV}", "model.attention.qk_norm=true"]
    own.append(f"model.position.theta={theirs.config.rope_parameters['rope_theta']}")
    return own, theirs, llama_weights(theirs)


def gemma2() -> tuple[list[str], nn.Module, dict[str, Tensor]]:
    config = transformers.Gemma2Config(
        **LLAMA | {"tie_word_embeddings": True},
        sliding_window=5,
        query_pre_attn_scalar=HEAD_DIM,
        attn_logit_softcapping=0.5,  # small enough to matter
        final_logit_softcapping=0.3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    theirs = transformers.Gemma2ForCausalLM(config)
    randomise(theirs)
    own = [
        "model/attention=hybrid",
        "model.attention.pattern=[local,global]",
        "model.attention.members.local.window=5",
        "model.norm_placement=double",
        "model.ffn.activation=gelu_tanh",
        "model.logit_softcap=0.3",
        "model.tie_embeddings=true",
        "model.scale_embeddings=true",
    ]
    for member in ("local", "global"):
        own.append(f"model.attention.members.{member}.num_kv_heads={KV}")
        own.append(f"model.attention.members.{member}.logit_softcap=0.5")
    weights = llama_weights(theirs)
    # Its gains are 1 + weight.
    return own, theirs, {k: 1 + v if "norm" in k else v for k, v in weights.items()}


def mixtral() -> tuple[list[str], nn.Module, dict[str, Tensor]]:
    config = transformers.MixtralConfig(
        **LLAMA, num_local_experts=5, num_experts_per_tok=2, sliding_window=None
    )
    theirs = transformers.MixtralForCausalLM(config)
    randomise(theirs)
    own = [
        "model/ffn=moe",
        f"model.attention.num_kv_heads={KV}",
        f"model.position.theta={config.rope_parameters['rope_theta']}",
        "model.ffn.num_experts=5",
        "model.ffn.top_k=2",
        "model.ffn.router_softmax=after",
    ]
    weights, given = llama_weights(theirs), theirs.state_dict()
    for layer in range(LAYERS):
        old, new = f"model.layers.{layer}.mlp", f"blocks.{layer}.ffn.branch"
        weights[f"{new}.centroids"] = given[f"{old}.gate.weight"]
        gate, up = given[f"{old}.experts.gate_up_proj"].chunk(2, dim=1)
        weights |= {f"{new}.w1": gate, f"{new}.w3": up}
        weights[f"{new}.w2"] = given[f"{old}.experts.down_proj"]
    return own, theirs, weights


def gpt2() -> tuple[list[str], nn.Module, dict[str, Tensor]]:
    config = transformers.GPT2Config(
        vocab_size=VOCAB,
        n_embd=HEADS * HEAD_DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        n_inner=D_FF,
        n_positions=CONTEXT,
        attn_implementation="eager",
    )
    theirs = transformers.GPT2LMHeadModel(config)
    randomise(theirs)
    own = [
        "model/position=learned",
        "model/ffn=mlp",
        f"model.d_model={HEADS * HEAD_DIM}",
        "model.norm=layernorm",
        "model.ffn.activation=gelu_tanh",
        "model.ffn.bias=true",
        "model.attention.bias=all",
        "model.tie_embeddings=true",
    ]
    given = theirs.state_dict()
    weights = {
        "token_embedding.weight": given["transformer.wte.weight"],
        "lm_head.weight": given["transformer.wte.weight"],
        "position.embedding.weight": given["transformer.wpe.weight"],
    }
    for kind in ("weight", "bias"):
        weights[f"final_norm.{kind}"] = given[f"transformer.ln_f.{kind}"]
        for layer in range(LAYERS):
            old, new = f"transformer.h.{layer}", f"blocks.{layer}"
            qkv = given[f"{old}.attn.c_attn.{kind}"]
            qkv = qkv.mT if kind == "weight" else qkv
            for name, part in zip("qkv", qkv.chunk(3), strict=True):
                weights[f"{new}.attention.branch.{name}_proj.{kind}"] = part
            for target, name in (
                ("attention.branch.output_proj", "attn.c_proj"),
                ("ffn.branch.w1", "mlp.c_fc"),
                ("ffn.branch.w2", "mlp.c_proj"),
            ):
                matrix = given[f"{old}.{name}.{kind}"]
                weights[f"{new}.{target}.{kind}"] = matrix.mT if kind == "weight" else matrix
            weights[f"{new}.attention.norm_in.{kind}"] = given[f"{old}.ln_1.{kind}"]
            weights[f"{new}.ffn.norm_in.{kind}"] = given[f"{old}.ln_2.{kind}"]
    return own, theirs, weights


@pytest.mark.parametrize("make", [llama, qwen2, qwen3, gemma2, mixtral, gpt2])
def test_logits_equal_those_of_transformers(
    make: Callable[[], tuple[list[str], nn.Module, dict[str, Tensor]]],
) -> None:
    torch.manual_seed(0)
    overrides, theirs, weights = make()
    theirs.eval()
    ours: Transformer = build(composed(*SHAPE, *overrides).model, VOCAB).eval()
    ours.load_state_dict(weights)
    ids = torch.randint(VOCAB, (2, CONTEXT))
    with torch.no_grad():
        expected, logits = theirs(ids).logits, ours(ids)
    assert expected.std() > 0.05  # something to compare
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
