"""Finding the runs of a sweep that exist, whatever their directories are named."""

from pathlib import Path

from lmlab.config import load_yaml
from lmlab.errors import UserError
from lmlab.layout import CONFIG
from lmlab.runs.names import DIGITS
from lmlab.runs.run import RESULT


class ExistingRuns:
    """The run directories in the folder of a sweep, by the fingerprint of their configuration.

    Runs that an earlier, smaller sweep or an earlier version named otherwise are found, too. Of two
    runs with one fingerprint, a finished one is taken.
    """

    def __init__(self, folder: Path) -> None:
        paths = folder.iterdir() if folder.is_dir() else ()
        runs = sorted(path for path in paths if (path / CONFIG).is_file())
        runs.sort(key=lambda path: (path / RESULT).exists())
        self._by_name = {path.name.rpartition("_")[2]: path for path in runs}
        self._by_content: dict[str, Path] | None = None
        self._runs = runs

    def find(self, fingerprint: str) -> Path | None:
        """Return the run with a fingerprint; reads configurations only when no name ends in it."""
        named = self._by_name.get(fingerprint[:DIGITS])
        if named is not None:
            return named
        if self._by_content is None:
            self._by_content = {}
            for path in self._runs:
                try:
                    self._by_content[load_yaml(path / CONFIG).fingerprint()] = path
                except UserError:  # a damaged file, or of a later version
                    continue
        return self._by_content.get(fingerprint)
