"""Where an architecture stores the weights of a model: `Layout.rules`."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch

from lmlab.export.features import attention_of
from lmlab.export.rules import TRANSPOSED, Constant, Rule, Rules, Step, factor, halves, padded
from lmlab.export.rules import offset as offset_by
from lmlab.model import build
from lmlab.model.config import ModelConfig
from lmlab.model.position import SinusoidalPosition

QKV = ("q_proj", "k_proj", "v_proj")
EXPERT = "{expert}"
"""In a name: one tensor for each expert."""


class Slot(NamedTuple):
    """What a parameter is: its layer (None outside of blocks), its part of it, weight or bias."""

    layer: int | None
    part: str
    kind: str


def slot_of(name: str) -> Slot:
    """Return what a parameter of the model is."""
    outside = re.fullmatch(r"(token_embedding|position\.embedding|final_norm|lm_head)\.(\w+)", name)
    if outside:
        return Slot(None, outside[1], outside[2])
    found = re.fullmatch(r"blocks\.(\d+)\.(.*)", name)
    assert found is not None, name
    rest = found[2].replace("both.branch.attention.", "attention.branch.")
    rest = rest.replace("both.branch.ffn.", "ffn.branch.").replace("both.norm", "attention.norm")
    rest = re.sub(r"^(attention|ffn)\.branch\.", "", rest)
    if not rest.endswith((".weight", ".bias")):  # of a mixture of experts
        return Slot(int(found[1]), f"experts.{rest}", "weight")
    part, _, kind = rest.rpartition(".")
    return Slot(int(found[1]), part, kind)


def no_biases(config: ModelConfig) -> tuple[str, ...]:
    """Return no part."""
    return ()


@dataclass(frozen=True)
class Layout:
    """Names and forms of weights in a file."""

    layer: str
    """Prefix of a layer's names, with `{layer}`."""
    names: Mapping[str, str]
    """Part -> name without `.weight` or `.bias`; with `{expert}`: a tensor for each expert."""
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name -> parts that are joined in it."""
    halves: bool = True
    """Whether rotary embeddings rotate (j, j + half); False: (2j, 2j + 1), as here."""
    gain_offset: float = 0.0
    """What the architecture adds to the gain of a norm."""
    transposed: tuple[str, ...] = ()
    """Parts whose matrices are stored as (in, out)."""
    biases: Callable[[ModelConfig], tuple[str, ...]] = no_biases
    """Parts that have a bias there; where the model has none, it is 0."""
    scales_embeddings: bool = False
    """Whether the architecture multiplies embeddings by sqrt(d_model)."""
    position_rows: int = 0
    """Unused rows before the learned position 0."""
    query_factor: float = 1.0
    """What the queries are multiplied by there, beside 1 / sqrt(head_dim)."""

    def embedding_factor(self, config: ModelConfig) -> float:
        """Return what embeddings are multiplied by to have the architecture's scale."""
        scale = config.d_model**0.5
        if config.scale_embeddings == self.scales_embeddings:
            return 1.0
        return scale if config.scale_embeddings else 1 / scale

    def tied(self, config: ModelConfig) -> bool:
        """Whether the head is the embedding in the file, too."""
        return config.tie_embeddings and self.embedding_factor(config) == 1

    def rules(self, config: ModelConfig, vocab_size: int) -> Rules:
        """Return the rules for all weights of a model."""
        weights = build(config, vocab_size, device="meta").state_dict()
        rules: list[Rule | Constant] = []
        joined: dict[tuple[int | None, str, str], dict[str, str]] = defaultdict(dict)
        present: set[Slot] = set()
        for name in weights:
            slot = slot_of(name)
            present.add(slot)
            fused = next((k for k, parts in self.fused.items() if slot.part in parts), None)
            if fused is not None:
                joined[slot.layer, fused, slot.kind][slot.part] = name
            elif slot.part == "lm_head" and config.tie_embeddings:
                if not self.tied(config):
                    theirs = self.name(slot)
                    rules.append(Rule(("token_embedding.weight",), (theirs,), keep=False))
            elif EXPERT in self.names[slot.part]:
                each = range(len(weights[name]))
                rules.append(Rule((name,), tuple(self.name(slot).format(expert=e) for e in each)))
            else:
                rules.append(Rule((name,), (self.name(slot),), self.steps(config, slot)))
        for (layer, fused, kind), parts in joined.items():
            ours = tuple(parts[part] for part in self.fused[fused])
            first = Slot(layer, self.fused[fused][0], kind)
            dim = 1 if weights[ours[0]].ndim == 3 else 0
            sizes = tuple(weights[name].shape[dim] for name in ours)
            theirs = f"{self.prefix(layer)}{fused}.{kind}"
            rules.append(Rule(ours, (theirs,), self.steps(config, first), sizes, dim))
        return [*rules, *self.constants(config, vocab_size, present)]

    def steps(self, config: ModelConfig, slot: Slot) -> tuple[Step, ...]:
        """Return how the form of a parameter changes."""
        part = slot.part
        steps: list[Step] = []
        if part == "token_embedding" and (scale := self.embedding_factor(config)) != 1:
            steps.append(factor(scale))
        scaled = "q_norm" if attention_of(config).shared.qk_norm else "q_proj"
        if part == scaled and self.query_factor != 1:
            steps.append(factor(1 / self.query_factor))
        if self.halves and config.position.kind == "rope":
            kv = attention_of(config).shared.num_kv_heads or config.num_heads
            heads = {"q_proj": config.num_heads, "k_proj": kv, "q_norm": 1, "k_norm": 1}
            if part in heads:
                steps.append(halves(heads[part]))
        if self.gain_offset and "norm" in part:
            steps.append(offset_by(self.gain_offset))
        if part == "position.embedding" and self.position_rows:
            steps.append(padded(self.position_rows))
        if part in self.transposed and slot.kind == "weight":
            steps.append(TRANSPOSED)
        return tuple(steps)

    def constants(self, config: ModelConfig, vocab_size: int, present: set[Slot]) -> list[Constant]:
        """Return what the file needs beside the model's parameters."""
        wanted: list[tuple[str, int]] = []
        widths = self.widths(config, vocab_size)
        inside = [part for part in self.biases(config) if part != "lm_head"]
        for layer in range(config.num_layers):
            joined = {part: name for name, parts in self.fused.items() for part in parts}
            done: set[str] = set()
            for part in inside:
                if Slot(layer, part, "bias") in present:
                    continue
                name, width = joined.get(part, part), widths[part]
                if part in joined:
                    width = sum(widths[each] for each in self.fused[name])
                    full = f"{self.prefix(layer)}{name}.bias"
                else:
                    full = self.name(Slot(layer, part, "bias"))
                if full not in done:
                    done.add(full)
                    wanted.append((full, width))
        if "lm_head" in self.biases(config):
            wanted.append((self.name(Slot(None, "lm_head", "bias")), vocab_size))
        constants = [Constant((name,), partial(torch.zeros, width)) for name, width in wanted]
        if "position.embedding" in self.names and config.position.kind in ("sinusoidal", "none"):
            name = self.name(Slot(None, "position.embedding", "weight"))
            constants.append(Constant((name,), partial(self._positions, config)))
        return constants

    def _positions(self, config: ModelConfig) -> torch.Tensor:
        table = torch.zeros(config.context_length, config.d_model)
        if config.position.kind == "sinusoidal":
            table = SinusoidalPosition(config.d_model, config.context_length).table
        return padded(self.position_rows).forward(table)

    def widths(self, config: ModelConfig, vocab_size: int) -> dict[str, int]:
        """Return the width of the bias of each part."""
        attention = attention_of(config).shared
        head = config.attention_width
        kv = (attention.num_kv_heads or config.num_heads) * head
        widths = {"q_proj": config.num_heads * head, "k_proj": kv, "v_proj": kv}
        return widths | {
            "output_proj": config.d_model,
            "w1": config.ffn_width,
            "w2": config.d_model,
            "lm_head": vocab_size,
        }

    def prefix(self, layer: int | None) -> str:
        """Return what the names of a layer begin with."""
        return "" if layer is None else self.layer.format(layer=layer)

    def name(self, slot: Slot) -> str:
        """Return the name in the file."""
        return f"{self.prefix(slot.layer)}{self.names[slot.part]}.{slot.kind}"
