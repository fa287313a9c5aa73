"""Every way to train a model on some devices, with memory and time, and which one to take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from lmlab.accounting.count import flops_by_part
from lmlab.gpu.names import Precision
from lmlab.gpu.sheets import Sheet
from lmlab.model import build
from lmlab.model.config import ModelConfig
from lmlab.optim.config import OptimizerConfig
from lmlab.planning.layout import Layout
from lmlab.planning.layouts import Request
from lmlab.planning.links import Cluster
from lmlab.planning.memory import FLOAT32, Memory, State, peak_memory
from lmlab.planning.optimizer_state import OptimizerBytes, optimizer_bytes
from lmlab.planning.pieces import Pieces, trace
from lmlab.planning.step_time import MicroBatch, Speed, StepTime, Work, step_time
from lmlab.planning.tensor import local_model, tensor_problem

AS_FAST = 1.1
"""Plans within this factor of the fastest are as good, as times are estimates; the simpler one is
taken."""
AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.bfloat16}
"""Dtype of activations by the precision of matrix products; of others float32."""


@dataclass(frozen=True)
class Training:
    """What is trained, of a run's configuration."""

    model: ModelConfig
    optimizer: OptimizerConfig
    vocab_size: int
    batch_size: int
    """Sequences of an optimizer step, all devices together."""
    micro_batch_size: int | None
    """Sequences of a device in one forward pass; None: to be planned."""
    precision: Precision
    """Of matrix products."""
    chunk_tokens: int | None
    """Tokens of which the logits are there together; None: all."""
    checkpointed: bool
    """Whether activations are checkpointed; False: planned with and without."""
    request: Request
    """What of the strategy is given."""


@dataclass(frozen=True)
class Row:
    """One plan."""

    layout: Layout
    micro_batch: int = 0
    """Sequences of a device in one forward pass."""
    checkpointed: bool = False
    memory: Memory | None = None
    time: StepTime | None = None
    problem: str = ""
    """Why there is no such plan."""


@dataclass(frozen=True)
class Plan:
    """All rows, those of a layout from its smallest micro-batch on."""

    training: Training
    sheet: Sheet
    cluster: Cluster
    usable: float
    """Bytes of a device's memory that a plan may take."""
    rows: tuple[Row, ...]
    parameters: int
    flops_per_token: float
    attainable: float

    def fits(self, row: Row) -> bool:
        """Return whether a plan's memory is usable on the device."""
        return row.memory is not None and row.memory.total <= self.usable

    @property
    def tokens(self) -> int:
        """Tokens of an optimizer step."""
        return self.training.batch_size * self.training.model.context_length

    @cached_property
    def best(self) -> Row | None:
        """The fastest plan that fits; of equally fast ones the first, with the least memory."""
        return self.best_of(self.rows)

    def best_of(self, rows: Sequence[Row]) -> Row | None:
        """Return the fastest of some plans that fits; None: none fits."""
        fitting = [(row, row.time.total) for row in rows if row.time and self.fits(row)]
        if not fitting:
            return None
        fastest = min(seconds for _, seconds in fitting)
        return next(row for row, seconds in fitting if seconds <= AS_FAST * fastest)

    def smallest(self) -> Row | None:
        """Return the plan with the least memory."""
        rows = [(row.memory.total, i) for i, row in enumerate(self.rows) if row.memory]
        return self.rows[min(rows)[1]] if rows else None

    def mfu(self, row: Row) -> float:
        """Return the share of the peak of all devices."""
        assert row.time is not None
        peak = self.sheet.peak(self.training.precision) * self.cluster.devices
        return self.flops_per_token * self.tokens / row.time.total / peak


class Planner:
    """Counts a model once for all its plans."""

    def __init__(
        self, training: Training, sheet: Sheet, cluster: Cluster, usable: float, attainable: float
    ) -> None:
        self.training, self.sheet, self.cluster = training, sheet, cluster
        self.usable, self.attainable = usable, attainable
        self._pieces: dict[tuple[int, int, bool], Pieces] = {}
        self._counts: dict[int, tuple[Work, int, OptimizerBytes]] = {}

    def plan(self, layouts: Sequence[Layout]) -> Plan:
        """Return the plan with all rows."""
        rows = tuple(row for layout in layouts for row in self._rows(layout))
        work, parameters, _ = self._count(1)
        per_token = 3 * (work.blocks + work.outside) / self.training.model.context_length
        return Plan(
            self.training,
            self.sheet,
            self.cluster,
            self.usable,
            rows,
            parameters,
            per_token,
            self.attainable,
        )

    def _rows(self, layout: Layout) -> Iterator[Row]:
        """Yield the plans of a layout, larger micro-batches until one does not fit."""
        problem = self._problem(layout)
        if problem:
            yield Row(layout, problem=problem)
            return
        own = self.training.batch_size // layout.data
        given = self.training.micro_batch_size
        for checkpointed in (False, True)[self.training.checkpointed :]:
            for sequences in [given] if given else _divisors(own):
                row = self._row(layout, sequences, own // sequences, checkpointed)
                yield row
                assert row.memory is not None
                if row.memory.total > self.usable:
                    break

    def _problem(self, layout: Layout) -> str:
        training = self.training
        if training.batch_size % layout.data:
            what = f"{layout.data} {'devices' if layout.tensor == 1 else 'groups'}"
            return f"trainer.batch_size={training.batch_size} is not divisible by {what}"
        own = training.batch_size // layout.data
        if training.micro_batch_size and own % training.micro_batch_size:
            return (
                f"trainer.micro_batch_size={training.micro_batch_size} does not divide the {own} "
                "sequences of a device"
            )
        return tensor_problem(training.model, layout.tensor)

    def _row(self, layout: Layout, sequences: int, count: int, checkpointed: bool) -> Row:
        training = self.training
        cast = layout.sharded and layout.gathered < FLOAT32
        pieces = self._traced(sequences, layout.tensor, cast)
        work, _, optimizer = self._count(layout.tensor)
        # Updates of whole matrices gather those that tensor parallelism divides.
        optimizer = replace(optimizer, whole=self._count(1)[-1].whole)
        state = State(optimizer, count > 1, checkpointed)
        speed = Speed(self.sheet.peak(training.precision) * self.attainable, self.sheet.bandwidth)
        element = AUTOCAST.get(training.precision, torch.float32).itemsize
        length = training.model.context_length
        batch = MicroBatch(sequences, count, checkpointed, element, length)
        return Row(
            layout,
            sequences,
            checkpointed,
            peak_memory(layout, pieces, state),
            step_time(layout, pieces, work, speed, self.cluster, batch),
        )

    def _traced(self, sequences: int, tensor: int, cast: bool) -> Pieces:
        key = sequences, tensor, cast
        if key not in self._pieces:
            training = self.training
            self._pieces[key] = trace(
                local_model(training.model, tensor),
                training.vocab_size,
                sequences,
                autocast=AUTOCAST.get(training.precision),
                in_blocks=torch.bfloat16 if cast else torch.float32,
                chunk_tokens=training.chunk_tokens,
            )
        return self._pieces[key]

    def _count(self, tensor: int) -> tuple[Work, int, OptimizerBytes]:
        """Return FLOPs and parameters of a device's part, and the optimizer's bytes."""
        if tensor not in self._counts:
            training = self.training
            config = local_model(training.model, tensor)
            model = build(config, training.vocab_size, device="meta")
            parts = flops_by_part(model, config.context_length)
            outside = parts["head"]
            work = Work(sum(parts.values()) - outside, outside)
            parameters = sum(p.numel() for p in model.parameters())
            self._counts[tensor] = work, parameters, optimizer_bytes(training.optimizer, model)
        return self._counts[tensor]


def with_batch(training: Training, devices: int) -> Training:
    """Return the training with a batch of which each of more devices has a part."""
    return replace(training, batch_size=-(-training.batch_size // devices) * devices)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
