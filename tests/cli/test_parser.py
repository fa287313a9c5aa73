"""Where overrides may stand in a command line of `lmlab`."""

import pytest

from lmlab.cli import build_parser

WANTED = ["a.b=1", "+c=[2,3]", "~d="]


@pytest.mark.parametrize(
    "line",
    [
        ["profile", *WANTED, "--steps", "1"],
        ["profile", WANTED[0], "--steps", "1", *WANTED[1:]],
        ["profile", "--steps", "1", *WANTED],
        ["benchmark", "steps", "--sizes", "tiny", *WANTED],
        ["benchmark", "steps", *WANTED[:2], "--warmups", "0", "1", *WANTED[2:], "--batch", "1"],
        ["gpu", "roofline", WANTED[0], "--batch", "2", *WANTED[1:]],
    ],
)
def test_overrides_stand_before_between_and_after_options(line: list[str]) -> None:
    assert build_parser().parse_args(line).overrides == WANTED


def test_a_value_with_an_equals_sign_is_no_override() -> None:
    found = build_parser().parse_args(["profile", "--output", "lr=1/profile", "lr=2"])
    assert (str(found.output), found.overrides) == ("lr=1/profile", ["lr=2"])
    found = build_parser().parse_args(["profile", "--output", "lr=1", "lr=1"])
    assert (str(found.output), found.overrides) == ("lr=1", ["lr=1"])
    found = build_parser().parse_args(["sweep", "resume", "runs/sweeps/lr=1", "slurm.gpus=2"])
    assert (str(found.directory), found.overrides) == ("runs/sweeps/lr=1", ["slurm.gpus=2"])
