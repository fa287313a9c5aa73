"""Every choice alone, and every pair of choices: what must hold of any architecture."""

import itertools
from functools import cache

import pytest
import torch
from choices import (
    BASE,
    CONTEXT,
    VOCAB,
    Combination,
    every_pair,
    meaningful,
    name,
    overrides,
    pairs,
    singles,
)
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmlab.accounting.count import count_parameters, forward_flops
from lmlab.model import Transformer, build
from lmlab.model.attention.softmax import SoftmaxAttention
from lmlab.model.config import ModelConfig
from tests_support import CONF

SINGLES, PAIRS = list(singles()), list(pairs())


@cache
def configured(*overrides: str) -> ModelConfig:
    """Compose the model alone, in half the time of a whole run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("model/tiny", overrides=list(overrides))
    return ModelConfig.model_validate(OmegaConf.to_container(composed.model, resolve=True))


def made(combination: Combination, device: str = "cpu") -> Transformer:
    torch.manual_seed(0)
    return build(configured(*overrides(combination)), VOCAB, device)


def perturb(model: nn.Module) -> None:
    """Move gains and biases, which begin as ones and zeros, to where they matter."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(VOCAB, (2, CONTEXT), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("combination", SINGLES + PAIRS, ids=name)
def test_it_is_a_language_model(combination: Combination, ids: Tensor) -> None:
    model = made(combination).eval()
    perturb(model)

    # Causality: what comes later changes nothing before it, but itself.
    changed, at = ids.clone(), CONTEXT // 2
    changed[:, at] = (changed[:, at] + 1) % VOCAB
    with torch.no_grad():
        logits, other = model(ids), model(changed)
    assert logits.shape == (2, CONTEXT, VOCAB)
    torch.testing.assert_close(other[:, :at], logits[:, :at], atol=1e-5, rtol=1e-5)
    assert (other[:, at] - logits[:, at]).abs().max() > 1e-3

    # Finite gradients, in training mode, for every parameter that can have one.
    model.train()
    loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    sum(model.auxiliary_losses().values(), loss).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name

    # What is counted before anything runs is what is there, and what it does.
    meta = made(combination, "meta")
    assert count_parameters(meta) == sum(p.numel() for p in model.parameters())
    model.eval()
    for module in model.modules():
        if isinstance(module, SoftmaxAttention):
            module.backend = "eager"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids[:1])
    assert forward_flops(meta, CONTEXT) == counter.get_total_flops()


@pytest.mark.parametrize("combination", SINGLES + PAIRS[::3], ids=name)
def test_decoding_with_a_cache_equals_the_full_forward_pass(
    combination: Combination, ids: Tensor
) -> None:
    model = made(combination).eval()
    perturb(model)
    read = model.new_cache()
    with torch.no_grad():
        expected = model(ids)
        parts = [model(ids[:, :4], cache=read), model(ids[:, 4:6], cache=read)]
        parts += [model(ids[:, t : t + 1], cache=read) for t in range(6, CONTEXT)]
    atol = 1e-5 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=atol, rtol=1e-5)
    assert read.length == CONTEXT


@pytest.mark.parametrize("combination", SINGLES[1:], ids=name)
def test_the_choice_changes_the_output(combination: Combination, ids: Tensor) -> None:
    """With the base's weights wherever both have them: it is the choice that is seen."""
    base, model = made(BASE), made(combination)
    perturb(base)
    perturb(model)
    if all(combination[axis] == BASE[axis] for axis in ("init", "parametrization")):
        own = model.state_dict()
        shared = {
            k: v for k, v in base.state_dict().items() if k in own and own[k].shape == v.shape
        }
        model.load_state_dict(shared, strict=False)
    with torch.no_grad():  # in training mode, where dropout drops
        torch.manual_seed(0)
        expected = base(ids)
        torch.manual_seed(0)
        logits = model(ids)
    assert (logits - expected).abs().max() > 1e-3


def test_pairs_cover_every_meaningful_pair() -> None:
    seen = {pair for row in PAIRS for pair in itertools.combinations(row.items(), 2)}
    assert not [pair for pair in every_pair() if pair not in seen]
    assert all(meaningful(row) for row in PAIRS)
