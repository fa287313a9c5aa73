"""Files that appear complete or not at all, and say in one line why not."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from lmlab.errors import DataError, UserError
from lmlab.files import atomic_write, is_plain_file


@contextlib.contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """`atomic_write`; a full disk and the like are a DataError that names `path`."""
    try:
        with atomic_write(path, mode) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None


def listed(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]


def check_apart(out: Path, inputs: Sequence[Path]) -> None:
    """Raise a UserError when `out` is one of the inputs, which it would replace."""
    for path in inputs:
        if is_plain_file(path) and is_plain_file(out) and path.samefile(out):
            raise UserError(f"{out}: is an input, which it would replace; write to another file")
