"""The coordinate check: hidden states change as much at all widths in muP, and more without."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lmlab.cli import main
from lmlab.model import build
from lmlab.scaling.coordinates import Coordinates, measure_coordinates
from tests_support import composed

SMALL = (
    "model=tiny",
    "optimizer=adamw",
    "lr=1e-2",
    "model.num_layers=1",
    "model.context_length=16",
)


def test_the_change_of_one_step_is_that_of_torch() -> None:
    """SGD on a model of the base width: the change of the logits by an ordinary loop."""
    shape = ("model.d_model=32", "model.num_heads=2", "model.d_ff=64")
    config = composed(*SMALL, *shape, "optimizer=sgd", "lr=0.1", "optimizer.momentum=0")
    found = measure_coordinates([(config.model, config.optimizer)], 50, steps=1, seeds=1)
    torch.manual_seed(0)
    model = build(config.model, 50)
    ids = torch.randint(50, (8, 17), generator=torch.Generator().manual_seed(0))
    before = model(ids[:, :-1])
    F.cross_entropy(before.flatten(0, 1), ids[:, 1:].flatten()).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            decay = config.optimizer.weight_decay if parameter.ndim >= 2 else 0.0
            assert decay == 0
            parameter -= 0.1 * parameter.grad  # type: ignore[operator]
        change = (model(ids[:, :-1]) - before).square().mean().sqrt().item()
    assert found.layers == ("embedding", "block 1", "logits")
    assert found.changes.shape == (1, 3, 1)
    assert found.changes[0, -1, 0] == pytest.approx(change, rel=1e-4)


def test_exponents_are_slopes() -> None:
    widths = np.array([64, 128, 512])
    changes = np.stack([0.1 * widths**0.5, 3.0 * widths**-0.75], 1)[:, :, None]
    found = Coordinates("mup", (64, 128, 512), ("block 1", "logits"), changes)
    np.testing.assert_allclose(found.exponents, [0.5, -0.75])
    assert found.steepest == ("logits", pytest.approx(-0.75))


def test_hidden_states_change_alike_at_all_widths_in_mup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["scaling", "coordinates", *SMALL, "--widths", "32", "256", "128", "--head-dim", "16"]
    picture = tmp_path / "coordinates.png"
    assert main([*command, "--seeds", "1", "--json", "--plot", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mup"]["widths"] == [32, 128, 256]
    standard, mup = (
        dict(zip(values["layers"], values["exponents"], strict=True)) for values in found.values()
    )
    assert standard["block 1"] > 0.4
    assert abs(mup["block 1"]) < 0.2
    assert mup["logits"] < 0.2 < standard["logits"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--seeds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "Root mean square change after 4 steps, by d_model; change ~ d_model^exponent"
    )
    assert lines[-2].startswith("standard: farthest from 0 is +")


def test_a_loss_that_is_not_finite_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    widths = ("--widths", "32", "64", "--head-dim", "16")
    large = ("optimizer=sgd", "lr=1e30")
    assert main(["scaling", "coordinates", *widths, *SMALL, *large]) == 1
    assert "the loss is not finite at d_model=32" in capsys.readouterr().err
