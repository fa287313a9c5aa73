"""Every choice of the architecture as overrides, alone and in pairs, at a size of milliseconds."""

import itertools
from collections.abc import Iterator

from allpairspy import AllPairs

VOCAB, CONTEXT = 23, 12
SHAPE = (
    "model.d_model=16",
    "model.num_layers=2",
    "model.num_heads=4",
    "model.d_ff=24",
    f"model.context_length={CONTEXT}",
)
HYBRID = ("model/attention=hybrid", "model.attention.members.local.window=3")
LINEAR_HYBRID = (
    "model/attention=hybrid",
    "model/attention@model.attention.members.local=linear",
    "model.attention.members.local.chunk_size=5",
)
LINEAR = ("model/attention=linear", "model.attention.chunk_size=5")
MOE = ("model/ffn=moe", "model.ffn.num_experts=4")

# The first value of an axis is the base's. `$` is the attention, or each member of a hybrid.
AXES: dict[str, dict[str, tuple[str, ...]]] = {
    "attention": {
        "full": (),
        "sliding_window": ("model/attention=sliding_window", "model.attention.window=3"),
        "strided": (
            "model/attention=strided",
            "model.attention.window=2",
            "model.attention.stride=4",
        ),
        "linear": LINEAR,
        "linear_relu": (*LINEAR, "model.attention.feature_map=relu"),
        "linear_identity": (*LINEAR, "model.attention.feature_map=identity"),
        "hybrid": HYBRID,
        "hybrid_linear": LINEAR_HYBRID,
    },
    "ffn": {
        "swiglu": (),
        "glu_sigmoid": ("model.ffn.activation=sigmoid",),
        "glu_relu": ("model.ffn.activation=relu",),
        "glu_gelu": ("model.ffn.activation=gelu",),
        "glu_gelu_tanh": ("model.ffn.activation=gelu_tanh",),
        "mlp_relu": ("model/ffn=mlp", "model.ffn.activation=relu"),
        "mlp_gelu": ("model/ffn=mlp", "model.ffn.activation=gelu"),
        "mlp_gelu_tanh": ("model/ffn=mlp", "model.ffn.activation=gelu_tanh"),
        "mlp_silu": ("model/ffn=mlp", "model.ffn.activation=silu"),
        "mlp_relu2": ("model/ffn=mlp", "model.ffn.activation=relu2"),
        "mlp_bias": ("model/ffn=mlp", "model.ffn.bias=true"),
        "moe": MOE,
        "moe_before": (*MOE, "model.ffn.router_softmax=before"),
        "moe_top_1": (*MOE, "model.ffn.top_k=1", "model.ffn.router_softmax=before"),
        "moe_fine": (*MOE, "model.ffn.granularity=2", "model.ffn.shared_experts=1"),
        "moe_relu": (*MOE, "model.ffn.activation=relu"),
    },
    "position": {
        "rope": (),
        "theta": ("model.position.theta=100",),
        "linear_scaling": ("model/position/scaling=linear",),
        "llama3_scaling": (
            "model/position/scaling=llama3",
            "model.position.scaling.original_context_length=8",
        ),
        "sinusoidal": ("model/position=sinusoidal",),
        "learned": ("model/position=learned",),
        "none": ("model/position=none",),
    },
    "norm_placement": {
        "pre": (),
        "post": ("model.norm_placement=post",),
        "double": ("model.norm_placement=double",),
        "none": ("model.norm_placement=none",),
    },
    "norm": {
        "rmsnorm": (),
        "layernorm": ("model.norm=layernorm",),
        "none": ("model.norm=none",),
        "eps": ("model.norm_eps=0.1",),
    },
    "init": {
        "xavier": (),
        "gpt2": ("model.init=gpt2",),
        "depth_scaled": ("model.init=depth_scaled",),
        "zero_residual": ("model.init=zero_residual",),
    },
    "parametrization": {
        "standard": (),
        "mup": ("model.parametrization=mup", "model.base_width=8"),
    },
    "kv_heads": {"mha": (), "gqa": ("$.num_kv_heads=2",), "mqa": ("$.num_kv_heads=1",)},
    "bias": {"none": (), "qkv": ("$.bias=qkv",), "all": ("$.bias=all",)},
    "softcap": {"none": (), "1": ("$.logit_softcap=1.0",)},
    "dropout": {"0": (), "residual": ("model.dropout=0.3",), "attention": ("$.dropout=0.3",)},
    "qk_norm": {"false": (), "true": ("$.qk_norm=true",)},
    "head_dim": {"null": (), "6": ("model.head_dim=6",)},
    "block": {"serial": (), "parallel": ("model.block=parallel",)},
    "logit_softcap": {"null": (), "2": ("model.logit_softcap=2.0",)},
    "tie": {"false": (), "true": ("model.tie_embeddings=true",)},
    "scale": {"false": (), "true": ("model.scale_embeddings=true",)},
}
WITHOUT_SOFTMAX = ("linear", "linear_relu", "linear_identity")
NEEDS_SOFTMAX = {("softcap", "1"), ("dropout", "attention")}
UNUSED_NORMS = {
    ("none", "layernorm"),
    ("none", "eps"),  # but for QK norm
    ("post", "none"),
    ("double", "none"),
}
"""Placement and norm of which one leaves the other without use."""

Combination = dict[str, str]
BASE: Combination = {axis: next(iter(values)) for axis, values in AXES.items()}


def overrides(combination: Combination) -> list[str]:
    """Return what one writes on the command line for a combination."""
    attention = combination["attention"]
    keys = ["model.attention"]
    if attention.startswith("hybrid"):
        members = [("local", "linear" if "linear" in attention else "softmax"), ("global", "")]
        keys = [f"model.attention.members.{name}" for name, _ in members]
    written = list(SHAPE)
    for axis, value in combination.items():
        for override in AXES[axis][value]:
            for key in keys if "$" in override else [""]:
                softmax_only = (axis, value) in NEEDS_SOFTMAX
                if softmax_only and attention == "hybrid_linear" and key.endswith("local"):
                    continue
                written.append(override.replace("$", key))
    return written


def meaningful(combination: Combination) -> bool:
    """Whether the combination means something.

    Linear attention has no softmax to cap or drop, a norm and its placement need each other, and
    muP is not defined for tied or scaled embeddings.
    """
    if combination.get("parametrization") == "mup" and "true" in (
        combination.get("tie"),
        combination.get("scale"),
    ):
        return False
    without = combination.get("attention") in WITHOUT_SOFTMAX
    if (combination.get("norm_placement"), combination.get("norm")) in UNUSED_NORMS:
        return False
    return not (without and NEEDS_SOFTMAX & set(combination.items()))


def singles() -> Iterator[Combination]:
    """Yield the base, and what differs from it in one axis."""
    yield BASE
    for axis, values in AXES.items():
        for value in list(values)[1:]:
            yield BASE | {axis: value}


def pairs() -> Iterator[Combination]:
    """Yield combinations in which every meaningful pair of values of two axes occurs."""
    names = list(AXES)

    def allowed(row: list[str]) -> bool:
        return meaningful(dict(zip(names, row, strict=False)))

    seen: set[tuple[tuple[str, str], ...]] = set()
    for row in AllPairs([list(values) for values in AXES.values()], filter_func=allowed):
        combination = dict(zip(names, row, strict=True))
        seen.update(itertools.combinations(combination.items(), 2))
        yield combination
    for pair in every_pair():  # those that the filter made it miss
        if pair not in seen:
            yield BASE | dict(pair)


def every_pair() -> Iterator[tuple[tuple[str, str], ...]]:
    """Yield each meaningful pair of values of two axes, as (axis, value) twice."""
    for (a, first), (b, second) in itertools.combinations(AXES.items(), 2):
        for x, y in itertools.product(first, second):
            if meaningful({a: x, b: y}):
                yield (a, x), (b, y)


def name(combination: Combination) -> str:
    """Return what differs from the base."""
    differing = [v if v != "true" else a for a, v in combination.items() if BASE[a] != v]
    return "-".join(differing) or "base"
