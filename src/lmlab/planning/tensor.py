"""The part of a model that one device of a tensor-parallel group computes."""

from typing import Any

from lmlab.model.attention.config import HybridAttentionConfig
from lmlab.model.config import ModelConfig


def tensor_problem(model: ModelConfig, tensor: int) -> str:
    """Return why a model cannot be divided over `tensor` devices; empty: it can."""
    if tensor == 1:
        return ""
    for attention in _attentions(model):
        if getattr(attention, "dropout", 0.0) > 0:
            return f"tp cannot divide attention with dropout={attention.dropout:g}"
        heads = attention.num_kv_heads
        if heads is not None and heads % tensor:
            return f"num_kv_heads={heads} is not divisible by {tensor} devices"
    for key, count in (("num_heads", model.num_heads), ("d_ff", model.ffn_width)):
        if count % tensor and (key == "num_heads" or model.ffn.kind != "moe"):
            return f"{key}={count} is not divisible by {tensor} devices"
    return ""


def local_model(model: ModelConfig, tensor: int) -> ModelConfig:
    """Return the model with a device's share of heads and feed-forward; each has all experts."""
    if tensor == 1:
        return model
    share: dict[str, Any] = {
        "num_heads": model.num_heads // tensor,
        "head_dim": model.attention_width,
        "attention": _with_heads(model.attention, tensor),
    }
    if model.ffn.kind != "moe":
        share["d_ff"] = model.ffn_width // tensor
    return model.model_copy(update=share)


def _attentions(model: ModelConfig) -> list[Any]:
    attention = model.attention
    if isinstance(attention, HybridAttentionConfig):
        return list(attention.members.values())
    return [attention]


def _with_heads(attention: Any, tensor: int) -> Any:
    if isinstance(attention, HybridAttentionConfig):
        members = {name: _with_heads(each, tensor) for name, each in attention.members.items()}
        return attention.model_copy(update={"members": members})
    heads = attention.num_kv_heads
    return attention.model_copy(update={"num_kv_heads": heads and heads // tensor})
