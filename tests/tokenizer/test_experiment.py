"""The tokenizer experiment's command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests_support import ROOT


@pytest.mark.parametrize("held_out", ["missing.txt", "empty.txt", "x" * 300])
def test_text_that_is_not_held_out_is_noticed_before_training(
    tmp_path: Path, held_out: str
) -> None:
    (tmp_path / "text.txt").write_text("some words")
    (tmp_path / "empty.txt").touch()
    command = [sys.executable, ROOT / "experiments" / "tokenizer" / "run.py"]
    texts = ["--text", "words=text.txt", "--held-out", held_out]
    result = subprocess.run(
        [*command, *texts, "--vocab-size", "300", "--work", "work", "--out", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr == f"--held-out {held_out}: give a file that exists and holds text\n"
    assert not list((tmp_path / "work").iterdir())
