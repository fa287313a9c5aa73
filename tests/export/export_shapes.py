"""Configurations, models and folders that the tests of the export share."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from allpairspy import AllPairs
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from lmlab.export.features import LLAMA, Described, Value
from lmlab.loading import TrainedRun
from lmlab.model import Transformer, build
from lmlab.model.config import ModelConfig
from lmlab.tokenizer import Tokenizer, train_bpe
from tests_support import CONF, composed

ROWS = 310
"""Rows of the embedding: more than the tokenizer has."""
SHAPE = (
    "model.d_model=32",
    "model.num_layers=2",
    "model.num_heads=4",
    "model.d_ff=64",
    "model.context_length=12",
    f"model.vocab_size={ROWS}",
)
TEXT = (
    "Once upon a time there was a little dog. The dog said hello to the cat, and it's 10 o'clock.\n"
    "They'll play in the garden until the sun goes down; then the moon and 1000 stars come out.\n"
) * 3
Row = dict[str, Value]
OTHERS: dict[str, tuple[Value, ...]] = {"tie_embeddings": (False, True)}


def trained_tokenizer(folder: Path, pattern: str = "gpt2") -> Tokenizer:
    """Return a tokenizer of 300 tokens with the end of a document."""
    (folder / "text.txt").write_text(TEXT)
    end = ["<|endoftext|>"]
    return Tokenizer(*train_bpe(str(folder / "text.txt"), 300, end, pattern=pattern), end, pattern)


def overrides(row: Row) -> list[str]:
    """Return what one writes on the command line for values of features."""
    pattern = row["attention.pattern"]
    written, keys = list(SHAPE), ["model.attention"]
    if pattern == "sliding_window":
        written += ["model/attention=sliding_window", "model.attention.window=3"]
    if pattern in ("alternating", "mixed"):
        written += ["model/attention=hybrid", "model.attention.members.local.window=3"]
        keys = [f"model.attention.members.{name}" for name in ("local", "global")]
    if pattern == "mixed":
        written += ["model.attention.pattern=[global,local]"]
    for key in keys:
        written += [f"{key}.num_kv_heads=2"] * bool(row["attention.num_kv_heads"])
        written += [f"{key}.qk_norm=true"] * bool(row["attention.qk_norm"])
        written += [f"{key}.bias={row['attention.bias']}"]
        written += [f"{key}.logit_softcap=1.0"] * bool(row["attention.logit_softcap"])
    ffn, act = row["ffn.kind"], row["ffn.activation"]
    written += [f"model/ffn={ffn}", f"model.ffn.activation={act}"]
    if ffn == "mlp":
        written.append(f"model.ffn.bias={str(row['ffn.bias']).lower()}")
    if ffn == "moe":
        written += [
            "model.ffn.num_experts=3",
            f"model.ffn.router_softmax={row['ffn.router_softmax']}",
        ]
        if row["ffn.shared_experts"]:
            written += ["model.ffn.shared_experts=1", "model.ffn.granularity=2"]
    written.append(f"model/position={row['position.kind']}")
    if row["position.kind"] == "rope":
        scaling = row["position.scaling.kind"]
        written.append(f"model/position/scaling={scaling}")
        if scaling == "llama3":
            written.append("model.position.scaling.original_context_length=8")
    for key in ("block", "norm", "norm_placement"):
        written.append(f"model.{key}={row[key]}")
    written += ["model.norm_eps=0.1"] * bool(row["norm_eps"])
    written += ["model.head_dim=6"] * bool(row["head_dim"])
    written += ["model.logit_softcap=2.0"] * bool(row["logit_softcap"])
    for key in ("tie_embeddings", "scale_embeddings"):
        written.append(f"model.{key}={str(row[key]).lower()}")
    return written


def rows(architecture: Described, pairwise: bool) -> Iterator[Row]:
    """Yield configurations that an architecture has: every value, or every pair of values."""
    allowed = {**LLAMA, **architecture.allows}
    for key in ("attention.kind", "attention.members"):
        del allowed[key]
    if "moe" in allowed["ffn.kind"] and None not in allowed["ffn.router_softmax"]:
        allowed["ffn.kind"] = ("moe",)
    if pairwise:
        several = {key: list(values) for key, values in allowed.items() if len(values) > 1}
        for chosen in AllPairs(list(several.values())):
            picked = dict(zip(several, chosen, strict=True))
            yield {key: values[0] for key, values in allowed.items()} | picked
    else:
        for i in range(max(len(values) for values in allowed.values())):
            yield {key: values[i % len(values)] for key, values in allowed.items()}


@cache
def configured(*given: str) -> ModelConfig:
    """Compose the model alone, in half the time of a whole run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("model/tiny", overrides=list(given))
    return ModelConfig.model_validate(OmegaConf.to_container(config.model, resolve=True))


def randomise(model: nn.Module) -> None:
    """Move gains and biases away from the ones and zeros that would hide a mistake."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


def made(config: ModelConfig) -> Transformer:
    """Return a model with random weights."""
    torch.manual_seed(0)
    model = build(config, config.vocab_size or ROWS).eval()
    randomise(model)
    return model


def run_of(tokenizer: Tokenizer, *given: str) -> TrainedRun:
    """Return a run with random weights."""
    config = composed(*SHAPE, *given)
    return TrainedRun(made(config.model), tokenizer, config, 0, Path("runs/none"))


TINY: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 24,
    "bos_token_id": 299,
    "eos_token_id": 299,
    "pad_token_id": 299,
    "tie_word_embeddings": False,
}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama_tied": ("Llama", {"tie_word_embeddings": True, "head_dim": 6}),
    "llama_biases": ("Llama", {"attention_bias": True, "hidden_act": "gelu"}),
    "llama_3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama_linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "mistral": ("Mistral", {"sliding_window": 5}),
    "qwen2": ("Qwen2", {}),
    "qwen2_windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3", {"head_dim": 10}),
    "qwen3_biases": ("Qwen3", {"head_dim": 8, "attention_bias": True}),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 10,
            "sliding_window": 5,
            "query_pre_attn_scalar": 7,
            "tie_word_embeddings": True,
            "attn_logit_softcapping": 0.5,
            "final_logit_softcapping": 0.3,
        },
    ),
    "gemma2_uncapped": (
        "Gemma2",
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "layer_types": [GLOBAL, GLOBAL, LOCAL, GLOBAL],
            "sliding_window": 3,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2}),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            "num_experts": 3,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "head_dim": 8,
            "norm_topk_prob": True,
        },
    ),
    "gpt2": ("GPT2", {}),
    "gpt2_untied": ("GPT2", {"tie_word_embeddings": False, "activation_function": "relu"}),
}
"""Models of transformers with random weights: class and fields."""


def foreign(name: str) -> Any:
    """Return a model of transformers with random weights."""
    cls, fields = FOREIGN[name]
    torch.manual_seed(0)
    if cls == "GPT2":
        special = {key: TINY[key] for key in ("bos_token_id", "eos_token_id", "vocab_size")}
        shape = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 40, "n_positions": 24}
        config = transformers.GPT2Config(**shape | special | fields)
        model: Any = transformers.GPT2LMHeadModel(config)
    else:
        config = getattr(transformers, f"{cls}Config")(**TINY | fields)
        model = getattr(transformers, f"{cls}ForCausalLM")(config)
    randomise(model)
    return model.eval()


def save(model: Any, tokenizer: Tokenizer, folder: Path, **options: Any) -> Path:
    """Write a folder as people upload it."""
    model.save_pretrained(folder, **options)
    tokenizer.to_huggingface(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder
