"""The configuration of a whole cleaning run: what is read, the recipe, where and how it runs."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lmlab.cleaning.config import StepBase, StepConfig
from lmlab.cleaning.document import Criterion
from lmlab.data.config import Separator
from lmlab.data.separator import decode_separator
from lmlab.schema import Config, identity

Positive = Annotated[int, Field(ge=1)]


class ReadConfig(Config):
    """How documents are read."""

    field: Annotated[str, Field(min_length=1)]
    """The field of JSON lines, or column of Parquet files, that holds the text."""
    separator: Separator | None
    """What stands between two documents of a plain text file; null: each file is one document.
    Escapes as for `python train.py data=text`: \\n, \\r, \\t, \\f, \\\\, \\xHH, \\uHHHH."""
    max_document_bytes: Positive
    """Longer documents are passed over and counted, so that memory stays bounded."""

    @property
    def separator_bytes(self) -> bytes | None:
        """The separator as UTF-8."""
        return None if self.separator is None else decode_separator(self.separator).encode()


class ExactLinesConfig(StepBase):
    """Drop every line that occurs more than once in the whole set, everywhere."""

    kind: Literal["exact_lines"]

    def criteria(self) -> list[Criterion]:
        """Whether any text is left."""
        return [self.fixed("characters", low=1)]


class MinHashConfig(StepBase):
    """Remove near-duplicates by MinHash and LSH (Broder 1997), verified by their true Jaccard."""

    kind: Literal["minhash"]
    num_hashes: Positive
    """Length of a signature."""
    num_bands: Positive
    """Documents with an equal band are candidates; divides num_hashes."""
    ngrams: Positive
    """Words in a shingle."""
    jaccard_threshold: Annotated[float, Field(gt=0, le=1)]
    """Candidates whose sets of shingles are at least this similar are duplicates."""
    keep: Literal["first", "longest"]
    """The survivor of a cluster: the first in the order of the input, or the one with the most
    characters (of several, the first)."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.num_hashes % self.num_bands:
            raise ValueError(
                f"num_bands={self.num_bands} does not divide num_hashes={self.num_hashes}"
            )
        return self


class DecontaminateConfig(StepBase):
    """Find documents that share n-grams of words with evaluation files."""

    kind: Literal["decontaminate"]
    paths: list[str]
    """Files, folders or patterns of evaluation texts, in any format that is read."""
    field: Annotated[str, Field(min_length=1)]
    """Their field or column that holds the text."""
    ngrams: Positive
    """Words in an n-gram; shorter evaluation texts are not compared."""
    max_shared_ngrams: Annotated[int, Field(ge=0)] | None
    """Documents that share more are removed; null: all are kept, with their score."""

    @field_validator("paths", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def files(self) -> list[str]:
        """The evaluation texts."""
        return self.paths

    def criteria(self) -> list[Criterion]:
        """How many n-grams are shared."""
        return self.criterion("shared_ngrams", high="max_shared_ngrams")


AnyStepConfig = Annotated[
    StepConfig | ExactLinesConfig | MinHashConfig | DecontaminateConfig,
    Field(discriminator="kind"),
]
"""A step of a recipe: on documents one by one, or on the whole set."""


class RecipeConfig(Config):
    """The steps, in order."""

    steps: dict[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], AnyStepConfig]
    """Name -> step; a name is only used on the command line: cleaning.steps.NAME.KEY=VALUE,
    ~cleaning.steps.NAME."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [step.step_name for step in self.steps.values()]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two steps write scores as {name!r}; leave one out")
        return self


class LocalExecutorConfig(Config):
    """Processes of this machine."""

    kind: Literal["local"]
    workers: Positive | None
    """Processes; null: one a core."""


class DatatroveExecutorConfig(Config):
    """Datatrove's local executor (extra `cluster`)."""

    kind: Literal["datatrove"]
    workers: Positive | None
    """Processes; null: one a core."""


class RayExecutorConfig(Config):
    """Datatrove's Ray executor (extra `cluster`): a Ray cluster, or Ray on this machine."""

    kind: Literal["ray"]
    workers: Positive | None
    """Tasks that run at once; null: as many as Ray has cores."""
    cpus_per_task: Positive
    """Cores that Ray reserves for a task."""
    mem_per_cpu_gb: Annotated[float, Field(gt=0)]
    """Memory that Ray reserves for each core."""


class SlurmExecutorConfig(Config):
    """Datatrove's Slurm executor (extra `cluster`): job arrays, each after the one before."""

    kind: Literal["slurm"]
    partition: Annotated[str, Field(min_length=1)]
    """Of the cluster."""
    tasks: Positive
    """Elements of each array, over which the input files spread."""
    workers: Positive | None
    """Elements that run at once; null: all."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")]
    """Limit of an element: hours:minutes:seconds."""
    cpus_per_task: Positive
    """Cores of an element."""
    mem_per_cpu_gb: Positive
    """Memory for each core."""
    qos: str | None
    """Quality of service; null: the partition's."""
    sbatch: dict[str, str | int]
    """Further options of sbatch: name -> value."""


ExecutorConfig = Annotated[
    LocalExecutorConfig | DatatroveExecutorConfig | RayExecutorConfig | SlurmExecutorConfig,
    Field(discriminator="kind"),
]
"""Where the tasks run; the result does not depend on it."""


class CleanConfig(Config):
    """Everything that determines a cleaning run."""

    NOT_IDENTITY = frozenset({"output", "executor", "input"})

    input: list[str]
    """Files, folders or patterns (`**` descends): WARC, WET, WAT, HTML, JSON lines, Parquet or
    plain text, each also as .gz or .zst."""
    output: Path
    """The directory of the result."""
    format: Literal["jsonl", "parquet"]
    """Of the kept documents: jsonl.zst or Parquet."""
    read: ReadConfig
    cleaning: RecipeConfig
    executor: ExecutorConfig

    @field_validator("input", mode="before")
    @classmethod
    def _one_input(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def fingerprint(self) -> str:
        """Return a hash of what determines the result beside the input files, 16 digits."""
        text = json.dumps(identity(self))  # the order of the steps matters
        return hashlib.sha256(text.encode()).hexdigest()[:16]
