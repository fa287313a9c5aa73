"""Where overrides may stand in a command line of `lmlab`."""

import pytest

from lmlab.cli import build_parser
from lmlab.errors import UserError

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


@pytest.mark.parametrize("text", ["-1", "-1e9", "-.5", "-2.5E-3", "-inf", "-1_000"])
def test_a_negative_number_is_a_value_and_no_option(text: str) -> None:
    found = build_parser().parse_args(["gpu", "roofline", "--kernel", text, "1"])
    assert found.kernel == [float(text), 1]


@pytest.mark.parametrize("option", ["-i", "-infer", "--1e9", "-e9"])
def test_what_is_no_number_stays_an_option(option: str) -> None:
    with pytest.raises(UserError, match=f"unrecognized arguments: {option}"):
        build_parser().parse_args(["gpu", "tiling", option])


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (["generate", "run", "--max-tokens", "5"], "lmlab generate"),
        (["import", "a", "b"], "lmlab import"),
        (["tokenizer", "inspect", "a", "--foo"], "lmlab tokenizer inspect"),
        (["plan", "--devices", "2", "--foo", "a=1"], "lmlab plan"),
        (["--foo", "runs"], "lmlab"),
    ],
)
def test_an_unknown_option_names_the_help_of_its_command(line: list[str], command: str) -> None:
    with pytest.raises(UserError, match=rf"unrecognized arguments: .*\(see `{command} --help`\)"):
        build_parser().parse_args(line)


def test_a_value_with_an_equals_sign_is_no_override() -> None:
    found = build_parser().parse_args(["profile", "--output", "lr=1/profile", "lr=2"])
    assert (str(found.output), found.overrides) == ("lr=1/profile", ["lr=2"])
    found = build_parser().parse_args(["profile", "--output", "lr=1", "lr=1"])
    assert (str(found.output), found.overrides) == ("lr=1", ["lr=1"])
    found = build_parser().parse_args(["sweep", "resume", "runs/sweeps/lr=1", "slurm.gpus=2"])
    assert (str(found.directory), found.overrides) == ("runs/sweeps/lr=1", ["slurm.gpus=2"])
