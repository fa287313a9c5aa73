"""The operations of a Transformer by its shape: one training step, prefill, one token of decoding.

Each operation is a kernel of its own: it reads its inputs from the memory and writes its results
once, and attention keeps its scores on the chip (Dao et al. 2022). That is what good kernels do; a
prediction from it is a bound. Only a kernel of two operations, or a tensor that stays in the L2
cache from one to the next, moves less. Soft-capped scores and dropout are not counted: attention
and residual sums can compute them beside.

In training a backward pass follows each forward pass. It reads and writes, beside what is forward:

- a product W x: two products, with the gradient of y in place of x or of W: twice as much;
- attention: reads Q, K, V, the output and its gradient, and writes three gradients: twice as much;
- a norm: reads the gradient and x, and writes one: 3 to 2;
- a residual sum: the gradient is that of both terms, but the input of the branch has two gradients,
  of the branch and of the stream, which are added: as much;
- a rotation, a scale: turns or scales the gradient: as much;
- an activation: reads the gradient and its inputs, and writes their gradients: 5 to 3 with a gate,
  3 to 2 without; soft-capped logits as without, with the output for the input;
- the embedding: reads the gradient, and writes that of the table: the whole table, which the
  optimizer reads, or the tokens' rows alone where the head has written it;
- added positions: nothing, and learned ones as the embedding;
- a bias: reads the gradient to add up its rows.
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
    final_norm: bool = True
    """Whether a norm stands before the head."""
    norm_vectors: int = 1
    """Vectors of a norm over d_model: its gain, and the bias of a LayerNorm."""
    qk_norm: bool = False
    """Whether queries and keys are normalised, each head by itself."""
    biases: int = 0
    """Elements of the biases of a layer's products."""
    rotated: bool = True
    """Whether queries and keys are rotated."""
    added_positions: bool = False
    """Whether vectors of positions are added to the embeddings."""
    learned_positions: int = 0
    """Those that are learned."""
    scaled: bool = False
    """Whether the embeddings are scaled."""
    capped: bool = False
    """Whether the logits are soft-capped."""
    tied: bool = False
    """Whether the head's weight is that of the embedding."""

    @property
    def multiplied(self) -> int:
        """Weights of the matrices of all products: of the layers and the head."""
        heads = self.num_heads + self.num_kv_heads
        attention = 2 * self.d_model * self.head_dim * heads
        ffn = (3 if self.gated else 2) * self.d_model * self.d_ff
        return self.num_layers * (attention + ffn) + self.vocab_size * self.d_model

    @property
    def parameters(self) -> int:
        """All weights."""
        norms = self.num_layers * self.norms + self.final_norm
        vectors = norms * self.norm_vectors + self.learned_positions
        vectors += 0 if self.tied else self.vocab_size
        of_layer = self.biases + 2 * self.head_dim * self.qk_norm
        return self.multiplied + vectors * self.d_model + self.num_layers * of_layer

    def forward_flops(self, batch: int, tokens: int) -> float:
        """Return the FLOPs of a forward pass by the convention of MFU: scores count in full."""
        scores = 2 * self.num_layers * self.num_heads * self.head_dim * tokens
        return 2.0 * batch * tokens * (self.multiplied + scores)


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
        cached = _cached(shape, batch, tokens, precision)
        return _passes(shape, batch, 1, precision, batch, cached)
    rows = batch * tokens
    if phase == "prefill":
        attention = _attention(shape, batch, tokens, precision)
        return _passes(shape, rows, tokens, precision, batch, attention)
    attention = _attention(shape, batch, tokens, precision, training=True)
    passes = _passes(shape, rows, tokens, precision, rows, attention, training=True)
    return [*passes, *_update(shape, rows, precision)]


def _passes(
    shape: Shape,
    rows: int,
    tokens: int,
    precision: Precision,
    logits: int,
    attention: Work,
    training: bool = False,
) -> list[Work]:
    """Return the operations of a forward pass, in training of the backward pass with it.

    Of `rows` tokens at `tokens` positions `logits` get logits. What the backward pass reads and
    writes is derived at the head of this module.
    """
    d, f, size, t = shape.d_model, shape.d_ff, BYTES[precision], int(training)
    stream = 1.0 * rows * d
    kv = 2 * shape.num_kv_heads * shape.head_dim
    width = shape.num_heads * shape.head_dim
    heads = rows * (width + kv / 2)
    ups = 2 if shape.gated else 1

    def product(m: int, n: int, k: int, name: str) -> Work:
        return _times(matmul(m, n, k, precision, name), 1 + 2 * t)

    def kernel(name: str, n: float, reads: int, writes: int, flops: float) -> Work:
        return elementwise(name, n, reads, writes, size, flops)

    def norm(name: str, n: float) -> Work:
        return kernel(name, n, 1 + 2 * t, 1 + t, 5 * (1 + 2 * t))

    layer = [
        product(rows, width + kv, d, "Q, K, V projections"),
        attention,
        product(rows, d, width, "attention output"),
        product(rows, ups * f, d, "feed-forward up" + (" and gate" if ups == 2 else "")),
        product(rows, d, f, "feed-forward down"),
        _biases(shape.biases, rows, size, training),
        norm("norms", shape.norms * stream),
        norm("QK norms", heads * shape.qk_norm),
        kernel("residual sums", 2 * stream, 2 + 2 * t, 1 + t, 1 + t),
        kernel("rotations", heads * shape.rotated, 1 + t, 1 + t, 3 * (1 + t)),
        kernel("activations", 1.0 * rows * f, ups + (ups + 1) * t, 1 + ups * t, 6 * (1 + t)),
    ]
    capped = 1.0 * logits * shape.vocab_size * shape.capped
    works = [
        *_embedding(shape, rows, tokens, size, training),
        *(_times(work, shape.num_layers) for work in layer),
        norm("final norm", 1.0 * logits * d * shape.final_norm),
        product(logits, shape.vocab_size, d, "output head"),
        kernel("soft-capped logits", capped, 1 + 2 * t, 1 + t, 3 * (1 + t)),
    ]
    return [work for work in works if work.bytes]


def _embedding(shape: Shape, rows: int, tokens: int, size: float, training: bool) -> list[Work]:
    """Return what makes the first layer's input; gradients of tables are float32."""
    d, t, stream = shape.d_model, int(training), 1.0 * rows * shape.d_model
    found = elementwise("embedding", stream, 1 + t, 1 + t * shape.tied, size, 0)
    if training and not shape.tied:
        found = _more(found, shape.vocab_size * d * BYTES["fp32"])
    scale = elementwise("embedding scale", stream * shape.scaled, 1 + t, 1 + t, size, 1 + t)
    if not shape.added_positions:
        return [found, scale]
    learned = t * bool(shape.learned_positions)
    added = elementwise("added positions", stream, 1 + learned, 1, size, 1 + learned)
    table = tokens * size + learned * shape.learned_positions * BYTES["fp32"]
    return [found, scale, _more(added, table * d)]


def _biases(elements: int, rows: int, size: float, training: bool) -> Work:
    """Return what biases add: products add them to their results, gradients are summed."""
    moved = elements * size
    if training:
        moved += elements * (rows * size + BYTES["fp32"])
    return Work("biases", 1.0 * elements * rows * training, moved, "fp32")


def _attention(
    shape: Shape, batch: int, tokens: int, precision: Precision, training: bool = False
) -> Work:
    """Return fused causal attention: half of the scores, or those of the window."""
    pairs = _pairs(tokens, shape.window)
    heads = batch * shape.num_heads
    flops = 4.0 * heads * shape.head_dim * pairs
    moved = 2 * batch * tokens * shape.head_dim * (shape.num_heads + shape.num_kv_heads)
    if training:
        flops, moved = flops * (1 + ATTENTION_BACKWARD), 3 * moved
    return Work("attention", flops, moved * BYTES[precision], precision)


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


def _update(shape: Shape, rows: int, precision: Precision) -> list[Work]:
    """Return what a training step does beside its passes."""
    size, parameters = BYTES[precision], float(shape.parameters)
    vocab = 1.0 * rows * shape.vocab_size
    works = [elementwise("loss over the vocabulary", vocab, 2, 1, size, 5)]
    if precision not in ("fp32", "tf32"):  # autocast converts weights, and their gradients back
        cast = shape.multiplied * (BYTES["fp32"] + size)
        works += [Work(f"{what} cast", 0.0, cast, "fp32") for what in ("weights", "gradients")]
    step = Work("AdamW", parameters * ADAMW_FLOPS, parameters * ADAMW_BYTES, "fp32")
    clip = Work("gradient norm", 2 * parameters, 4 * parameters, "fp32")
    return [*works, clip, step]


def _times(work: Work, count: int) -> Work:
    return replace(work, flops=count * work.flops, bytes=count * work.bytes)


def _more(work: Work, moved: float) -> Work:
    return replace(work, bytes=work.bytes + moved)
