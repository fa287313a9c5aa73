"""What a config.json of transformers means here: one function for each type of model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmlab.export.fields import Fields
from lmlab.export.writing import ACTIVATIONS

Values = dict[str, Any]
NAMES = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "swish": "silu",
}


@dataclass(frozen=True)
class Read:
    """A model's configuration, and what else its weights need."""

    model: Values
    query_factor: float = 1.0
    """What the queries are multiplied by there, beside 1 / sqrt(head_dim)."""


def activation(fields: Fields, key: str, known: tuple[str, ...]) -> str:
    """Return the name of an activation here."""
    name = NAMES.get(fields.take(key))
    if name not in known:
        names = ", ".join(there for there, here in NAMES.items() if here in known)
        raise fields.refuse(key, f"known are {names}")
    return name


def position(fields: Fields) -> Values:
    """Return the rotary embedding."""
    given = dict(fields.take("rope_parameters") or {})
    kind, theta = given.pop("rope_type", "default"), given.pop("rope_theta", None)
    if theta is None:
        raise fields.refuse("rope_parameters", "it has no rope_theta")
    keys: dict[str, dict[str, str]] = {
        "default": {},
        "linear": {"factor": "factor"},
        "llama3": {
            "factor": "factor",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_max_position_embeddings": "original_context_length",
        },
    }
    names = keys.get(kind)
    if names is None:
        raise fields.refuse("rope_parameters", f"known types are {', '.join(keys)}")
    if given.get("partial_rotary_factor", 1.0) == 1.0:
        given.pop("partial_rotary_factor", None)
    if unknown := set(given) - set(names):
        raise fields.refuse("rope_parameters", f"it has {', '.join(sorted(unknown))}")
    if lacking := set(names) - set(given):
        raise fields.refuse("rope_parameters", f"it lacks {', '.join(sorted(lacking))}")
    scaling = {"kind": "none" if kind == "default" else kind}
    scaling |= {ours: given[theirs] for theirs, ours in names.items()}
    return {"kind": "rope", "theta": theta, "scaling": scaling}


def heads(fields: Fields, **values: Any) -> Values:
    """Return what attention with a softmax has, beside its mask."""
    plain = {
        "num_kv_heads": fields.take("num_key_value_heads"),
        "qk_norm": False,
        "bias": "none",
        "logit_softcap": None,
        "dropout": 0.0,
        "backend": "auto",
    }
    return plain | values


def attention(windows: list[int | None], shared: Values) -> Values:
    """Return attention with a window in some layers; None: a layer without one."""
    count = len(windows)
    repeats = (n for n in range(1, count + 1) if windows == (windows[:n] * count)[:count])
    length = next(repeats)
    kinds = {
        f"window_{w}" if w else "full": {"kind": "sliding_window", "window": w, **shared}
        if w
        else {"kind": "full", **shared}
        for w in windows
    }
    if len(kinds) == 1:
        return next(iter(kinds.values()))
    pattern = [f"window_{w}" if w else "full" for w in windows[:length]]
    return {"kind": "hybrid", "pattern": pattern, "members": kinds}


def layer_windows(fields: Fields) -> list[int | None]:
    """Return the window of each layer by `layer_types`."""
    kinds, window = fields.take("layer_types"), fields.take("sliding_window")
    known = {"full_attention": None, "sliding_attention": window}
    if unknown := set(kinds) - set(known):
        raise fields.refuse("layer_types", f"unknown are {', '.join(sorted(unknown))}")
    if "sliding_attention" in kinds and not window:
        raise fields.refuse("sliding_window", "layer_types has sliding_attention")
    return [known[kind] for kind in kinds]


def decoder(fields: Fields, eps: str = "rms_norm_eps") -> Values:
    """Return the shape, in the names of Llama, and what these models have in common."""
    fields.require("is_encoder_decoder", False)
    width, count = fields.take("hidden_size"), fields.take("num_attention_heads")
    head = fields.take("head_dim") or width // count
    return {
        "d_model": width,
        "num_layers": fields.take("num_hidden_layers"),
        "num_heads": count,
        "head_dim": None if head * count == width else head,
        "d_ff": fields.take("intermediate_size"),
        "context_length": fields.take("max_position_embeddings"),
        "vocab_size": fields.take("vocab_size"),
        "block": "serial",
        "norm": "rmsnorm",
        "norm_eps": fields.take(eps),
        "norm_placement": "pre",
        "dropout": 0.0,
        "logit_softcap": None,
        "init": "xavier",
        "parametrization": "standard",
        "base_width": None,
        "tie_embeddings": fields.take("tie_word_embeddings"),
        "scale_embeddings": False,
        "position": position(fields),
    }


GATES = ("silu", "gelu", "gelu_tanh", "relu", "sigmoid")


def glu(fields: Fields, key: str = "hidden_act") -> Values:
    """Return a gated feed-forward."""
    return {"kind": "glu", "activation": activation(fields, key, GATES)}


def _full(fields: Fields) -> list[int | None]:
    return [None] * fields.take("num_hidden_layers")


def _llama(fields: Fields) -> Read:
    fields.require("mlp_bias", False)
    bias = "all" if fields.take("attention_bias") else "none"
    own = {"attention": attention(_full(fields), heads(fields, bias=bias)), "ffn": glu(fields)}
    return Read(decoder(fields) | own)


def _mistral(fields: Fields) -> Read:
    windows = [fields.take("sliding_window")] * fields.take("num_hidden_layers")
    return Read(
        decoder(fields) | {"attention": attention(windows, heads(fields)), "ffn": glu(fields)}
    )


def _qwen_windows(fields: Fields) -> list[int | None]:
    for key in ("use_sliding_window", "max_window_layers"):  # layer_types was made from them
        fields.take(key)
    return layer_windows(fields)


def _qwen2(fields: Fields) -> Read:
    shared = heads(fields, bias="qkv")
    own = {"attention": attention(_qwen_windows(fields), shared), "ffn": glu(fields)}
    return Read(decoder(fields) | own)


def _qwen3(fields: Fields) -> Read:
    bias = "all" if fields.take("attention_bias") else "none"
    shared = heads(fields, bias=bias, qk_norm=True)
    own = {"attention": attention(_qwen_windows(fields), shared), "ffn": glu(fields)}
    return Read(decoder(fields) | own)


def _gemma2(fields: Fields) -> Read:
    fields.require("use_bidirectional_attention", None, False)
    fields.take("hidden_act")  # transformers reads hidden_activation
    bias = "all" if fields.take("attention_bias") else "none"
    shared = heads(fields, bias=bias, logit_softcap=fields.take("attn_logit_softcapping"))
    values = decoder(fields) | {
        "attention": attention(layer_windows(fields), shared),
        "ffn": glu(fields, "hidden_activation"),
        "norm_placement": "double",
        "logit_softcap": fields.take("final_logit_softcapping"),
        "scale_embeddings": True,
    }
    scalar, head = fields.take("query_pre_attn_scalar"), fields.take("head_dim")
    return Read(values, (head / scalar) ** 0.5)


def moe(fields: Fields, experts: str, softmax: str) -> Values:
    """Return a mixture of experts."""
    return {
        "kind": "moe",
        "activation": activation(fields, "hidden_act", GATES),
        "num_experts": fields.take(experts),
        "top_k": fields.take("num_experts_per_tok"),
        "granularity": 1,
        "shared_experts": 0,
        "router_softmax": softmax,
        "load_balancing_loss": 0.01,
        "router_z_loss": 0.001,
    }


def _mixtral(fields: Fields) -> Read:
    windows = [fields.take("sliding_window")] * fields.take("num_hidden_layers")
    ffn = moe(fields, "num_local_experts", "after")
    return Read(decoder(fields) | {"attention": attention(windows, heads(fields)), "ffn": ffn})


def _qwen3_moe(fields: Fields) -> Read:
    fields.require("decoder_sparse_step", 1)
    fields.require("mlp_only_layers", [], None)
    used = fields.take("use_sliding_window")
    window = fields.take("sliding_window")
    windows = [window if used else None] * fields.take("num_hidden_layers")
    bias = "all" if fields.take("attention_bias") else "none"
    softmax = "after" if fields.take("norm_topk_prob") else "before"
    experts = "num_experts" if "num_experts" in fields.values else "num_local_experts"
    values = decoder(fields) | {
        "attention": attention(windows, heads(fields, bias=bias, qk_norm=True)),
        "ffn": moe(fields, experts, softmax),
        "d_ff": fields.take("moe_intermediate_size"),
    }
    return Read(values)


def _gpt2(fields: Fields) -> Read:
    fields.require("is_encoder_decoder", False)
    fields.require("add_cross_attention", False)
    fields.require("scale_attn_weights", True)
    fields.require("scale_attn_by_inverse_layer_idx", False)
    width = fields.take("n_embd")
    shared = heads(fields, bias="all", num_kv_heads=None)
    return Read(
        {
            "d_model": width,
            "num_layers": fields.take("n_layer"),
            "num_heads": fields.take("n_head"),
            "head_dim": None,
            "d_ff": fields.take("n_inner") or 4 * width,
            "context_length": fields.take("n_positions"),
            "vocab_size": fields.take("vocab_size"),
            "block": "serial",
            "norm": "layernorm",
            "norm_eps": fields.take("layer_norm_epsilon"),
            "norm_placement": "pre",
            "dropout": 0.0,
            "logit_softcap": None,
            "init": "gpt2",
            "parametrization": "standard",
            "base_width": None,
            "tie_embeddings": fields.take("tie_word_embeddings"),
            "scale_embeddings": False,
            "position": {"kind": "learned"},
            "attention": {"kind": "full", **shared},
            "ffn": {
                "kind": "mlp",
                "activation": activation(
                    fields, "activation_function", ("relu", "gelu", "gelu_tanh", "silu", "relu2")
                ),
                "bias": True,
            },
        }
    )


READERS: dict[str, Callable[[Fields], Read]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
    "gpt2": _gpt2,
}
"""Type of model -> what its configuration means here."""


def read_model(kind: str, fields: Fields) -> Read:
    """Return the configuration of a model; raises UserError naming a field that has no place."""
    read = READERS[kind](fields)
    fields.finish()
    return read
