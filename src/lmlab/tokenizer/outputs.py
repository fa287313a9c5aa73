"""Files that appear complete or not at all, and say in one line why not."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lmlab.errors import DataError
from lmlab.files import atomic_write


@contextlib.contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """`atomic_write`; a full disk and the like are a DataError that names `path`."""
    try:
        with atomic_write(path, mode) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
