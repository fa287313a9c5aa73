"""What docs/gpu.md shows is what its commands print."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from lmlab.cli import main
from lmlab.gpu.names import SHEETS
from tests_support import ROOT

PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```text\n\$ lmlab (.*)\n((?:.+\n)+)```", PAGE))
PREDICTED = re.findall(r"\| `lmlab (gpu roofline .*)` \| (.*) ms \| (.*) \| (.*) ?\|", PAGE)


@pytest.mark.parametrize("command", BLOCKS)
def test_a_command_prints_what_the_page_shows(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load((SHEETS / "H100.yaml").read_text()) | {"bandwidth": -1.0}
    del values["sms"], values["l2"]
    Path("mine.yaml").write_text(yaml.safe_dump(values))
    main(shlex.split(command))
    out, err = capsys.readouterr()
    assert (out + err).rstrip("\n").startswith(BLOCKS[command].rstrip("\n"))


@pytest.mark.parametrize(("command", "ms", "tokens", "mfu"), PREDICTED)
def test_predictions(
    command: str, ms: str, tokens: str, mfu: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(command)) == 0
    out = capsys.readouterr().out
    assert f"at least {ms} ms" in out
    assert f"{tokens} tokens/s at most" in out
    assert not mfu.strip() or f"MFU at most {mfu.strip()} " in out


def test_shares_of_the_first_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(PREDICTED[0][0])) == 0
    out = capsys.readouterr().out
    shares = {name: float(share) for name, share in re.findall(r"(?m)^(\S.*?)  .* ([\d.]+)%", out)}
    bound = re.findall(r"(?m)^(\S.*?)  .*memory$", out)
    assert f"{sum(shares[name] for name in bound):.0f} % of the time is memory traffic" in PAGE
    for name, work in (
        ("AdamW", "AdamW"),
        ("activation functions", "activations"),
        ("the loss", "loss over the vocabulary"),
        ("residual sums", "residual sums"),
    ):
        assert f"{name} {shares[work]:.0f} %" in PAGE


def test_the_page_has_them_all() -> None:
    assert len(BLOCKS) == 7
    assert len(PREDICTED) == 7
    pictures = re.findall(r"\]\((gpu/\w+\.png)\)", PAGE)
    assert {f"gpu/{path.name}" for path in (ROOT / "docs" / "gpu").iterdir()} == set(pictures)
