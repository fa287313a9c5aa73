"""Publishing files: what cannot be written is said before the work, by the name that was given."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lmlab.files import atomic_write, remove_abandoned, require_writable


def test_a_file_that_can_be_written_is_not_made(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "table.md")
    assert list((tmp_path / "new").iterdir()) == []
    require_writable(Path(os.devnull))


@pytest.mark.parametrize("place", [".", "file/table.md", "x" * 300])
def test_an_unwritable_file_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / place
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match=r".") as refused:
        require_writable(path)
    assert str(path).startswith(refused.value.filename)
    with pytest.raises(OSError, match=r"."), atomic_write(path) as file:
        file.write("text")
    assert sorted(tmp_path.iterdir()) == before


def test_only_temporary_files_of_killed_processes_are_abandoned(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from lmlab.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file:\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "killed"], check=False)
    (killed,) = tmp_path.iterdir()
    with atomic_write(tmp_path / "living") as file:
        remove_abandoned(tmp_path)
        file.write("text")
        assert not killed.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["living"]


def test_a_file_abandoned_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def make(prefix: str, suffix: str, dir: Path) -> tuple[int, str]:
        descriptor, name = make_temporary(prefix=prefix, suffix=suffix, dir=dir)
        made.append(name)
        if len(made) == 1:
            remove_abandoned(tmp_path)
        return descriptor, name

    make_temporary = tempfile.mkstemp
    monkeypatch.setattr(tempfile, "mkstemp", make)
    with atomic_write(tmp_path / "a") as file:
        file.write("text")
    assert len(made) == 2
    assert (tmp_path / "a").read_text() == "text"


def test_without_locks_nothing_is_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with atomic_write(tmp_path / "a") as file:
        remove_abandoned(tmp_path)
        file.write("text")
    assert (tmp_path / "a").read_text() == "text"
