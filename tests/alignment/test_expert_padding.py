"""What experts are judged by does not depend on padding."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lmlab.alignment.batches import Demonstrations, PreferencePairs, Preferences, Supervised
from lmlab.alignment.beginnings import beginnings
from lmlab.alignment.experience import Experience
from lmlab.alignment.objectives import PreferenceObjective, SupervisedObjective
from lmlab.alignment.policy_gradient import PolicyGradient, PolicyGradientSettings
from lmlab.alignment.sequences import TokenSequence, joined
from lmlab.model import Transformer, build
from lmlab.training.batch import Batch
from lmlab.training.objective import Objective
from tests_support import composed

LENGTHS = (5, 7)
CONTEXT = 32
SHORTER = 24
"""A context that rows are padded to."""
MODEL = (
    "model/ffn=moe",
    "model.d_model=32",
    "model.num_layers=2",
    f"model.context_length={CONTEXT}",
)


def sequences(count: int) -> list[TokenSequence]:
    """Return sequences of different lengths whose first tokens are given."""
    generator = np.random.default_rng(0)
    lengths = [LENGTHS[number % 2] + 1 for number in range(count)]
    return [TokenSequence(generator.integers(1, 50, n), np.arange(n) >= 3) for n in lengths]


def supervised(model: Transformer, packing: bool) -> tuple[Objective, Batch]:
    rows = Demonstrations(sequences(3), SHORTER, packing=packing, normalization="token")
    return SupervisedObjective(model), rows(range(len(rows.rows)))


def preferences(model: Transformer) -> tuple[Objective, Batch]:
    first, second = sequences(2)
    rows = PreferencePairs([(first, second)], SHORTER, torch.zeros(1, 2))
    return PreferenceObjective(model, "dpo", 0.1), rows([0])


def policy(model: Transformer, numbered: bool) -> tuple[Objective, Batch]:
    tokens = joined([s.ids[:3] for s in sequences(2)], [s.ids[3:] for s in sequences(2)])
    zeros, ones = torch.zeros(tokens.labels.shape), torch.ones(2)
    numbers = beginnings(tokens.input_ids, tokens.response_mask) if numbered else None
    batch = Experience(*tokens, zeros, zeros, torch.zeros(2, 3), ones, beginnings=numbers)
    settings = PolicyGradientSettings("reinforce_with_baseline", "token")
    return PolicyGradient(model, settings), batch


def wider(part: Tensor | None, value: int) -> Tensor | None:
    """Return a part of a batch with eight columns more where it has one for each token."""
    if part is None or part.ndim < 2 or part.shape[-1] < 5:
        return part
    return torch.cat((part, part.new_full((*part.shape[:-1], 8), value)), dim=-1)


BATCHES = {
    "sft": lambda model: supervised(model, packing=False),
    "packed": lambda model: supervised(model, packing=True),
    "dpo": preferences,
    "rollout": lambda model: policy(model, numbered=False),
    "batch of a rollout": lambda model: policy(model, numbered=True),
}


@pytest.mark.parametrize("way", ["eager", "checkpointed", "compiled"])
@pytest.mark.parametrize("name", BATCHES)
def test_losses_and_loads_of_experts_do_not_depend_on_padding(name: str, way: str) -> None:
    torch.manual_seed(0)
    model = build(composed(*MODEL).model, 50)
    model.checkpoint_activations = way == "checkpointed"
    make: Callable[[Transformer], tuple[Objective, Batch]] = BATCHES[name]
    objective, batch = make(model)
    called = torch.compile(objective, backend="eager") if way == "compiled" else objective
    padding = {"segments": -1, "beginnings": -1}
    assert isinstance(batch, Supervised | Preferences | Experience)
    more = type(batch)(*(wider(x, padding.get(k, 0)) for k, x in batch._asdict().items()))
    found = []
    for each in (batch, more):
        total, terms = called(*each)
        gradient = torch.autograd.grad(total, model.blocks[0].ffn.branch.centroids)
        found.append((terms, gradient, model.take_metrics()))
    torch.testing.assert_close(found[1], found[0])
    assert found[0][0]["moe/load_balancing_loss"] > 0
