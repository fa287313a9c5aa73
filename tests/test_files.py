"""Publishing files: what cannot be written is said before the work, by the name that was given."""

import os
from pathlib import Path

import pytest

from lmlab.files import atomic_write, require_writable


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
