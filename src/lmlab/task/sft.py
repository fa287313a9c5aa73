"""Supervised fine-tuning on demonstrations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lmlab.accounting.fit import LeastRows
from lmlab.alignment.batches import Demonstrations, ShuffledSource
from lmlab.alignment.examples import Converter, Example
from lmlab.alignment.objectives import SupervisedObjective
from lmlab.alignment.rows import Row
from lmlab.alignment.sequences import TokenSequence
from lmlab.errors import ConfigError
from lmlab.model import Transformer
from lmlab.model.attention.config import LinearAttentionConfig, of_layer
from lmlab.runs.run import Run
from lmlab.task.config import SFTConfig
from lmlab.task.samples import SampleLogger
from lmlab.task.summary import first_and_last_sample
from lmlab.task.tuning import Tuning
from lmlab.training.state import Metrics


class SFT(Tuning[TokenSequence]):
    """The cross-entropy of responses, judged on held-out examples."""

    @property
    def settings(self) -> SFTConfig:
        """The task's own configuration."""
        assert isinstance(self.config.task, SFTConfig)
        return self.config.task

    def convert(self, converter: Converter, row: Row) -> tuple[Example, ...]:
        """Return the demonstration of a row."""
        return (converter.example(row),)

    def item(self, sequences: Sequence[TokenSequence]) -> TokenSequence:
        """Return its tokens."""
        return sequences[0]

    def prepare(self, say: Callable[[str], None]) -> None:
        """Read the examples; refuse to pack them for attention that cannot tell them apart."""
        model = self.config.model
        layers = [of_layer(model.attention, layer) for layer in range(model.num_layers)]
        if self.settings.packing and any(isinstance(a, LinearAttentionConfig) for a in layers):
            raise ConfigError(
                "task.packing",
                "linear attention carries its state across the examples of a row; use "
                "task.packing=false",
            )
        super().prepare(say)

    def build_objective(self, model: Transformer) -> SupervisedObjective:
        """Return the cross-entropy of what is learnt."""
        return SupervisedObjective(model, self.chunk_tokens())

    def build_source(self) -> ShuffledSource:
        """Return the training examples, in a new order for each pass."""
        settings = self.settings
        demonstrations = Demonstrations(
            self.train,
            self.config.model.context_length,
            packing=settings.packing,
            normalization=settings.normalization,
            constant=settings.constant or 1.0,
        )
        return self.shuffled(demonstrations, len(demonstrations.rows))

    def least_rows(self, steps: int) -> LeastRows:
        """Return what each row of the largest batch of `steps` steps has at the least."""
        least = super().least_rows(steps)
        if self.settings.packing:
            return replace(least, tokens=self.config.model.context_length)
        return least

    def build_evaluation(
        self, model: Transformer, objective: nn.Module, run: Run
    ) -> Callable[[int], Metrics | None]:
        """Return the loss per learnt token of held-out examples, which also writes a sample."""
        rows = Demonstrations(
            self.held_out, self.config.model.context_length, packing=False, normalization="token"
        )
        settings = self.settings.sample
        if settings.prompt is None:
            settings = settings.model_copy(update={"prompt": self._first_prompt()})
        samples = SampleLogger(settings, model, self.tokenizer, run, self.runtime)

        def evaluate(step: int) -> Metrics | None:
            found = self.held_out_terms(objective, run, rows, len(rows.rows))
            if found is None:
                return None
            counted = [(batch, terms) for batch, terms, counts in found if counts]
            nats, count = self.runtime.distributed.sum(
                sum(terms["loss"] for _, terms in counted),
                sum(float(batch.divisor.sum()) for batch, _ in counted),
            )
            loss = nats / count
            # A model that has diverged has no tokens to draw.
            return {"val/loss": loss} if not math.isfinite(loss) or samples(step) else None

        return evaluate

    def _first_prompt(self) -> str:
        """Return what is given before the first learnt token of the first held-out example."""
        first = self.held_out[0]
        return self.tokenizer.decode(first.ids[: int(first.learned.argmax())])

    def summary(self, result: dict[str, Any], directory: Path) -> list[str]:
        """Return the loss, and the first and the last sample."""
        return [
            f"  validation loss   {result['val_loss']:.4f} nats per learnt token",
            *first_and_last_sample(directory),
        ]
