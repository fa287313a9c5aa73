"""The engine's log-probabilities against transformers on the same weights."""

import sys

import pytest
import torch
from transformers import LlamaForCausalLM

from lmlab.generation.engine import Engine
from lmlab.generation.options import Options
from lmlab.generation.weights import Dtype
from lmlab.model import Transformer, build
from lmlab.tokenizer import byte_tokenizer
from tests_support import ROOT, composed

sys.path.insert(0, str(ROOT))

from benchmarks.llama import llama_of

TOKENIZER = byte_tokenizer(["<|endoftext|>"])
VOCAB, HEADS, LAYERS, WIDTH = 257, 4, 2, 64


def both(kv_heads: int) -> tuple[Transformer, LlamaForCausalLM]:
    """Return our model and theirs."""
    torch.manual_seed(0)
    shape = (f"model.d_model={WIDTH}", f"model.num_layers={LAYERS}", f"model.num_heads={HEADS}")
    shape += (
        "model.d_ff=96",
        "model.context_length=64",
        f"model.attention.num_kv_heads={kv_heads}",
    )
    model = build(composed("model=tinystories", *shape).model, VOCAB).eval()
    return model, llama_of(model)


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
