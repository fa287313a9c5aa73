"""A cleaning run on the disk: its configuration, its input files, and which tasks are done.

A task publishes its files, then its record; a task without a record is done again, and overwrites
what it wrote. Names depend on the input files' order alone, so that nothing is there twice.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmlab.cleaning.partitions import count_partitions
from lmlab.cleaning.pipeline_config import CleanConfig
from lmlab.cleaning.written import SUFFIXES
from lmlab.data.paths import find_files
from lmlab.errors import UserError
from lmlab.files import atomic_write, remove_abandoned
from lmlab.schema import flatten

JOB, MANIFEST, WORK, SHARDS, REMOVED = "job.json", "manifest.json", "work", "shards", "removed"
Record = dict[str, Any]
_NAME = re.compile(r"[^\w.-]+")
_ENDINGS = re.compile(r"(\.(jsonl|ndjson|json|parquet|txt|warc|wet|wat|html?|gz|zst))+$", re.I)


@dataclass(frozen=True)
class InputFile:
    """A file of the input, as it was when the run began."""

    path: Path
    size: int
    modified: int
    """Nanoseconds since 1970."""


@dataclass(frozen=True)
class Job:
    """A cleaning run."""

    config: CleanConfig
    inputs: tuple[InputFile, ...]
    directory: Path
    step_files: tuple[InputFile, ...] | None
    """Models and evaluation texts, as they were when the run began; None: not recorded."""

    @property
    def work(self) -> Path:
        """What the stages leave for each other, removed at the end."""
        return self.directory / WORK

    @property
    def partitions(self) -> int:
        """Into how many parts the hashes of deduplication are divided."""
        return count_partitions(file.size for file in self.inputs)

    def shard(self, file: int) -> Path:
        """Return where the kept documents of an input file go."""
        return self.directory / SHARDS / f"{self.name(file)}{SUFFIXES[self.config.format]}"

    def removed(self, file: int, number: int) -> Path:
        """Return where the documents go that pass `number` removes."""
        return self.directory / REMOVED / f"{self.name(file)}.{number}.jsonl.zst"

    def between(self, file: int, number: int) -> Path:
        """Return where pass `number` leaves documents for the next one."""
        return self.work / f"pass-{number}" / f"{file:05d}.jsonl.zst"

    def name(self, file: int) -> str:
        """Return the name of an input file's outputs: its number and its name."""
        stem = _ENDINGS.sub("", self.inputs[file].path.name)
        return f"{file:05d}-{_NAME.sub('_', stem)[:80]}"

    def record(self, phase: str, task: int) -> Path:
        """Return the file that says that a task is done, and what it found."""
        return self.work / "done" / phase / f"{task:05d}.json"

    def is_done(self, phase: str, task: int) -> bool:
        """Whether a task has been done."""
        return self.record(phase, task).exists()

    def read_record(self, phase: str, task: int) -> Record:
        """Return what a task found."""
        record: Record = json.loads(self.record(phase, task).read_text())
        return record

    def write_record(self, phase: str, task: int, record: Record) -> None:
        """Say that a task is done."""
        with atomic_write(self.record(phase, task)) as file:
            json.dump(record, file)


def start(config: CleanConfig, inputs: Sequence[Path]) -> Job:
    """Return the run in `config.output`: a new one, or one that was begun.

    Raises UserError when it was begun with another configuration or other files.
    """
    directory = config.output
    job = Job(config, _stamps(inputs), directory, _step_files(config))
    if (directory / JOB).exists():
        _check_same(directory, job)
        return job
    with atomic_write(directory / JOB) as file:
        json.dump(_description(job), file, indent=2)
    return job


def check_output(directory: Path) -> None:
    """Raise UserError when a directory holds something else than a cleaning run."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file; give another output directory")
    if directory.is_dir() and not (directory / JOB).exists():
        others = [path.name for path in directory.iterdir() if not path.name.startswith(".")]
        if others:
            raise UserError(
                f"{directory} holds {min(others)} but no cleaning run; give another output "
                "directory"
            )


def open_job(directory: Path) -> Job:
    """Return a run that was begun; raises UserError when there is none."""
    try:
        values = json.loads((directory / JOB).read_text(encoding="utf-8"))
        config = CleanConfig.model_validate(values["config"])
        inputs, step_files = (
            tuple(InputFile(Path(path), *stamp) for path, *stamp in rows)
            for rows in (values["inputs"], values.get("step_files", ()))
        )
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{directory} holds no cleaning run: it has no {JOB}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory / JOB} cannot be read: {str(error).splitlines()[0]}") from None
    return Job(config, inputs, directory, step_files if "step_files" in values else None)


def remove_leftovers(job: Job) -> None:
    """Remove the temporary files of processes that were killed."""
    for folder in (job.directory, *(path for path in job.directory.rglob("*") if path.is_dir())):
        remove_abandoned(folder)


def remove_work(job: Job) -> None:
    """Remove what the stages left for each other."""
    shutil.rmtree(job.work, ignore_errors=True)


def _step_files(config: CleanConfig) -> tuple[InputFile, ...]:
    """Return what the steps read beside the documents."""
    paths = [
        path
        for name, step in config.cleaning.steps.items()
        if (patterns := step.files())
        for path in find_files(f"cleaning.steps.{name}", patterns, Path()).paths
    ]
    return _stamps(sorted(set(paths)))


def _stamps(paths: Sequence[Path]) -> tuple[InputFile, ...]:
    stats = [path.stat() for path in paths]
    return tuple(
        InputFile(path, stat.st_size, stat.st_mtime_ns)
        for path, stat in zip(paths, stats, strict=True)
    )


def _description(job: Job) -> dict[str, Any]:
    def rows(files: tuple[InputFile, ...]) -> list[list[str | int]]:
        return [[str(file.path), file.size, file.modified] for file in files]

    return {
        "fingerprint": job.config.fingerprint(),
        "inputs": rows(job.inputs),
        "step_files": rows(job.step_files or ()),
        "config": job.config.model_dump(mode="json"),
    }


def _check_same(directory: Path, job: Job) -> None:
    began = open_job(directory)
    advice = "give another output directory, or remove it to begin again"
    if began.config.fingerprint() != job.config.fingerprint():
        old, new = (flatten(j.config.model_dump(mode="json")) for j in (began, job))
        hidden = ("output", "executor", "input")
        changed = [
            f"{key}: {json.dumps(old.get(key))} -> {json.dumps(new.get(key))}"
            for key in {**old, **new}
            if old.get(key) != new.get(key) and key.split(".")[0] not in hidden
        ] or ["the order of the steps"]
        raise UserError(
            f"{directory} was begun with another configuration ({', '.join(changed[:5])}); {advice}"
        )
    for what, old_files, new_files in (
        ("input files", began.inputs, job.inputs),
        ("models or evaluation files", began.step_files, job.step_files),
    ):
        if old_files is not None and new_files is not None and old_files != new_files:
            before, now = ({f.path: f for f in files} for files in (old_files, new_files))
            different = sorted(p for p in {**before, **now} if before.get(p) != now.get(p))
            raise UserError(
                f"{directory} was begun with other {what} (first: {different[0]}); {advice}"
            )
