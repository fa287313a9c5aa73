"""The part of a model that one device of a tensor-parallel group computes."""

from lmlab.model.config import ModelConfig


def tensor_problem(model: ModelConfig, tensor: int) -> str:
    """Return why a model cannot be divided over `tensor` devices; empty: it can."""
    if tensor == 1:
        return ""
    attention, ffn = model.attention, model.ffn
    if ffn.kind == "moe":
        return "tp does not divide model/ffn=moe"
    if attention.kind not in ("full", "sliding_window", "strided"):
        return f"tp does not divide model/attention={attention.kind}"
    heads = {"num_heads": model.num_heads, "num_kv_heads": attention.num_kv_heads}
    for key, count in (*heads.items(), ("d_ff", model.ffn_width)):
        if count is not None and count % tensor:
            return f"{key}={count} is not divisible by {tensor} devices"
    return ""


def local_model(model: ModelConfig, tensor: int) -> ModelConfig:
    """Return the model with a device's share of the heads and of the feed-forward."""
    if tensor == 1:
        return model
    kv = getattr(model.attention, "num_kv_heads", None)
    attention = model.attention.model_copy(update={"num_kv_heads": kv and kv // tensor})
    share = {
        "num_heads": model.num_heads // tensor,
        "head_dim": model.attention_width,
        "d_ff": model.ffn_width // tensor,
        "attention": attention,
    }
    return model.model_copy(update=share)
