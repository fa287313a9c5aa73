"""Per-token log-probabilities and entropies against torch's autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.utils._python_dispatch import TorchDispatchMode

from lmlab.model import Linear
from lmlab.model.layers import softcap
from lmlab.training.logprobs import token_log_probs


def definition(head: nn.Module, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    distribution = Categorical(logits=head(hidden).float(), validate_args=False)
    return distribution.log_prob(targets), distribution.entropy()


def inputs(shape: tuple[int, ...], bias: bool = False) -> tuple[Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    head = Linear(6, 11, bias=bias)
    hidden = torch.randn(*shape, 6, requires_grad=True)
    return head, hidden, torch.randint(11, shape)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple),
    st.integers(1, 20),
    st.booleans(),
)
def test_values_and_gradients_equal_torch(shape: tuple[int, ...], chunk: int, bias: bool) -> None:
    head, hidden, targets = inputs(shape, bias)
    weights = torch.randn(2, *shape)  # any upstream gradient
    leaves = [hidden, *head.parameters()]
    ours = token_log_probs(hidden, head, targets, chunk)
    theirs = definition(head, hidden, targets)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == targets.shape
        torch.testing.assert_close(mine, other)
    got = torch.autograd.grad(sum_of(weights, ours), leaves)
    expected = torch.autograd.grad(sum_of(weights, theirs), leaves)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def sum_of(weights: Tensor, results: tuple[Tensor, Tensor]) -> Tensor:
    return (weights[0] * results[0]).sum() + (weights[1] * results[1].square()).sum()


def test_a_result_is_used_twice() -> None:
    """As in a preference loss: a nonlinear function of sums, and two backward passes."""
    head, hidden, targets = inputs((4, 5))
    leaves = [hidden, head.weight]
    gradients = []
    for compute in (lambda: token_log_probs(hidden, head, targets, 3), None):
        log_p = compute()[0] if compute else definition(head, hidden, targets)[0]
        chosen, rejected = log_p.sum(-1).chunk(2)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        first = torch.autograd.grad(loss, leaves, retain_graph=True)
        second = torch.autograd.grad((log_p.exp() * log_p).sum(), leaves)
        gradients.append((first, second))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_an_entropy_has_a_gradient_of_its_own() -> None:
    head, hidden, targets = inputs((4, 5))
    leaves = [hidden, head.weight]
    results = token_log_probs(hidden, head, targets, 3), definition(head, hidden, targets)
    got, expected = (torch.autograd.grad(entropy.square().sum(), leaves) for _, entropy in results)
    torch.testing.assert_close(got, expected)


def test_a_frozen_head_or_hidden_state_gets_no_gradient() -> None:
    head, hidden, targets = inputs((7,))
    head.requires_grad_(False)
    token_log_probs(hidden, head, targets, 3)[0].sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad is None
    head.requires_grad_(True)
    token_log_probs(hidden.detach(), head, targets, 3)[0].sum().backward()
    assert head.weight.grad is not None
    with torch.no_grad():
        assert not token_log_probs(hidden, head, targets, 3)[0].requires_grad


def test_a_function_comes_with_its_parameters() -> None:
    head, hidden, targets = inputs((7,))

    def capped(x: Tensor) -> Tensor:
        return softcap(head(x), 2.0)

    log_p, _ = token_log_probs(hidden, capped, targets, 3, parameters=(head.weight,))
    expected = torch.log_softmax(capped(hidden), dim=-1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(log_p, expected)
    got = torch.autograd.grad(log_p.sum(), [hidden, head.weight])
    torch.testing.assert_close(got, torch.autograd.grad(expected.sum(), [hidden, head.weight]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_that_of_the_forward_pass(dtype: torch.dtype) -> None:
    head, hidden, targets = inputs((9,))
    with torch.autocast("cpu", dtype):
        log_p, entropy = token_log_probs(hidden, head, targets, 4)
        expected = definition(head, hidden, targets)
    assert log_p.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close((log_p, entropy), expected)
    got = torch.autograd.grad(log_p.sum(), [hidden, head.weight])
    want = torch.autograd.grad(expected[0].sum(), [hidden, head.weight])
    torch.testing.assert_close(got, want, atol=2e-2, rtol=2e-2)


def test_an_impossible_token_adds_no_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    log_p, entropy = token_log_probs(logits, lambda x: x, torch.tensor([0]), 1, parameters=())
    torch.testing.assert_close(entropy, torch.tensor([2.0]).log())
    torch.testing.assert_close(log_p, -entropy)


class Largest(TorchDispatchMode):
    """Remembers the most elements of a result."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for result in out if isinstance(out, tuple | list) else [out]:
            if isinstance(result, Tensor):
                self.elements = max(self.elements, result.numel())
        return out


def test_the_logits_of_all_tokens_are_never_in_memory() -> None:
    head, hidden, targets = inputs((40,))
    with Largest() as largest:
        log_p, entropy = token_log_probs(hidden, head, targets, 8)
        (log_p + entropy).sum().backward()
    assert largest.elements == 40 * 6  # the hidden states; logits are 40 x 11


def test_wrong_arguments_are_refused() -> None:
    head, hidden, targets = inputs((3, 4))
    with pytest.raises(ValueError, match=r"\(3, 4, 6\) do not fit targets of shape \(4, 3\)"):
        token_log_probs(hidden, head, targets.T, 2)
    with pytest.raises(ValueError, match="chunk_tokens must be at least 1, got 0"):
        token_log_probs(hidden, head, targets, 0)
    with pytest.raises(ValueError, match="needs its parameters"):
        token_log_probs(hidden, lambda x: x, targets, 2)
