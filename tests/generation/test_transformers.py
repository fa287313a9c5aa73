"""The engine's log-probabilities against transformers on the same weights."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lmlab.generation.engine import Engine
from lmlab.generation.options import Options
from lmlab.generation.weights import Dtype
from lmlab.model import Transformer, build
from lmlab.tokenizer import byte_tokenizer
from tests_support import composed

TOKENIZER = byte_tokenizer(["<|endoftext|>"])
VOCAB, HEADS, LAYERS, WIDTH = 257, 4, 2, 64
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


def both(kv_heads: int) -> tuple[Transformer, LlamaForCausalLM]:
    """Return our model and theirs; they rotate halves where we rotate pairs."""
    torch.manual_seed(0)
    shape = (f"model.d_model={WIDTH}", f"model.num_layers={LAYERS}", f"model.num_heads={HEADS}")
    shape += (
        "model.d_ff=96",
        "model.context_length=64",
        f"model.attention.num_kv_heads={kv_heads}",
    )
    model = build(composed("model=tinystories", *shape).model, VOCAB).eval()
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    state = model.state_dict()
    copied = {
        "model.embed_tokens.weight": state["token_embedding.weight"],
        "model.norm.weight": state["final_norm.weight"],
        "lm_head.weight": state["lm_head.weight"],
    }
    for layer in range(LAYERS):
        for ours, name in NAMES.items():
            weight = state[f"blocks.{layer}.{ours}.weight"]
            if name.endswith(("q_proj", "k_proj")):
                pairs = weight.unflatten(0, (-1, WIDTH // HEADS // 2, 2))
                weight = pairs.transpose(1, 2).flatten(0, 2)
            copied[f"model.layers.{layer}.{name}.weight"] = weight
    theirs = LlamaForCausalLM(config).eval()
    theirs.load_state_dict(copied)
    return model, theirs


@pytest.mark.parametrize("dtype", [None, "fp32"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_log_probabilities_equal_those_of_transformers(kv_heads: int, dtype: Dtype | None) -> None:
    """Prompts of unequal lengths in one batch, more of them than rows."""
    model, theirs = both(kv_heads)
    engine = Engine(model, TOKENIZER, max_batch=3, dtype=dtype)
    prompts = [torch.randint(256, (n,)).tolist() for n in (1, 17, 5, 40, 2)]
    generations = [
        engine.submit(prompt, Options(max_new_tokens=20, seed=seed, logprobs=VOCAB))
        for seed, prompt in enumerate(prompts)
    ]
    for _ in engine.run():
        pass
    for prompt, generation in zip(prompts, generations, strict=True):
        with torch.no_grad():
            logits = theirs(torch.tensor([prompt + generation.tokens])).logits[0]
        expected = torch.log_softmax(logits[len(prompt) - 1 :], dim=-1)
        for step, pairs in enumerate(generation.alternatives):
            ids, got = zip(*pairs, strict=True)
            torch.testing.assert_close(
                torch.tensor(got), expected[step, list(ids)], atol=1e-5, rtol=1e-5
            )
