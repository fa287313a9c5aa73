"""The runs that are compared, with names that differ."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmlab.config import load_yaml
from lmlab.layout import CONFIG, checkpoint_of, run_of, step_of


@dataclass(frozen=True)
class Candidate:
    """A run at one of its checkpoints, before it is loaded."""

    name: str
    """Differs from those of the other candidates."""
    directory: Path
    checkpoint: Path


def find_candidates(paths: Sequence[str | Path]) -> list[Candidate]:
    """Return the runs or checkpoints at the paths; raises UserError for what is none."""
    found = []
    for path in paths:
        path = Path(path).expanduser()
        checkpoint = checkpoint_of(path)
        directory = run_of(path)
        name = str(load_yaml(directory / CONFIG).name)
        found.append((name, directory, checkpoint))
    names = distinct_names([(name, d.resolve(), step_of(c)) for name, d, c in found])
    return [
        Candidate(name, directory, checkpoint)
        for name, (_, directory, checkpoint) in zip(names, found, strict=True)
    ]


def distinct_names(runs: Sequence[tuple[str, Path, int]]) -> list[str]:
    """Return the name of each (name, directory, step), made longer where several have the same.

    First by the end of the directory's path, then by the step, at last by a number.
    """
    names = [name for name, _, _ in runs]
    longest = max(len(directory.parts) for _, directory, _ in runs)
    for length in range(1, longest + 1):
        names = [
            _tail(name, directory, length) if _shared(names, runs, index) else names[index]
            for index, (name, directory, _) in enumerate(runs)
        ]
    counts = Counter(names)
    names = [
        f"{name} step {step}" if counts[name] > 1 else name
        for name, (_, _, step) in zip(names, runs, strict=True)
    ]
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result


def _shared(names: Sequence[str], runs: Sequence[tuple[str, Path, int]], index: int) -> bool:
    """Whether another directory has the same name."""
    return any(
        names[other] == names[index] and runs[other][1] != runs[index][1]
        for other in range(len(runs))
    )


def _tail(name: str, directory: Path, length: int) -> str:
    """Return the last parts of a directory's path, after the name of the run."""
    parts = directory.parts[-length:]
    return "/".join(parts if parts[0] == name else (name, *parts))
