"""Muon against torch's own (which computes in bfloat16), and its definition by singular values."""

import pytest
import torch
from torch import Tensor, nn

from lmlab.model import build
from lmlab.optim import AdamW, Muon, build_optimizer, muon
from lmlab.optim.muon import newton_schulz
from tests_support import composed


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (3, 5, 8)])
def test_singular_values_move_to_one_and_the_vectors_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    found = newton_schulz(matrix)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    # The iteration is an odd polynomial of the matrix: it keeps the singular vectors.
    values = u.mT @ found @ vh.mT
    diagonal = values.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(values, torch.diag_embed(diagonal), atol=1e-9, rtol=0)
    normed = s / s.norm(dim=-1, keepdim=True)
    expected = normed
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(diagonal, expected, atol=1e-6, rtol=0)
    large = diagonal[normed > 0.05]
    assert ((large > 0.6) & (large < 1.25)).all()


def test_muon_equals_torch_up_to_its_bfloat16() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((16, 24), (24, 16), (16, 24))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a = Muon([{"params": ours, "muon": True}], lr=1e-2, weight_decay=0.1)
    b = torch.optim.Muon(
        theirs, lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(10):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        # Ten updates of about 0.01 each; bfloat16 keeps eight bits of each.
        torch.testing.assert_close(p, q, atol=2e-3, rtol=0)


def test_batches_of_matrices_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> tuple[list[Tensor], list[int]]:
        sizes: list[int] = []

        def counted(stacked: Tensor, steps: int) -> Tensor:
            sizes.append(len(stacked))
            return newton_schulz(stacked, steps)

        monkeypatch.setattr(muon, "newton_schulz", counted)
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(8, 4)) for _ in range(5)]
        optimizer = Muon([{"params": params, "muon": True}], lr=1e-2)
        for p in params:
            p.grad = torch.randn(p.shape)
        optimizer.step()
        return [p.detach() for p in params], sizes

    whole, sizes = trained()
    assert sizes == [5]
    monkeypatch.setattr(muon, "TOGETHER", 2 * 8 * 4 + 1)
    divided, sizes = trained()
    assert sizes == [2, 2, 1]
    torch.testing.assert_close(divided, whole, atol=1e-6, rtol=0)


def test_other_groups_are_adamw() -> None:
    torch.manual_seed(0)
    p, q = (nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    a = Muon([{"params": [p]}], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    b = AdamW([q], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(5):
        p.grad = torch.randn(4, 4)
        q.grad = p.grad.clone()
        a.step()
        b.step()
    assert torch.equal(p, q)


def test_muon_takes_the_hidden_matrices_alone() -> None:
    config = composed("model=tiny", "optimizer=muon")
    model = build(config.model, 300)
    optimizer = build_optimizer(config.optimizer, model)
    muon = {id(p) for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    for name, p in model.named_parameters():
        assert (id(p) in muon) == (p.ndim >= 2 and "blocks" in name), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_state_survives_saving(optimizer: str) -> None:
    config = composed("model=tiny", "model.d_model=16", f"optimizer={optimizer}")
    results = []
    for interrupted in (False, True):
        torch.manual_seed(0)
        model = build(config.model, 50)
        current = build_optimizer(config.optimizer, model)
        generator = torch.Generator().manual_seed(1)
        for step in range(4):
            if interrupted and step == 2:
                state = current.state_dict()
                current = build_optimizer(config.optimizer, model)
                current.load_state_dict(state)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            current.step()
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_fused_back_end_equals_ours() -> None:
    results = []
    for backend in ("foreach", "fused"):
        config = composed(
            "model=tiny", "model.d_model=16", "optimizer=adamw", f"optimizer.backend={backend}"
        )
        torch.manual_seed(0)
        model = build(config.model, 50)
        optimizer = build_optimizer(config.optimizer, model)
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        results.append(list(model.parameters()))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
