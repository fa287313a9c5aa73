"""The operations of a Transformer by its shape: one training step, prefill, one token of decoding.

Each operation reads its inputs and writes its results once, and attention keeps its scores on the
chip (Dao et al. 2022). That is what good kernels do; a prediction from it is a bound.
"""

from dataclasses import dataclass, replace
from typing import Literal

from lmlab.errors import UserError
from lmlab.gpu.names import BYTES, Precision
from lmlab.gpu.roofline import LARGEST_SIZE, Work, elementwise, matmul

Phase = Literal["training", "prefill", "decode"]
ADAMW_FLOPS, ADAMW_BYTES = 14, 28
"""Of one parameter: weight, gradient and two moments are read, three of them written, in fp32."""
ATTENTION_BACKWARD = 2.5
"""Products of the backward pass of fused attention over those of the forward pass: 5 to 2."""


@dataclass(frozen=True)
class Shape:
    """What of a Transformer its operations depend on."""

    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    d_ff: int
    gated: bool
    """Whether the feed-forward has a third matrix, for its gate."""
    vocab_size: int
    window: int | None = None
    """Tokens that a token attends to, itself included; None: all up to itself."""
    norms: int = 2
    """Norms over d_model in a layer."""
    rotated: bool = True
    """Whether queries and keys are rotated."""
    tied: bool = False
    """Whether the head's weight is that of the embedding."""
    positions: int = 0
    """Learned vectors of positions."""

    @property
    def layer_parameters(self) -> int:
        """Weights of the matrices of one layer."""
        heads = self.num_heads + self.num_kv_heads
        attention = 2 * self.d_model * self.head_dim * heads
        return attention + (3 if self.gated else 2) * self.d_model * self.d_ff

    @property
    def parameters(self) -> int:
        """Weights of all matrices, without the norms' gains."""
        rows = (1 if self.tied else 2) * self.vocab_size + self.positions
        return self.num_layers * self.layer_parameters + rows * self.d_model

    def forward_flops(self, batch: int, tokens: int) -> float:
        """Return the FLOPs of a forward pass by the convention of MFU: scores count in full."""
        products = self.num_layers * self.layer_parameters + self.vocab_size * self.d_model
        scores = 2 * self.num_layers * self.num_heads * self.head_dim * tokens
        return 2.0 * batch * tokens * (products + scores)


def operations(
    shape: Shape, phase: Phase, batch: int, tokens: int, precision: Precision
) -> list[Work]:
    """Return the operations of a phase, those of all layers together.

    training: one step on `batch` sequences of `tokens`; prefill: a forward pass over them, with the
    logits of the last tokens; decode: one new token for each of `batch` sequences that have
    `tokens` in the cache. Weights are float32 in training, as autocast keeps them.
    """
    if min(batch, tokens) < 1:
        raise UserError(f"batch and tokens must be 1 or more, got {batch} and {tokens}")
    if max(batch, tokens) > LARGEST_SIZE:
        raise UserError(f"batch and tokens go up to {LARGEST_SIZE}, got {batch} and {tokens}")
    if phase == "decode":
        return _forward(shape, batch, precision, batch, _cached(shape, batch, tokens, precision))
    rows = batch * tokens
    scores = _attention(shape, batch, tokens, BYTES[precision], precision)
    if phase == "prefill":
        return _forward(shape, rows, precision, batch, scores)
    return _training(shape, rows, precision, scores)


def _forward(
    shape: Shape, rows: int, precision: Precision, logits: int, attention: Work
) -> list[Work]:
    """Return the operations of a forward pass over `rows` tokens, `logits` of which get logits."""
    d, f, size = shape.d_model, shape.d_ff, BYTES[precision]
    kv = 2 * shape.num_kv_heads * shape.head_dim
    width = shape.num_heads * shape.head_dim
    ups = 2 if shape.gated else 1
    layer = [
        matmul(rows, width + kv, d, precision, "Q, K, V projections"),
        attention,
        matmul(rows, d, width, precision, "attention output"),
        matmul(rows, ups * f, d, precision, "feed-forward up" + (" and gate" if ups == 2 else "")),
        matmul(rows, d, f, precision, "feed-forward down"),
        elementwise("norms", 1.0 * shape.norms * rows * d, 1, 1, size, 5),
        elementwise("residual sums", 2.0 * rows * d, 2, 1, size, 1),
        elementwise("rotations", 1.0 * rows * (width + kv / 2), 1, 1, size, 3),
        elementwise("activations", 1.0 * rows * f, ups, 1, size, 6),
    ]
    without = {"norms"} if not shape.norms else set()
    without |= {"rotations"} if not shape.rotated else set()
    return [
        elementwise("embedding", 1.0 * rows * d, 1, 1, size, 0),
        *(_times(work, shape.num_layers) for work in layer if work.name not in without),
        matmul(logits, shape.vocab_size, d, precision, "output head"),
    ]


def _attention(shape: Shape, batch: int, tokens: int, size: float, precision: Precision) -> Work:
    """Return fused causal attention: half of the scores, or those of the window."""
    pairs = _pairs(tokens, shape.window)
    heads = batch * shape.num_heads
    flops = 4.0 * heads * shape.head_dim * pairs
    moved = 2 * batch * tokens * shape.head_dim * (shape.num_heads + shape.num_kv_heads)
    return Work("attention", flops, moved * size, precision)


def _pairs(tokens: int, window: int | None) -> float:
    """Return the pairs of a query and a key that it may see."""
    width = min(window or tokens, tokens)
    return width * (width + 1) / 2 + (tokens - width) * width


def _cached(shape: Shape, batch: int, tokens: int, precision: Precision) -> Work:
    """Return attention of one query a sequence to its cache."""
    seen = min(shape.window or tokens + 1, tokens + 1)
    flops = 4.0 * batch * shape.num_heads * shape.head_dim * seen
    moved = 2.0 * batch * shape.num_kv_heads * shape.head_dim * seen
    return Work("attention", flops, moved * BYTES[precision], precision)


def _training(shape: Shape, rows: int, precision: Precision, attention: Work) -> list[Work]:
    size, parameters = BYTES[precision], float(shape.parameters)
    works = []
    for work in _forward(shape, rows, precision, rows, attention):
        more = ATTENTION_BACKWARD if work.name == "attention" else 2.0
        works.append(replace(work, flops=work.flops * (1 + more), bytes=work.bytes * (1 + more)))
    vocab = 1.0 * rows * shape.vocab_size
    works.append(elementwise("loss over the vocabulary", vocab, 2, 1, size, 5))
    if precision not in ("fp32", "tf32"):
        multiplied = shape.num_layers * shape.layer_parameters + shape.vocab_size * shape.d_model
        casts = Work("weights cast", 0.0, multiplied * (BYTES["fp32"] + size), "fp32")
        works.append(casts)
    step = Work("AdamW", parameters * ADAMW_FLOPS, parameters * ADAMW_BYTES, "fp32")
    clip = Work("gradient norm", 2 * parameters, 4 * parameters, "fp32")
    return [*works, clip, step]


def _times(work: Work, count: int) -> Work:
    return replace(work, flops=count * work.flops, bytes=count * work.bytes)
