"""What environment.json says of the source tree."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lmlab.runs import environment
from lmlab.runs.environment import revision

UNKNOWN = {"git_commit": None, "git_dirty": None}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one module, outside of any repository."""
    module = tmp_path / "lmlab" / "runs" / "environment.py"
    module.parent.mkdir(parents=True)
    shutil.copy(environment.__file__, module)
    monkeypatch.setattr(environment, "__file__", str(module))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_changes_of_the_source_tree(package: Path) -> None:
    git(package, "init")
    git(package, "add", ".")
    git(package, "commit", "-m", "first")
    assert revision()["git_dirty"] is False
    (package / "more.py").touch()
    assert revision()["git_dirty"] is True
    assert len(str(revision()["git_commit"])) == 40


def test_without_a_repository_nothing_is_known(package: Path) -> None:
    assert revision() == UNKNOWN


def test_without_git_nothing_is_known(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(package, "init")
    monkeypatch.setenv("PATH", "")
    assert revision() == UNKNOWN
