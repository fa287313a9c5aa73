"""Write docs/architectures.md and its pictures from the code.

python scripts/architectures.py
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lmlab.accounting.cli import GPT2_VOCABULARY
from lmlab.accounting.costs import Costs, count_costs
from lmlab.hydra_app import compose
from lmlab.model.attention.backends import AttentionPattern
from lmlab.model.attention.config import of_layer
from lmlab.model.attention.masks import Causal, Mask, SlidingWindow, Strided
from lmlab.model.position import SinusoidalPosition

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "architectures.md"
PICTURES = DOCS / "architectures"
SIZE = "model=small"


class Choice(NamedTuple):
    """One row: overrides, formula, paper."""

    overrides: str
    formula: str
    paper: str


class Axis(NamedTuple):
    """One section."""

    title: str
    text: str
    table: str
    """A choice in each line: overrides | formula | paper."""
    picture: str | None = None

    def choices(self) -> list[Choice]:
        """Return the lines of the table."""
        return [Choice(*line.split(" | ")) for line in self.table.strip().splitlines()]


AXES = [
    Axis(
        "Attention",
        "Scores are `q k^T / sqrt(d_k)`; masked keys have probability 0. The "
        "counted FLOPs are those of the eager backend, which computes all scores before "
        "masking. The cache is the memory per token in generation at full context, in "
        "float32.",
        """
model.attention.num_kv_heads=null | softmax(QK^T) V, all heads | Vaswani et al. 2017
model.attention.num_kv_heads=4 | groups of heads share K and V (GQA) | Ainslie et al. 2023
model.attention.num_kv_heads=1 | all heads share K and V (MQA) | Shazeer 2019
model/attention=sliding_window | the last w tokens: i - j < w | Beltagy et al. 2020
model/attention=strided | the last w tokens, and every j with j mod s = 0 | Child et al. 2019
model/attention=linear | φ(q)·(Σ φ(k)^T v) / φ(q)·(Σ φ(k)), φ = elu + 1 | Katharopoulos et al. 2020
model/attention=linear model.attention.feature_map=identity | q · (Σ k^T v) | Shen et al. 2018
model/attention=hybrid | alternating windows and full attention | Riviere et al. 2024 (Gemma 2)
model/attention=hybrid model/attention@model.attention.members.local=linear \
| alternating linear and full attention | Minimax 2025
model.attention.qk_norm=true | RMSNorm of q and of k in each head | Dehghani et al. 2023
model.attention.logit_softcap=50 | cap · tanh(score / cap) | Riviere et al. 2024
model.attention.dropout=0.1 | drops probabilities in training | Srivastava et al. 2014
model.attention.bias=qkv | W x + b in Q, K, V | Bai et al. 2023 (Qwen)
model.head_dim=128 | heads of any width | Riviere et al. 2024
        """,
        "masks.png",
    ),
    Axis(
        "Feed-forward",
        "Applied at each position. `model.d_ff=null` is 4 d_model without a gate, and with a "
        "gate 8/3 d_model rounded up to a multiple of 64, which gives as many weights.",
        """
model/ffn=mlp model.ffn.activation=relu | W2 max(0, W1 x) | Vaswani et al. 2017
model/ffn=mlp model.ffn.activation=gelu | W2 GELU(W1 x) | Hendrycks and Gimpel 2016
model/ffn=mlp model.ffn.activation=silu | W2 SiLU(W1 x), SiLU(x) = x σ(x) | Elfwing et al. 2018
model/ffn=mlp model.ffn.activation=relu2 | W2 max(0, W1 x)² | So et al. 2021
model.ffn.activation=sigmoid | W2 (σ(W1 x) ⊙ W3 x) (GLU) | Dauphin et al. 2017
model.ffn.activation=relu | W2 (max(0, W1 x) ⊙ W3 x) (ReGLU) | Shazeer 2020
model.ffn.activation=gelu | W2 (GELU(W1 x) ⊙ W3 x) (GeGLU) | Shazeer 2020
model.ffn.activation=silu | W2 (SiLU(W1 x) ⊙ W3 x) (SwiGLU) | Shazeer 2020
model/ffn=moe | Σ g_i FFN_i(u), g = softmax over the k largest u·e_i | Jiang et al. 2024
model/ffn=moe model.ffn.router_softmax=before | k largest of softmax(u·e_i) | Fedus et al. 2021
model/ffn=moe model.ffn.granularity=4 | 4 N experts of d_ff / 4, 4 k of them | Dai et al. 2024
model/ffn=moe model.ffn.shared_experts=1 | one more expert, for every token | Dai et al. 2024
        """,
        "activations.png",
    ),
    Axis(
        "Position",
        "Rotations act on queries and keys after the split into heads; the others are "
        "added to the embeddings.",
        """
model/position=rope | pairs (2j, 2j+1) rotated by pos · θ^(-2j/d) | Su et al. 2021
model/position/scaling=linear | RoPE at pos / factor | Chen et al. 2023
model/position/scaling=llama3 | RoPE, long wavelengths times factor | Dubey et al. 2024
model/position=sinusoidal | alternating sin and cos of pos / 10000^(2j/d) | Vaswani et al. 2017
model/position=learned | a vector for each position | Radford et al. 2019 (GPT-2)
model/position=none | no encoding; the mask alone gives the order | Kazemnejad et al. 2023
        """,
        "sinusoidal.png",
    ),
    Axis(
        "Block and norms",
        "f is attention or feed-forward, N the norm. With `pre` and `double` a final norm follows "
        "the blocks. `norm_placement=none` and `norm=none` both remove the norms.",
        """
model.block=serial | y = x + Attn(N x), z = y + FFN(N y) | Vaswani et al. 2017
model.block=parallel | z = x + Attn(N x) + FFN(N x) | Wang and Komatsuzaki 2021 (GPT-J)
model.norm_placement=pre | x + f(N x) | Xiong et al. 2020
model.norm_placement=post | N(x + f(x)) | Vaswani et al. 2017
model.norm_placement=double | x + N(f(N x)) | Riviere et al. 2024
model.norm_placement=none | x + f(x) | Zhang et al. 2019
model.norm=rmsnorm | x / sqrt(mean(x²) + ε) · g | Zhang and Sennrich 2019
model.norm=layernorm | (x - mean) / sqrt(var + ε) · g + b | Ba et al. 2016
model.norm=none | x | Zhang et al. 2019
model.dropout=0.1 | drops elements of embeddings and branches in training | Srivastava et al. 2014
        """,
    ),
    Axis(
        "Embedding, head and weights",
        "The initial weight of a tied or scaled embedding is N(0, 1 / d_model), else N(0, 1).",
        """
model.tie_embeddings=true | the head's weight is the embedding's | Press and Wolf 2017
model.scale_embeddings=true | sqrt(d_model) · embedding | Vaswani et al. 2017
model.logit_softcap=30 | cap · tanh(logit / cap) | Riviere et al. 2024
task.objective.z_loss=1e-4 | loss + c · mean(log² Z) | Chowdhery et al. 2022 (PaLM)
model.init=xavier | N(0, 2 / (d_in + d_out)) cut at 3 σ | Glorot and Bengio 2010
model.init=gpt2 | N(0, 0.02²), outputs of branches / sqrt(2 L) | Radford et al. 2019
model.init=depth_scaled | xavier, outputs of branches / sqrt(2 L) | Radford et al. 2019
model.init=zero_residual | xavier, outputs of branches 0 | Zhang et al. 2019
model.parametrization=mup model.base_width=256 | hidden 1/sqrt(w), head 1/w | Yang et al. 2022
        """,
    ),
]

INTRODUCTION = """
# Architectures

<!-- generated by `python scripts/architectures.py`; edit that file -->

Give any choices below to `python train.py` on the command line. `lmlab account` counts parameters,
FLOPs and memory of a combination before anything runs. `experiment=architectures/NAME` is a
published architecture (see [experiments/architectures](../experiments/architectures/README.md)).

Parameters, forward FLOPs of one sequence and cache are counted at `{size}` with a vocabulary of
{vocabulary:,} and {context:,} tokens. The base has {parameters:,} parameters, {flops:.4e} FLOPs and
a cache of {cache:,.0f} bytes per token; a dot means the same as the base.
"""
CAPTIONS = {
    "masks.png": "Attention masks of 32 tokens: queries are rows, keys are columns.",
    "activations.png": "The nonlinearities.",
    "sinusoidal.png": "The sinusoidal matrix: 256 positions, d_model 128.",
}


def main() -> None:
    """Write the page and the pictures."""
    PICTURES.mkdir(exist_ok=True)
    draw_sinusoidal(PICTURES / "sinusoidal.png")
    draw_masks(PICTURES / "masks.png")
    draw_activations(PICTURES / "activations.png")
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


def page() -> str:
    """Return the page."""
    return "\n".join(lines()) + "\n"


def lines() -> Iterator[str]:
    """Yield the lines of the page."""
    base = counted("")
    yield INTRODUCTION.format(
        size=SIZE,
        vocabulary=GPT2_VOCABULARY,
        context=base.context_length,
        parameters=base.parameters,
        flops=base.flops,
        cache=base.cache_bytes_per_token,
    ).strip()
    for axis in AXES:
        yield ""
        yield f"## {axis.title}"
        yield ""
        yield axis.text
        yield ""
        if axis.picture:
            yield f"![{CAPTIONS[axis.picture]}](architectures/{axis.picture})"
            yield ""
        yield "| overrides | formula | paper | parameters | FLOPs | cache B/token |"
        yield "| --- | --- | --- | ---: | ---: | ---: |"
        for choice in axis.choices():
            yield row(choice, base)


def row(choice: Choice, base: Costs) -> str:
    """Return the row of a choice; a dot where it equals the base."""
    a = counted(choice.overrides)
    parameters = "·" if a.parameters == base.parameters else f"{a.parameters:,}"
    flops = "·" if a.flops == base.flops else f"{a.flops:.4e}"
    same = a.cache_bytes == base.cache_bytes
    cache = "·" if same else f"{a.cache_bytes_per_token:,.0f}"
    written = "<br>".join(f"`{override}`" for override in choice.overrides.split())
    return f"| {written} | {choice.formula} | {choice.paper} | {parameters} | {flops} | {cache} |"


def counted(overrides: str) -> Costs:
    """Return the costs of a choice at the page's size."""
    config = compose(SIZE, *overrides.split())
    return count_costs(config.model, config.optimizer, GPT2_VOCABULARY)


def draw_sinusoidal(path: Path) -> None:
    """Draw the matrix that is added to the embeddings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        SinusoidalPosition(128, 256).table.T, cmap="RdBu", aspect="auto", interpolation="nearest"
    )
    axes.set(xlabel="position", ylabel="column of the embedding")
    figure.colorbar(image, ax=axes)
    figure.savefig(path, dpi=110)


def draw_masks(path: Path) -> None:
    """Draw the attention masks, and the layers of a hybrid."""
    from matplotlib.figure import Figure

    masks: list[tuple[str, Mask]] = [
        ("full", Causal()),
        ("sliding_window, window=8", SlidingWindow(8)),
        ("strided, window=4, stride=8", Strided(8, 4)),
    ]
    figure = Figure(figsize=(9.6, 3), layout="constrained")
    *panels, schedule = figure.subplots(1, 4)
    for axes, (title, mask) in zip(panels, masks, strict=True):
        axes.imshow(
            AttentionPattern(mask).dense(32, torch.device("cpu")), cmap="Blues", vmin=0, vmax=1.3
        )
        axes.set(xlabel="key", ylabel="query")
        axes.set_title(title, fontsize=9)
    layers = range(6)
    small = [
        "model.num_layers=6",
        "model.context_length=32",
        "model.attention.members.local.window=8",
    ]
    hybrid = compose("model/attention=hybrid", *small).model.attention
    windows = [getattr(of_layer(hybrid, layer), "window", None) for layer in layers]
    reach = [window or 32 for window in windows]
    colours = ["tab:orange" if window else "tab:blue" for window in windows]
    schedule.barh(layers, reach, color=colours)
    schedule.set(xlabel="tokens attended to", ylabel="layer")
    schedule.set_title("hybrid, pattern=[local, global]", fontsize=9)
    figure.savefig(path, dpi=110)


def draw_activations(path: Path) -> None:
    """Draw the nonlinearities of the feed-forward networks."""
    from matplotlib.figure import Figure

    from lmlab.model.ffn.glu import GATES
    from lmlab.model.ffn.mlp import ACTIVATIONS

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    x = torch.linspace(-4, 2, 400)
    functions: list[tuple[str, Callable[[Tensor], Tensor]]] = [*GATES.items(), *ACTIVATIONS.items()]
    for name, function in dict(functions).items():
        if name != "gelu_tanh":  # indistinguishable from gelu
            axes.plot(x, function(x), label=name)
    axes.set(xlabel="x", ylim=(-0.5, 2.2))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
