"""What a task is: its data, its objective, its evaluation and what it shows."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from lmlab.accounting.fit import LeastRows
from lmlab.accounting.rows import RowFlops
from lmlab.config import RunConfig
from lmlab.model import Transformer, build
from lmlab.model.value_head import without_value_head
from lmlab.runs.run import Run
from lmlab.tokenizer import Tokenizer
from lmlab.training.batch import Batch
from lmlab.training.loop import Source
from lmlab.training.objective import Objective
from lmlab.training.runtime import Runtime
from lmlab.training.state import Criterion, Metrics


class Task(ABC):
    """One task of one run; everything else of a run is shared by all tasks.

    `prepare` is called first, in the main process before the others.
    """

    criterion: ClassVar[Criterion] = Criterion()
    """Which metrics say how good a run is, and whether it diverges."""

    def __init__(self, config: RunConfig, runtime: Runtime) -> None:
        self.config = config
        self.runtime = runtime

    @abstractmethod
    def prepare(self, say: Callable[[str], None]) -> None:
        """Make the data and the tokenizer ready; `say` prints a line for the user."""

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""

    def data_record(self) -> dict[str, Any]:
        """Return what data.json says of the data, as JSON; a resumed run must have the same."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return what environment.json and result.json record beside what all runs do."""
        return {}

    def chunk_tokens(self) -> int | None:
        """Return how many tokens' logits are in memory at a time; None: a whole micro-batch's."""
        return None

    def batch_flops(self) -> Callable[[Batch], float] | None:
        """Return what counts the FLOPs of training on a batch: three forward passes of rows as long
        as those of its first part. None: they are not counted.
        """
        forward = self.row_flops()

        def counted(batch: Batch) -> float:
            assert batch[0] is not None
            return 3 * forward(len(batch[0]), batch[0].shape[-1])

        return counted

    def row_flops(self) -> RowFlops:
        """Return what counts the FLOPs of a forward pass of the model."""
        return RowFlops(self.config.model, self.tokenizer.vocab_size)

    def other_flops(self) -> float:
        """Return the FLOPs that the run needed beside its training steps; all processes call it."""
        return 0.0

    def least_rows(self, steps: int) -> LeastRows:
        """Return what each row of the largest batch of `steps` steps has at the least."""
        length = self.config.model.context_length if self.config.task.fills_context() else 1
        return LeastRows(tokens=length, labels=length)

    def build_model(self) -> Transformer:
        """Return the model on the CPU, initialised."""
        return build(self.config.model, self.tokenizer.vocab_size)

    def adopted(self, weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Return the weights of a run in `init_from` as `model` takes them."""
        return without_value_head(weights)

    @abstractmethod
    def build_objective(self, model: Transformer) -> Objective:
        """Return the model with its loss."""

    @abstractmethod
    def build_source(self) -> Source:
        """Return where this process's batches come from."""

    @abstractmethod
    def build_evaluation(
        self, model: Transformer, objective: nn.Module, run: Run
    ) -> Callable[[int], Metrics | None]:
        """Return what measures the model after a step, and shows what it can do.

        It returns None, in all processes, when the run has a `stop_signal`. `objective` is the
        wrapped and compiled one.
        """

    def summary(self, result: dict[str, Any], directory: Path) -> list[str]:
        """Return lines about the result for the end of a run."""
        name = self.criterion.metric.replace("/", "_")
        return [f"  {name:<17} {result[name]:.4f}"]
