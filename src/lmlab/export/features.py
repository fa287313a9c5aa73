"""The features of a configuration, and which of them a foreign architecture has."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from lmlab.errors import ConfigError
from lmlab.model.attention.config import (
    HybridAttentionConfig,
    LayerAttentionConfig,
    LinearAttentionConfig,
    SlidingWindowConfig,
    of_layer,
)
from lmlab.model.config import NORM_EPS, ModelConfig, RoPEConfig

Value = bool | str | None
Allowed = dict[str, tuple[Value, ...]]
GATES = ("silu", "gelu", "gelu_tanh", "relu", "sigmoid")
MLPS = ("silu", "gelu", "gelu_tanh", "relu", "relu2")
SET = "set"
"""A number instead of null, or of the usual one."""
LLAMA: Allowed = {
    "block": ("serial",),
    "norm": ("rmsnorm",),
    "norm_placement": ("pre",),
    "norm_eps": (None, SET),
    "head_dim": (None, SET),
    "logit_softcap": (None,),
    "scale_embeddings": (False, True),
    "tie_embeddings": (False, True),
    "position.kind": ("rope",),
    "position.scaling.kind": ("none", "linear", "llama3"),
    "attention.kind": ("full", "sliding_window"),
    "attention.pattern": ("full",),
    "attention.members": ("alike",),
    "attention.num_kv_heads": (None, SET),
    "attention.qk_norm": (False,),
    "attention.bias": ("none",),
    "attention.logit_softcap": (None,),
    "ffn.kind": ("glu",),
    "ffn.activation": GATES,
    "ffn.bias": (False,),
    "ffn.router_softmax": (None,),
    "ffn.shared_experts": (None,),
}
"""What Llama has; other architectures are described by how they differ from it."""


@dataclass(frozen=True)
class Feature:
    """One feature of a configuration."""

    kind: str
    """Key of `LLAMA`."""
    value: Value
    key: str
    """Key of the configuration that has the feature."""
    given: object
    """Its value."""

    def __str__(self) -> str:
        value = self.given if isinstance(self.given, str) else json.dumps(self.given)
        return f"model.{self.key}={value}"


@dataclass(frozen=True)
class Attention:
    """The attention of all layers, if the layers differ by their masks alone."""

    windows: tuple[int | None, ...]
    """Window of each layer; None: full attention."""
    shared: LayerAttentionConfig
    """What all layers have in common."""

    @property
    def window(self) -> int | None:
        """The window of the layers that have one."""
        return next((window for window in self.windows if window is not None), None)


def attention_of(config: ModelConfig) -> Attention:
    """Return the attention of a configuration whose layers differ by their masks alone."""
    layers = [of_layer(config.attention, layer) for layer in range(config.num_layers)]
    windows = [x.window if isinstance(x, SlidingWindowConfig) else None for x in layers]
    return Attention(tuple(windows), layers[0])


def features(config: ModelConfig) -> Iterator[Feature]:
    """Yield the features of a configuration."""

    def feature(key: str, value: Value, given: object = None) -> Feature:
        return Feature(key, value, key, value if given is None else given)

    yield feature("block", config.block)
    yield feature("norm", config.norm)
    yield feature("norm_placement", config.norm_placement)
    usual = config.norm_eps == NORM_EPS
    yield feature("norm_eps", None if usual else SET, config.norm_eps)
    yield feature("scale_embeddings", config.scale_embeddings)
    yield feature("tie_embeddings", config.tie_embeddings)
    free = config.attention_width * config.num_heads != config.d_model
    yield feature("head_dim", SET if free else None, config.head_dim)
    yield feature("logit_softcap", SET if config.logit_softcap else None, config.logit_softcap)
    yield feature("position.kind", config.position.kind)
    if isinstance(config.position, RoPEConfig):
        yield feature("position.scaling.kind", config.position.scaling.kind)
    yield from _attention_features(config)
    ffn = config.ffn
    yield feature("ffn.kind", ffn.kind)
    yield feature("ffn.activation", ffn.activation)
    if ffn.kind == "mlp":
        yield feature("ffn.bias", ffn.bias)
    if ffn.kind == "moe":
        yield feature("ffn.router_softmax", ffn.router_softmax)
        shared = ffn.shared_experts
        yield feature("ffn.shared_experts", SET if shared else None, shared)


def _attention_features(config: ModelConfig) -> Iterator[Feature]:
    attention = config.attention
    members: dict[str, LayerAttentionConfig]
    if isinstance(attention, HybridAttentionConfig):
        members = {f"attention.members.{name}": each for name, each in attention.members.items()}
    else:
        members = {"attention": attention}
    for path, member in members.items():
        kinds: dict[str, tuple[Value, object]] = {"kind": (member.kind, member.kind)}
        heads = member.num_kv_heads
        fewer = heads is not None and heads != config.num_heads
        kinds["num_kv_heads"] = (SET if fewer else None, heads)
        kinds["qk_norm"] = (member.qk_norm, member.qk_norm)
        kinds["bias"] = (member.bias, member.bias)
        if not isinstance(member, LinearAttentionConfig):
            cap = member.logit_softcap
            kinds["logit_softcap"] = (SET if cap else None, cap)
        for key, (value, given) in kinds.items():
            yield Feature(f"attention.{key}", value, f"{path}.{key}", given)
    yield from _pattern(config, members)


def _pattern(config: ModelConfig, members: Mapping[str, LayerAttentionConfig]) -> Iterator[Feature]:
    for key in ("num_kv_heads", "qk_norm", "bias", "logit_softcap"):
        if len({getattr(member, key, None) for member in members.values()}) > 1:
            path, other = list(members.items())[-1]
            given = getattr(other, key, None)
            yield Feature("attention.members", "differ", f"{path}.{key}", given)
    windows = attention_of(config).windows
    kind = "mixed" if len(set(windows)) > 1 else "sliding_window" if windows[0] else "full"
    if kind == "mixed" and all((w is None) == layer % 2 for layer, w in enumerate(windows)):
        kind = "alternating"
    if len(set(windows) - {None}) > 1:
        kind = "windows"
    hybrid = isinstance(config.attention, HybridAttentionConfig)
    key = "attention.pattern" if hybrid else "attention.kind"
    given = getattr(config.attention, "pattern", config.attention.kind)
    yield Feature("attention.pattern", kind, key, given)


class Described(Protocol):
    """An architecture with the features it has."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def allows(self) -> Allowed:
        """Values by feature, where they differ from Llama's."""


T = TypeVar("T", bound=Described)


def missing(architecture: Described, config: ModelConfig) -> list[Feature]:
    """Return the features of a configuration that an architecture lacks."""
    allowed = {**LLAMA, **architecture.allows}
    return [f for f in features(config) if f.value not in allowed[f.kind]]


def choose(architectures: Iterable[T], config: ModelConfig, family: str) -> T:
    """Return the first architecture with all features of a configuration.

    Raises ConfigError when there is none: it names the features that none of the `family` has, or
    else those that the nearest architecture lacks.
    """
    lacking = [(architecture, missing(architecture, config)) for architecture in architectures]
    for architecture, problems in lacking:
        if not problems:
            return architecture
    nowhere = [f for f in features(config) if all(f in problems for _, problems in lacking)]
    if nowhere:
        first, *others = nowhere
        more = f", nor {', '.join(map(str, others))}" if others else ""
        raise ConfigError(f"model.{first.key}", f"no {family} architecture has {first}{more}")
    nearest, (first, *others) = min(lacking, key=lambda pair: len(pair[1]))
    more = f", nor {', '.join(map(str, others))}" if others else ""
    raise ConfigError(
        f"model.{first.key}",
        f"no {family} architecture has this configuration; the nearest, {nearest.name}, does not "
        f"have {first}{more}",
    )
