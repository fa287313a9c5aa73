"""What a cleaning run does: phases, one after the other, of tasks that do not need each other."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from lmlab.cleaning.build import build
from lmlab.cleaning.config import StepBase
from lmlab.cleaning.document import Document, Step
from lmlab.cleaning.exact_lines import ExactLines, LineStore
from lmlab.cleaning.job import Job, Record
from lmlab.cleaning.minhash import MinHashStore, Survivors
from lmlab.cleaning.passes import PassCount, Progress, Sink, run_pass
from lmlab.cleaning.pipeline_config import CleanConfig, ExactLinesConfig, MinHashConfig
from lmlab.cleaning.reading import read_documents
from lmlab.cleaning.written import JsonLinesWriter, read_written, writer


@dataclass(frozen=True)
class Phase:
    """Tasks that do not need each other; those of the phase before are done."""

    name: str
    tasks: int
    run: Callable[[int, Progress], Record]
    per_file: bool
    """There is a task for each input file."""


class Lines:
    """Exact deduplication of lines, between two passes."""

    def __init__(self, job: Job, number: int, config: ExactLinesConfig) -> None:
        self.config = config
        self.store = LineStore(job.work / f"lines-{number}", len(job.inputs), job.partitions)

    def sink(self, file: int) -> AbstractContextManager[Sink]:
        """Return what the pass before hands its documents to."""
        return self.store.writer(file)

    def stages(self) -> Iterator[tuple[str, int, Callable[[int, Progress], object]]]:
        """Yield name, number of tasks and work of each stage between the passes."""
        yield "merge-lines", self.store.partitions, lambda task, progress: self.store.merge(task)

    def step(self, file: int) -> Step:
        """Return what the pass after applies to the documents of a file."""
        return ExactLines(self.store.repeated_in(file), self.config.criteria())


class NearDuplicates:
    """MinHash and LSH, between two passes."""

    def __init__(self, job: Job, number: int, config: MinHashConfig) -> None:
        self.job, self.number = job, number
        directory = job.work / f"minhash-{number}"
        self.store = MinHashStore(directory, config, len(job.inputs), job.partitions)

    def sink(self, file: int) -> AbstractContextManager[Sink]:
        """Return what the pass before hands its documents to."""
        return self.store.writer(file)

    def stages(self) -> Iterator[tuple[str, int, Callable[[int, Progress], object]]]:
        """Yield name, number of tasks and work of each stage between the passes."""
        store = self.store
        yield "buckets", store.partitions, lambda task, progress: store.bucket(task)
        yield "shingles", store.files, self._shingles
        yield "verify", store.partitions, lambda task, progress: store.verify(task)
        yield "cluster", 1, lambda task, progress: store.cluster()

    def _shingles(self, file: int, progress: Progress) -> None:
        def texts() -> Iterator[str]:
            for document in read_written(self.job.between(file, self.number)):
                progress(1, 0)
                yield document.text

        self.store.write_shingles(file, texts())

    def step(self, file: int) -> Step:
        """Return what the pass after applies to the documents of a file."""
        return Survivors(self.store.members(file))


Between = Lines | NearDuplicates


@dataclass(frozen=True)
class _Pass:
    number: int
    before: Between | None
    steps: tuple[StepBase, ...]
    after: Between | None


def plan(job: Job) -> list[Phase]:
    """Return the phases of a run, which depend on its configuration and input files alone."""
    phases: list[Phase] = []
    for part in _passes(job):
        phases.append(
            Phase(pass_name(part.number), len(job.inputs), _run(job, part), per_file=True)
        )
        if part.after is not None:
            for name, tasks, work in part.after.stages():
                run = _recorded(work)
                phases.append(Phase(f"{part.number}-{name}", tasks, run, name == "shingles"))
    return phases


def check(config: CleanConfig) -> None:
    """Build every step once, so that a missing package or file is said before the work begins."""
    for step in config.cleaning.steps.values():
        if not isinstance(step, ExactLinesConfig | MinHashConfig):
            build(step)


def pass_name(number: int) -> str:
    """Return the name of a pass over the documents."""
    return f"{number}-clean"


def count_passes(job: Job) -> int:
    """Return how many times a run reads all documents and writes them."""
    return len(_passes(job))


def _passes(job: Job) -> list[_Pass]:
    passes: list[_Pass] = []
    before: Between | None = None
    steps: list[StepBase] = []
    for step in job.config.cleaning.steps.values():
        number = len(passes)
        after: Between
        if isinstance(step, ExactLinesConfig):
            after = Lines(job, number, step)
        elif isinstance(step, MinHashConfig):
            after = NearDuplicates(job, number, step)
        else:
            steps.append(step)
            continue
        passes.append(_Pass(number, before, tuple(steps), after))
        before, steps = after, []
    return [*passes, _Pass(len(passes), before, tuple(steps), None)]


def _run(job: Job, part: _Pass) -> Callable[[int, Progress], Record]:
    def run(file: int, progress: Progress) -> Record:
        counts = PassCount()
        number = part.number
        steps = [] if part.before is None else [part.before.step(file)]
        steps += [_built(step) for step in part.steps]
        sinks: list[AbstractContextManager[Any]]
        if part.after is None:
            sinks = [writer(job.shard(file), job.config.format)]
        else:
            between = JsonLinesWriter(job.between(file, number), brief=True)
            sinks = [between, part.after.sink(file)]
        source = _source(job, number, file, counts, progress)
        run_pass(source, steps, sinks, job.removed(file, number), counts, progress)
        return asdict(counts)

    return run


_BUILT: dict[str, Step] = {}
"""Configuration -> step: this process may do many tasks, and a step may read a model."""


def _built(config: StepBase) -> Step:
    key = config.model_dump_json()
    if key not in _BUILT:
        _BUILT[key] = build(config)
    return _BUILT[key]


def _source(
    job: Job, number: int, file: int, counts: PassCount, progress: Progress
) -> Iterator[Document]:
    def advance(size: int) -> None:
        progress(0, size)

    if number == 0:
        return read_documents(job.inputs[file].path, job.config.read, counts.report, advance)
    return read_written(job.between(file, number - 1), advance)


def _recorded(work: Callable[[int, Progress], object]) -> Callable[[int, Progress], Record]:
    def run(task: int, progress: Progress) -> Record:
        work(task, progress)
        return {}

    return run


def run_task(job: Job, phase: Phase, task: int, progress: Progress = lambda *_: None) -> None:
    """Do one task, unless it is done."""
    if not job.is_done(phase.name, task):
        job.write_record(phase.name, task, phase.run(task, progress))
