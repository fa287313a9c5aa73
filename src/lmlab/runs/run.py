"""The run directory: configuration, tokenizer, checkpoints, metrics, result."""

import contextlib
import json
import math
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout
from tqdm import tqdm

from lmlab.errors import NO_SPACE, DataError, UserError
from lmlab.files import atomic_write, fsync_directory, remove_if_empty
from lmlab.layout import CONFIG, TOKENIZER

if TYPE_CHECKING:
    from lmlab.tokenizer import Tokenizer

METRICS, SAMPLES, RESULT = "metrics.jsonl", "samples.txt", "result.json"
ENVIRONMENT, ACCOUNT, LOCK = "environment.json", "account.json", ".lock"
DATA, LINEAGE = "data.json", "lineage.json"
ROLLOUTS = "rollouts.jsonl"
GROWING = (METRICS, SAMPLES, ROLLOUTS)
"""Files that a run appends to."""


class Run:
    """A directory that one process at a time writes a run into; use it as a context manager.

    Raises UserError when another process uses the directory, or when it cannot be written to. A
    new run that fails by a UserError before its first metrics leaves no directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stop_signal: signal.Signals | None = None
        self._loggers: list[Callable[[dict[str, Any]], None]] = []
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(
                f"the run directory cannot be {directory}: a file is in its place; "
                "give another hydra.run.dir="
            ) from error
        self._lock = FileLock(directory / LOCK)

    def __enter__(self) -> Self:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{self.directory} is in use by another process") from None
        self._is_new = not (self.directory / CONFIG).exists()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._lock.release()
        never_began = isinstance(error, UserError) and self._is_new and not self._size(METRICS)
        names = [path.name for path in self.directory.iterdir()]
        if never_began or (error is not None and names == [LOCK]):
            self._remove()
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise UserError(
                f"{error.strerror} while writing in {self.directory}; "
                f"free disk space and continue with resume={self.directory}"
            ) from error

    def _remove(self) -> None:
        """Remove what this class wrote, and the directory when nothing else is in it."""
        for name in (LOCK, CONFIG, ENVIRONMENT, ACCOUNT, DATA, LINEAGE):
            (self.directory / name).unlink(missing_ok=True)
        for name in (TOKENIZER, f".{TOKENIZER}.tmp"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        remove_if_empty(self.directory)

    @contextlib.contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Let SIGINT, SIGTERM and SIGUSR2 stop the run after its step; a second SIGINT at once.

        Slurm sends SIGUSR2 before a job's time limit.
        """
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
        before = [signal.signal(number, self._on_signal) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop_signal is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.stop_signal is None:  # the first is the reason: Slurm sends two at a time limit
            self.stop_signal = signal.Signals(number)
            self.say(f"{self.stop_signal.name}: saving and stopping after this step")

    def add_logger(self, log: Callable[[dict[str, Any]], None]) -> None:
        """Send every row of metrics to `log` too."""
        self._loggers.append(log)

    def log(self, row: dict[str, Any]) -> None:
        """Append one row to `metrics.jsonl`; numbers that are not finite are written as null."""
        finite = {k: _finite(v) for k, v in row.items()}
        with (self.directory / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")
        for log in self._loggers:
            log(row)

    def sample(self, step: int, text: str) -> None:
        """Append generated text to `samples.txt`."""
        with (self.directory / SAMPLES).open("a", encoding="utf-8") as file:
            file.write(f"=== step {step} ===\n{text}\n\n")

    def rollout(self, record: dict[str, Any]) -> None:
        """Append the record of a rollout to `rollouts.jsonl`."""
        with (self.directory / ROLLOUTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def position(self) -> dict[str, int]:
        """Return the size in bytes of each file that only grows."""
        return {name: self._size(name) for name in GROWING}

    def rewind(self, position: dict[str, int]) -> None:
        """Cut each file back to its size in `position`, so that no step is logged twice."""
        for name in GROWING:
            if self._size(name) > position.get(name, 0):
                with (self.directory / name).open("r+b") as file:
                    file.truncate(position.get(name, 0))

    def _size(self, name: str) -> int:
        path = self.directory / name
        return path.stat().st_size if path.exists() else 0

    def say(self, text: str) -> None:
        """Print a line beside the progress bar."""
        tqdm.write(text, file=sys.stderr)

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Publish a JSON file in the directory."""
        finite = {k: _finite(v) for k, v in values.items()}
        with atomic_write(self.directory / name) as file:
            json.dump(finite, file, indent=2)
            file.write("\n")

    def begin(self, config: str, environment: dict[str, Any]) -> None:
        """Write config.yaml and environment.json; a resumed run keeps both and notes the resume."""
        path = self.directory / ENVIRONMENT
        if path.exists() and (self.directory / CONFIG).exists():
            first = read_json(path)
            first.setdefault("resumed", []).append(environment)
            environment = first
        else:
            self._write_text(CONFIG, config)
        self.write_json(ENVIRONMENT, environment)

    def has_tokenizer(self) -> bool:
        """Whether the directory has its own tokenizer."""
        return (self.directory / TOKENIZER).is_dir()

    def keep_data(self, tokenizer: "Tokenizer", record: dict[str, Any]) -> None:
        """Keep the tokenizer, and in data.json what the data were; both are published atomically.

        Raises UserError when a resumed run has other data than it began with.
        """
        path = self.directory / DATA
        if path.exists() and (changed := changed_data(read_json(path), record)):
            raise UserError(
                f"{self.directory}: its data are no longer those it began with (another "
                f"{', '.join(changed)}); put them back, or start a new run with "
                f"init_from={self.directory}"
            )
        if not self.has_tokenizer():
            temporary = self.directory / f".{TOKENIZER}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
            tokenizer.save(temporary)
            temporary.replace(self.directory / TOKENIZER)
            fsync_directory(self.directory)
        if not path.exists():
            self.write_json(DATA, record)

    def _write_text(self, name: str, text: str) -> None:
        with atomic_write(self.directory / name) as file:
            file.write(text)

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished or diverged run, None for any other."""
        path = self.directory / RESULT
        return read_json(path) if path.exists() else None


def changed_data(before: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Return what of the data in a data.json is another in a record."""
    return [k for k in before if k != "fingerprint" and before[k] != record.get(k)]


def read_json(path: Path) -> dict[str, Any]:
    """Return the keys and values of a file in a run directory; DataError when it is damaged."""
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); repair it or remove it") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class NullRun(Run):
    """The run directory in a process other than rank 0: it receives signals and writes nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def log(self, row: dict[str, Any]) -> None:
        """Leave it to rank 0."""

    def sample(self, step: int, text: str) -> None:
        """Leave it to rank 0."""

    def rollout(self, record: dict[str, Any]) -> None:
        """Leave it to rank 0."""

    def rewind(self, position: dict[str, int]) -> None:
        """Leave it to rank 0."""

    def say(self, text: str) -> None:
        """Leave it to rank 0."""

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Leave it to rank 0."""

    def begin(self, config: str, environment: dict[str, Any]) -> None:
        """Leave it to rank 0."""

    def keep_data(self, tokenizer: "Tokenizer", record: dict[str, Any]) -> None:
        """Leave it to rank 0."""
