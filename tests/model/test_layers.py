"""The parts of the Transformer against torch's, numpy by hand, and their formulas."""

import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lmlab.model import (
    Embedding,
    LayerNorm,
    Linear,
    RMSNorm,
    RotaryEmbedding,
    SwiGLU,
    scaled_dot_product_attention,
    silu,
    softmax,
)
from lmlab.model.block import Residual
from lmlab.model.ffn.glu import GATES, GLU
from lmlab.model.ffn.mlp import ACTIVATIONS, MLP
from lmlab.model.layers import parallel_linear
from lmlab.model.position import LearnedPosition, SinusoidalPosition


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_linear_equals_torch_on_any_leading_dimensions() -> None:
    for bias in (False, True):
        layer = Linear(5, 3, bias=bias)
        assert layer.weight.shape == (3, 5)
        for shape in ((5,), (2, 5), (2, 4, 5), (0, 5)):
            x = torch.randn(shape)
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_bias_stays_in_the_precision_of_autocast(dtype: torch.dtype) -> None:
    linear = Linear(6, 5, bias=True)
    with torch.autocast("cpu", dtype):
        y = linear(torch.randn(2, 6))
    assert y.dtype == dtype
    y.float().sum().backward()
    assert linear.bias is not None
    assert linear.bias.grad is not None
    assert linear.bias.grad.dtype == torch.float32


def test_linear_and_embedding_are_truncated_normal() -> None:
    for weight, std in (
        (Linear(300, 500).weight, (2 / 800) ** 0.5),
        (Embedding(500, 300).weight, 1.0),
    ):
        # The standard deviation of a normal cut at 3 sigma is 0.9866 sigma.
        assert weight.std().item() == pytest.approx(0.9866 * std, rel=0.01)
        assert weight.abs().max() <= 3 * std
        assert abs(weight.mean().item()) < 0.01 * std


def test_embedding_gathers_rows() -> None:
    table, ids = Embedding(7, 3), torch.tensor([[0, 6], [3, 3]])
    torch.testing.assert_close(table(ids), table.weight[ids])
    table(ids).sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad[:, 0].tolist() == [1, 0, 0, 2, 0, 0, 1]


def test_norms_equal_torch() -> None:
    x = torch.randn(2, 3, 16, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    gain, bias = torch.randn(16), torch.randn(16)
    rms, layer = RMSNorm(16), LayerNorm(16)
    rms.weight.data, layer.weight.data, layer.bias.data = gain, gain, bias
    ours = rms(x) + layer(x)
    theirs = F.rms_norm(other, (16,), gain, 1e-5) + F.layer_norm(other, (16,), gain, bias, 1e-5)
    torch.testing.assert_close(ours, theirs)
    (ours * torch.arange(16)).sum().backward()
    (theirs * torch.arange(16)).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_norms_compute_in_float32(kind: type[RMSNorm] | type[LayerNorm]) -> None:
    norm = kind(8)
    half = (300 * torch.randn(4, 8)).half()  # squares overflow in half precision
    assert norm(half).dtype == torch.float16
    torch.testing.assert_close(norm(half), norm(half.float()).half())
    assert torch.autograd.gradcheck(
        kind(8).double(),
        torch.randn(3, 8, dtype=torch.float64, requires_grad=True),
        eps=1e-3,
        atol=1e-2,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["dense", "transposed", "sliced", "expanded"])
def test_the_gradient_of_rms_norm_equals_torchs(dtype: torch.dtype, layout: str) -> None:
    ours = RMSNorm(24)
    ours.weight.data = torch.randn(24)
    x, upstream = ((torch.randn(3, 5, 24) * 3 + 1).to(dtype) for _ in range(2))
    if layout == "transposed":
        x, upstream = x.transpose(0, 1), upstream.transpose(0, 1)
    elif layout == "sliced":
        x, upstream = torch.cat((x, x), -1)[..., :24], torch.cat((x, upstream), -1)[..., 24:]
    elif layout == "expanded":
        upstream = upstream[:1, :1, :1].expand(x.shape)
    x = x.requires_grad_()
    exact = x.detach().double().requires_grad_()
    weight = ours.weight.detach().double().requires_grad_()
    found = torch.autograd.grad(ours(x), (x, ours.weight), upstream)
    expected = torch.autograd.grad(
        F.rms_norm(exact, (24,), weight, 1e-5), (exact, weight), upstream.double()
    )
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other.to(mine.dtype), check_dtype=False)


def test_layers_of_one_input_equal_each_alone() -> None:
    """Joined in bfloat16, and apart where a layer has a bias or a hook."""
    x = torch.randn(2, 7, 16, requires_grad=True)
    layers = [Linear(16, width) for width in (8, 4, 12)]
    weights = [layer.weight for layer in layers]

    def run(*of: Linear) -> tuple[list[Tensor], list[Tensor]]:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = list(parallel_linear(x, *of))
        total = sum((y.float().square().sum() for y in outputs), torch.zeros(()))
        return outputs, list(torch.autograd.grad(total, (x, *weights)))

    seen: list[str] = []
    joined = run(*layers)
    handle = layers[1].register_forward_hook(lambda *_: seen.append("hook"))
    apart = run(*layers)
    handle.remove()
    assert seen == ["hook"]
    for mine, other in zip(joined[0], apart[0], strict=True):
        torch.testing.assert_close(mine, other)
    for mine, other in zip(joined[1], apart[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-2, atol=2e-2)
    biased = Linear(16, 8, bias=True)
    assert biased.bias is not None
    torch.nn.init.ones_(biased.bias)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(parallel_linear(x, biased)[0], biased(x))


def test_norms_by_hand() -> None:
    x = np.array([3.0, 4.0, 11.0])
    expected = x / np.sqrt((9 + 16 + 121) / 3 + 1e-5)
    np.testing.assert_allclose(RMSNorm(3)(torch.tensor(x)).detach(), expected, rtol=1e-6)
    layer, gain, bias = LayerNorm(3), np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    layer.weight.data, layer.bias.data = torch.tensor(gain).float(), torch.tensor(bias).float()
    expected = (x - 6) / np.sqrt((9 + 4 + 25) / 3 + 1e-5) * gain + bias
    np.testing.assert_allclose(layer(torch.tensor(x)).detach(), expected, rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(1, 9), st.sampled_from([1.0, 1e3, 1e30]))
def test_softmax_equals_torch_and_never_overflows(rows: int, columns: int, scale: float) -> None:
    x = torch.randn(rows, columns) * scale
    for dim in (0, 1, -1):
        torch.testing.assert_close(softmax(x, dim), torch.softmax(x, dim))


def attention_by_hand(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out = np.zeros((len(q), v.shape[1]))
    for i in range(len(q)):
        seen = [j for j in range(len(k)) if mask[i, j]]
        weights = [np.exp(q[i] @ k[j] / np.sqrt(len(q[i]))) for j in seen]
        for j, weight in zip(seen, weights, strict=True):
            out[i] += weight / sum(weights) * v[j]
    return out


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**16))
def test_attention_by_hand(queries: int, keys: int, width: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    q, k, v = (generator.normal(size=(n, width)) for n in (queries, keys, keys))
    mask = generator.random((queries, keys)) < 0.6  # with rows that see nothing
    ours = scaled_dot_product_attention(*(torch.tensor(x) for x in (q, k, v)), torch.tensor(mask))
    np.testing.assert_allclose(ours, attention_by_hand(q, k, v, mask), atol=1e-12)


def test_a_masked_key_has_no_weight_at_all() -> None:
    q, k, v = torch.randn(4, 8), torch.randn(5, 8), torch.randn(5, 8)
    mask = torch.rand(4, 5) < 0.5
    mask[2] = False
    v[:, 0] = 1e30  # where a probability of 1e-30 would show
    one = torch.zeros(5, 8)
    one[:, 0] = 1
    out = scaled_dot_product_attention(q, k, one, mask)
    assert out[2].abs().max() == 0
    out = scaled_dot_product_attention(q, k, v.requires_grad_(), mask)
    out.sum().backward()
    assert v.grad is not None
    assert (v.grad[~mask.any(dim=0)] == 0).all()
    assert v.grad.isfinite().all()


def test_attention_equals_torch_in_value_and_gradient() -> None:
    inputs = [torch.randn(2, 3, 7, 8, requires_grad=True) for _ in range(3)]
    others = [x.detach().clone().requires_grad_() for x in inputs]
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    ours = scaled_dot_product_attention(*inputs, mask)
    theirs = F.scaled_dot_product_attention(*others, attn_mask=mask)
    torch.testing.assert_close(ours, theirs)
    (ours**2).sum().backward()
    (theirs**2).sum().backward()
    for x, other in zip(inputs, others, strict=True):
        torch.testing.assert_close(x.grad, other.grad, atol=1e-5, rtol=1e-5)


def test_activations_equal_their_formulas() -> None:
    x = torch.randn(100)
    formulas = {
        "sigmoid": 1 / (1 + torch.exp(-x)),
        "relu": x.clamp(min=0),
        "gelu": x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "gelu_tanh": 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "silu": silu(x),
        "relu2": x.clamp(min=0) ** 2,
    }
    for name, function in {**GATES, **ACTIVATIONS}.items():
        torch.testing.assert_close(function(x), formulas[name])


def test_feed_forward_formulas() -> None:
    x = torch.randn(2, 3, 8)
    glu = GLU(8, 12, "sigmoid")
    expected = (torch.sigmoid(x @ glu.w1.weight.T) * (x @ glu.w3.weight.T)) @ glu.w2.weight.T
    torch.testing.assert_close(glu(x), expected)
    swiglu = SwiGLU(8, 12)
    expected = (F.silu(x @ swiglu.w1.weight.T) * (x @ swiglu.w3.weight.T)) @ swiglu.w2.weight.T
    torch.testing.assert_close(swiglu(x), expected)
    mlp = MLP(8, 12, "relu2", bias=True)
    torch.nn.init.normal_(mlp.w1.bias)
    torch.nn.init.normal_(mlp.w2.bias)
    hidden = F.relu(F.linear(x, mlp.w1.weight, mlp.w1.bias)) ** 2
    torch.testing.assert_close(mlp(x), F.linear(hidden, mlp.w2.weight, mlp.w2.bias))


def rotated_by_hand(x: Tensor, position: int, theta: float) -> Tensor:
    out = x.double().clone()
    for j in range(len(x) // 2):
        angle = torch.tensor(position * theta ** (-2 * j / len(x)), dtype=torch.float64)
        a, b = x[2 * j].double(), x[2 * j + 1].double()
        out[2 * j] = a * angle.cos() - b * angle.sin()
        out[2 * j + 1] = a * angle.sin() + b * angle.cos()
    return out


def test_rope_by_hand() -> None:
    rope, x = RotaryEmbedding(10000.0, 8, 2048), torch.randn(3, 4, 8)
    positions = torch.tensor([0, 1, 7, 2047])
    out = rope(x, positions)
    for i in range(3):
        for t, position in enumerate(positions.tolist()):
            expected = rotated_by_hand(x[i, t], position, 10000.0)
            torch.testing.assert_close(out[i, t].double(), expected, atol=1e-6, rtol=1e-6)
    assert not rope.state_dict()  # tables are not saved
    batched = rope(x, torch.stack([positions] * 3))
    torch.testing.assert_close(batched, out)


def test_rope_is_relative_and_compiles_to_the_same() -> None:
    rope, q, k = RotaryEmbedding(100.0, 16, 64), torch.randn(16), torch.randn(16)

    def product(i: int, j: int) -> Tensor:
        return rope(q[None], torch.tensor([i]))[0] @ rope(k[None], torch.tensor([j]))[0]

    torch.testing.assert_close(product(5, 3), product(45, 43), atol=1e-5, rtol=1e-5)
    assert not torch.isclose(product(5, 3), product(5, 4))
    x, positions = torch.randn(2, 9, 16), torch.arange(9)
    compiled = torch.compile(rope, backend="eager")  # traces the real arithmetic
    torch.testing.assert_close(compiled(x, positions), rope(x, positions))


def test_rope_keeps_the_type_and_the_gradient_is_the_opposite_rotation() -> None:
    rope = RotaryEmbedding(10000.0, 8, 16)
    x = torch.randn(1, 16, 8, requires_grad=True)
    assert rope(x.bfloat16(), torch.arange(16)).dtype == torch.bfloat16
    weights = torch.randn(1, 16, 8)
    (rope(x, torch.arange(16)) * weights).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(rope(x.grad, torch.arange(16)), weights)


def test_sinusoidal_positions_by_hand() -> None:
    position = SinusoidalPosition(6, 50)
    expected = np.zeros((50, 6))
    for pos in range(50):
        for j in range(3):
            expected[pos, 2 * j] = np.sin(pos / 10000 ** (2 * j / 6))
            expected[pos, 2 * j + 1] = np.cos(pos / 10000 ** (2 * j / 6))
    np.testing.assert_allclose(position.table, expected, atol=1e-6)
    x = torch.randn(2, 3, 6)
    where = torch.tensor([4, 5, 6])
    torch.testing.assert_close(position.add(x, where), x + position.table[4:7])


def test_learned_positions_are_added() -> None:
    position = LearnedPosition(4, 9)
    x, where = torch.randn(2, 3, 4), torch.tensor([[0, 1, 2], [6, 7, 8]])
    torch.testing.assert_close(position.add(x, where), x + position.embedding.weight[where])


def test_norm_placements_are_their_formulas() -> None:
    x, branch, norm = torch.randn(2, 3, 8), Linear(8, 8), RMSNorm(8)
    expected = {
        "pre": x + branch(norm(x)),
        "post": norm(x + branch(x)),
        "double": x + norm(branch(norm(x))),
        "none": x + branch(x),
    }
    for placement, formula in expected.items():
        residual = Residual(branch, placement, lambda: RMSNorm(8))  # type: ignore[arg-type]
        torch.testing.assert_close(residual(x), formula)


def test_rearranged_heads_are_adjacent_columns() -> None:
    x = torch.arange(24.0).view(1, 2, 12)
    split = x.unflatten(-1, (-1, 3)).transpose(1, 2)
    torch.testing.assert_close(split, rearrange(x, "b t (h d) -> b h t d", d=3))
