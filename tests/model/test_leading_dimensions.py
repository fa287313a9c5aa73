"""Layers on any leading dimensions equal the three-dimensional result."""

from collections.abc import Iterator

import pytest
import torch
from choices import CONTEXT, VOCAB, singles
from choices import name as name_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_choices import made, perturb
from torch import Tensor, nn

from lmlab.model import LayerNorm, Linear, RMSNorm, RotaryEmbedding
from lmlab.model.attention.heads import HeadProjections
from lmlab.model.attention.softmax import SoftmaxAttention
from lmlab.model.block import Parallel, Serial
from lmlab.model.context import Context
from lmlab.model.ffn.glu import GLU
from lmlab.model.ffn.mlp import MLP
from lmlab.model.ffn.moe import MoE
from lmlab.model.position import LearnedPosition, Position, SinusoidalPosition

SINGLES = list(singles())
LEADS = st.lists(st.integers(1, 3), max_size=3).map(tuple)
ATTENTIONS = ("full", "sliding_window", "strided", "linear", "linear_relu", "linear_identity")


def layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield one layer of each kind."""
    kinds = (HeadProjections, GLU, MLP, MoE, RMSNorm, LayerNorm, Linear, Serial, Parallel)
    seen = set()
    for module in model.modules():
        if isinstance(module, kinds) and type(module) not in seen:
            seen.add(type(module))
            yield module


def width(layer: nn.Module) -> int:
    for module in layer.modules():
        if isinstance(module, HeadProjections):
            return module.q_proj.weight.shape[1]
    weight = getattr(layer, "centroids", next(iter(layer.parameters())))
    return weight.shape[-1]


def call(layer: nn.Module, x: Tensor, context: Context) -> Tensor:
    takes_context = isinstance(layer, HeadProjections | Serial | Parallel)
    out = layer(x, context) if takes_context else layer(x)
    assert isinstance(out, Tensor)
    return out


@pytest.mark.parametrize("combination", SINGLES, ids=name_of)
@settings(deadline=None, max_examples=6)
@given(lead=LEADS, time=st.integers(1, CONTEXT), padded=st.booleans())
def test_any_leading_dimensions(
    combination: dict[str, str], lead: tuple[int, ...], time: int, padded: bool
) -> None:
    model = made(combination).eval()
    perturb(model)
    tokens = (*lead, time)
    ids = torch.randint(VOCAB, tokens)
    positions = torch.arange(time)
    if padded:
        positions = positions - torch.randint(2, (*lead, 1))
    flat_positions = positions.reshape(-1, time) if padded else positions
    with torch.no_grad():
        expected = model(ids.reshape(-1, time), flat_positions)
        # Other backends sum in another order; without norms the numbers are large.
        near = {"atol": 1e-5 * max(1.0, expected.abs().max().item()), "rtol": 1e-5}
        torch.testing.assert_close(model(ids, positions), expected.reshape(*tokens, VOCAB), **near)
        if not padded:
            torch.testing.assert_close(model(ids), expected.reshape(*tokens, VOCAB), **near)
        rotation = model.position.rotation(positions.clamp(min=0))
        flat_rotation = model.position.rotation(flat_positions.clamp(min=0))
        for layer in layers(model):
            x = torch.randn(*tokens, width(layer))
            ours = call(layer, x, Context(positions=positions, rotation=rotation))
            flat = Context(positions=flat_positions, rotation=flat_rotation)
            theirs = call(layer, x.reshape(-1, *x.shape[-2:]), flat)
            torch.testing.assert_close(ours, theirs.reshape(ours.shape))
            torch.testing.assert_close(
                call(layer, x[..., None, :, :], flat_view(positions, rotation)),
                ours[..., None, :, :],
            )


def flat_view(positions: Tensor, rotation: Tensor | None) -> Context:
    """Return the context for tokens with one more dimension before the time."""
    if positions.ndim > 1:
        positions = positions.unsqueeze(-2)
        rotation = None if rotation is None else rotation.unsqueeze(-4)
    return Context(positions=positions, rotation=rotation)


@pytest.mark.parametrize("backend", ["eager", "sdpa", "flex", "blocked"])
@pytest.mark.parametrize("attention", ATTENTIONS[:3])
@pytest.mark.parametrize("kv_heads", ["mha", "gqa"])
@pytest.mark.parametrize("lead", [(), (4,), (2, 4), (2, 1, 3)], ids=str)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_backend(backend: str, attention: str, kv_heads: str, lead: tuple[int, ...]) -> None:
    if (backend, attention) == ("blocked", "strided"):
        pytest.skip("refused by the configuration")
    combination = SINGLES[0] | {"attention": attention, "kv_heads": kv_heads}
    layer = next(m for m in made(combination).modules() if isinstance(m, SoftmaxAttention))
    x = torch.randn(*lead, 7, 16)
    with torch.no_grad():
        layer.backend = "eager"
        expected = layer(x.reshape(-1, 7, 16)).reshape(x.shape)
        layer.backend = backend  # type: ignore[assignment]
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_cache_holds_rows_of_a_batch_and_refuses_other_shapes(attention: str) -> None:
    model = made(SINGLES[0] | {"attention": attention}).eval()
    ids = torch.randint(VOCAB, (2, 3, 8))
    for part in (ids, ids[0, 0]):
        with pytest.raises(ValueError, match=r"with a cache, ids are \(batch, time\)"):
            model(part, cache=model.new_cache())
    cache = model.new_cache()
    with torch.no_grad():
        parts = [model(ids[0, :, :5], cache=cache), model(ids[0, :, 5:], cache=cache)]
        torch.testing.assert_close(torch.cat(parts, dim=-2), model(ids[0]))


@pytest.mark.parametrize("attention", ["full", "linear"])
def test_gradients_reach_every_leading_dimension(attention: str) -> None:
    combination = SINGLES[0] | {"attention": attention}
    layer = next(m for m in made(combination).modules() if isinstance(m, HeadProjections))
    x = torch.randn(2, 3, 5, 16, requires_grad=True)
    other = x.detach().flatten(0, 1).requires_grad_()
    layer(x).square().sum().backward()
    layer(other).square().sum().backward()
    assert x.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(x.grad, other.grad.view(2, 3, 5, 16))


def test_shapes_that_do_not_fit_are_refused() -> None:
    model = made(SINGLES[0])
    attention = next(m for m in model.modules() if isinstance(m, HeadProjections))
    with pytest.raises(ValueError, match=r"needs \(..., time, d_model\), got shape \(16,\)"):
        attention(torch.randn(16))
    with pytest.raises(ValueError, match="time dimension"):
        model(torch.tensor(3))
    x = torch.randn(2, 2, 5, 16)
    for shape in ((2, 5), (3, 2, 5), (1, 2, 2, 5), (4,), (1,), ()):
        positions = torch.zeros(shape, dtype=torch.long)
        with pytest.raises(ValueError, match="positions of shape"):
            attention(x, Context(positions=positions))
    for norm in (RMSNorm(8), RMSNorm(1)):
        with pytest.raises(ValueError, match="got an input of shape"):
            norm(torch.randn(3, 5))
    rope = RotaryEmbedding(10.0, 4, 8)
    with pytest.raises(
        ValueError, match="positions of shape"
    ):  # (batch, time) is not (heads, time)
        rope(torch.randn(2, 2, 5, 4), torch.zeros(2, 5, dtype=torch.long))
    added: list[Position] = [SinusoidalPosition(4, 8), LearnedPosition(4, 8), Position()]
    for position in added:
        with pytest.raises(ValueError, match="positions of shape"):
            position.add(torch.randn(2, 2, 5, 4), torch.zeros(2, 5, dtype=torch.long))


def test_routing_and_feed_forward_take_a_single_vector() -> None:
    model = made(SINGLES[0] | {"ffn": "moe"}).eval()
    moe = next(m for m in model.modules() if isinstance(m, MoE))
    x = torch.randn(3, 16)
    torch.testing.assert_close(moe(x[0]), moe(x)[0])
