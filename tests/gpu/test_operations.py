"""What the operations of a Transformer read and write, against sums by hand."""

import pytest

from lmlab.accounting.count import count_parameters
from lmlab.gpu.roofline import Work
from lmlab.gpu.roofline_cli import shape_of
from lmlab.gpu.transformer import Phase, operations
from lmlab.model import build
from tests_support import composed

BATCH, TOKENS, VOCAB = 3, 64, 50257
ROWS = BATCH * TOKENS
LAYERS, WIDTH = 12, 768
STREAM = ROWS * WIDTH
"""Elements of the residual stream of model=small."""


def works(phase: Phase, *choices: str, precision: str = "bf16") -> dict[str, Work]:
    shape = shape_of(composed("model=small", *choices).model)
    return {w.name: w for w in operations(shape, phase, BATCH, TOKENS, precision)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "forward", "backward", "choices"),
    [
        # Tensors that are read and written.
        ("attention", 3 + 1, 5 + 3, []),
        ("norms", 1 + 1, 2 + 1, []),
        ("QK norms", 1 + 1, 2 + 1, ["model.attention.qk_norm=true"]),
        ("residual sums", 2 + 1, 2 + 1, []),
        ("rotations", 1 + 1, 1 + 1, []),
        ("activations", 2 + 1, 3 + 2, []),
        ("activations", 1 + 1, 2 + 1, ["model/ffn=mlp"]),
        ("embedding", 1 + 1, 1 + 1, ["model.tie_embeddings=true"]),
        ("embedding scale", 1 + 1, 1 + 1, ["model.scale_embeddings=true"]),
        ("Q, K, V projections", 1, 2, []),  # one product, then two of the same sizes
        ("feed-forward down", 1, 2, []),
    ],
)
def test_a_backward_pass_moves_what_it_must(
    name: str, forward: int, backward: int, choices: list[str]
) -> None:
    only_forward, both = works("prefill", *choices)[name], works("training", *choices)[name]
    assert both.bytes * forward == pytest.approx(only_forward.bytes * (forward + backward))
    assert both.flops <= 3.5 * only_forward.flops


def test_gradients_of_tables_are_written_once() -> None:
    step = works("training", "model/position=learned")
    assert step["embedding"].bytes == 2 * 3 * STREAM + 4 * VOCAB * WIDTH
    vectors = 2 * TOKENS * WIDTH
    assert step["added positions"].bytes == 2 * 3 * STREAM + vectors + 4 * 1024 * WIDTH
    tied = works("training", "model.tie_embeddings=true")["embedding"]
    assert tied.bytes == 2 * 4 * STREAM
    fixed = {phase: works(phase, "model/position=sinusoidal")["added positions"].bytes
             for phase in ("training", "prefill", "decode")}  # type: ignore[misc]  # fmt: skip
    assert fixed["training"] == fixed["prefill"] == 2 * (2 * STREAM + TOKENS * WIDTH)
    assert fixed["decode"] == 2 * (2 * BATCH * WIDTH + WIDTH)


def test_weights_are_cast_and_their_gradients_back() -> None:
    step = works("training")
    assert step["gradients cast"] == Work("gradients cast", 0.0, step["weights cast"].bytes, "fp32")
    for precision in ("fp32", "tf32"):
        assert not any("cast" in name for name in works("training", precision=precision))


def test_a_norm_stands_before_the_head() -> None:
    assert works("training")["final norm"].bytes == 2 * 5 * STREAM
    assert works("prefill")["final norm"].bytes == 2 * 2 * BATCH * WIDTH  # of the last tokens
    for choice in ("model.norm_placement=post", "model.norm=none"):
        assert "final norm" not in works("training", choice)
    assert "final norm" in works("training", "model.norm_placement=double")


def test_soft_capped_logits_are_an_operation_of_their_own() -> None:
    choice = "model.logit_softcap=30"
    assert "soft-capped logits" not in works("training")
    assert works("training", choice)["soft-capped logits"].bytes == 2 * 5 * ROWS * VOCAB
    assert works("decode", choice)["soft-capped logits"].bytes == 2 * 2 * BATCH * VOCAB
    scores = "model.attention.logit_softcap=50"  # on the chip
    assert works("training", scores) == works("training")


def test_queries_and_keys_are_normalised_alike() -> None:
    choices = ("model.attention.qk_norm=true", "model.attention.num_kv_heads=4")
    heads = (12 + 4) * 64
    assert works("training", *choices)["QK norms"].bytes == LAYERS * 2 * 5 * ROWS * heads


@pytest.mark.parametrize(
    ("choices", "elements"),
    [
        (["model.attention.bias=qkv"], 3 * WIDTH),
        (["model.attention.bias=qkv", "model.attention.num_kv_heads=4"], WIDTH + 2 * 4 * 64),
        (["model.attention.bias=all"], 4 * WIDTH),
        (["model/ffn=mlp", "model.ffn.bias=true"], 3072 + WIDTH),
    ],
)
def test_gradients_are_summed_for_biases(choices: list[str], elements: int) -> None:
    assert "biases" not in works("training")
    assert works("decode", *choices)["biases"].bytes == LAYERS * 2 * elements
    summed = LAYERS * elements * (2 + 2 * ROWS + 4)
    assert works("training", *choices)["biases"].bytes == summed


@pytest.mark.parametrize(
    "choices",
    [
        [],
        ["model.attention.bias=all", "model/ffn=mlp", "model.ffn.bias=true"],
        ["model.attention.qk_norm=true", "model.attention.num_kv_heads=4"],
        ["model.norm=layernorm", "model.norm_placement=double"],
        ["model.norm_placement=post", "model.tie_embeddings=true"],
        ["model.norm=none"],
        ["model.block=parallel", "model/position=learned"],
    ],
)
def test_all_parameters_are_updated(choices: list[str]) -> None:
    model = build(composed("model=small", *choices).model, VOCAB, device="meta")
    assert works("training", *choices)["AdamW"].bytes == 28 * count_parameters(model)
