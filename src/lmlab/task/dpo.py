"""Preferences: DPO and IPO."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmlab.accounting.rows import RowFlops
from lmlab.alignment.batches import PreferencePairs, Preferences, ShuffledSource, shares
from lmlab.alignment.examples import Converter, Example
from lmlab.alignment.objectives import PreferenceObjective
from lmlab.alignment.rows import Row
from lmlab.alignment.sequences import TokenSequence
from lmlab.errors import ConfigError, UserError
from lmlab.files import atomic_write
from lmlab.layout import CHECKPOINTS, checkpoints_in
from lmlab.model import Transformer
from lmlab.runs.run import Run
from lmlab.task.config import DPOConfig
from lmlab.task.dropout import refuse_dropout
from lmlab.task.tuning import Tuning
from lmlab.training.batch import to_device
from lmlab.training.runtime import Runtime
from lmlab.training.state import Metrics

REFERENCE = "reference_log_probs.npy"
"""In the run directory: log-probabilities of all pairs under the reference, training ones first."""
Pair = tuple[TokenSequence, TokenSequence]


@dataclass
class Reference:
    """Log-probabilities under the model that a run starts from, computed before its first step."""

    objective: nn.Module
    """The wrapped one."""
    run: Run
    runtime: Runtime
    pairs: PreferencePairs
    """All pairs, without reference."""
    batch_size: int

    def __call__(self) -> Float[Tensor, "pairs 2"]:
        """Return them, from the run directory if they are there; all processes must call it.

        Raises UserError when they are gone and the run has trained since.
        """
        path = self.run.directory / REFERENCE
        distributed = self.runtime.distributed
        kept = distributed.from_main(lambda: self._kept(path))
        if kept is not None:
            return torch.from_numpy(kept)
        found = self._computed()

        def write() -> None:
            with atomic_write(path, "wb") as file:
                np.save(file, found.numpy())

        distributed.from_main(write)
        return found

    def flops(self, forward: RowFlops) -> float:
        """Return the FLOPs that computing them takes; all processes must call it."""
        distributed, own = self.runtime.distributed, 0.0
        for numbers, _ in shares(len(self.pairs.pairs), self.batch_size, distributed):
            batch = self.pairs(numbers)
            sequences = batch.input_ids.flatten(0, 1)
            own += forward(len(sequences), sequences.shape[1], batch.labels_learnt)
        return distributed.sum(own)[0]

    def _kept(self, path: Path) -> Any:
        if path.exists():
            return np.load(path)
        if checkpoints_in(path.parent / CHECKPOINTS):
            raise UserError(
                f"{path} is missing, and the model has been trained since it was written; start a "
                "new run with init_from=RUN"
            )
        return None

    @torch.no_grad()
    def _computed(self) -> Float[Tensor, "pairs 2"]:
        distributed, count = self.runtime.distributed, len(self.pairs.pairs)
        own: list[tuple[int, list[float]]] = []
        self.objective.eval()
        for numbers, counts in shares(count, self.batch_size, distributed):
            with self.runtime.autocast():
                batch = to_device(self.pairs(numbers), self.runtime.device)
                _, terms = self.objective(*batch)
            if counts:
                own += zip(numbers, terms["log_probs"].float().tolist(), strict=True)
        self.objective.train()
        # Processes that share one model have the same pairs.
        found = {pair: values for part in distributed.gather(own) for pair, values in part}
        return torch.tensor([found[pair] for pair in range(count)])


class DPO(Tuning[Pair]):
    """Learning which of two responses is better, judged on held-out pairs."""

    reference: Reference

    @property
    def settings(self) -> DPOConfig:
        """The task's own configuration."""
        assert isinstance(self.config.task, DPOConfig)
        return self.config.task

    def convert(self, converter: Converter, row: Row) -> tuple[Example, ...]:
        """Return the two responses of a row, the better one first."""
        pair = converter.pair(row)
        return pair.chosen, pair.rejected

    def item(self, sequences: Sequence[TokenSequence]) -> Pair | None:
        """Return their tokens; None for equal ones, of which there is nothing to learn."""
        chosen, rejected = sequences
        return None if np.array_equal(chosen.ids, rejected.ids) else (chosen, rejected)

    def prepare(self, say: Callable[[str], None]) -> None:
        """Read the pairs; raises ConfigError without a run to start from, or with dropout."""
        if self.config.init_from is None:
            raise ConfigError(
                "init_from", "task=dpo needs init_from=RUN: the reference is its model"
            )
        refuse_dropout(self.config)
        super().prepare(say)

    def build_objective(self, model: Transformer) -> PreferenceObjective:
        """Return the configured loss."""
        settings = self.settings
        return PreferenceObjective(model, settings.loss, settings.beta, self.chunk_tokens())

    def build_source(self) -> ShuffledSource:
        """Return the training pairs, in a new order for each pass."""

        def collate(numbers: Sequence[int], among: Sequence[int]) -> Preferences:
            return self.pairs_of(self.train, slice(None, len(self.train)))(numbers, among)

        return self.shuffled(collate, len(self.train))

    def pairs_of(self, pairs: Sequence[Pair], part: slice) -> PreferencePairs:
        """Return pairs with their part of the reference's log-probabilities."""
        if self._log_probs is None:
            self._log_probs = self.reference()
        return PreferencePairs(pairs, self.config.model.context_length, self._log_probs[part])

    _log_probs: Float[Tensor, "pairs 2"] | None = None

    def build_evaluation(
        self, model: Transformer, objective: nn.Module, run: Run
    ) -> Callable[[int], Metrics | None]:
        """Return loss, accuracy and margin of held-out pairs."""
        every = PreferencePairs(
            [*self.train, *self.held_out], self.config.model.context_length, None
        )
        self.reference = Reference(objective, run, self.runtime, every, self.evaluation_batch)

        def evaluate(step: int) -> Metrics | None:
            pairs = self.pairs_of(self.held_out, slice(len(self.train), None))
            found = self.held_out_terms(objective, run, pairs, len(self.held_out))
            if found is None:
                return None
            sums: dict[str, float] = {}
            for _, terms, counts in found:
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value * counts
            totals = self.runtime.distributed.sum(*sums.values())
            return {
                f"val/{name}": total / len(self.held_out)
                for name, total in zip(sums, totals, strict=True)
            }

        return evaluate

    def other_flops(self) -> float:
        """Return the FLOPs of the reference's log-probabilities; all processes must call it."""
        return self.reference.flops(self.row_flops())

    def summary(self, result: dict[str, Any], directory: Path) -> list[str]:
        """Return loss and accuracy."""
        return [
            f"  validation loss   {result['val_loss']:.4f} nats per pair",
            f"  accuracy          {result['val_accuracy']:.3f} of held-out pairs",
        ]
