"""Pretraining: predict the next token of a corpus."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lmlab.data import Prepared, prepare, require_context
from lmlab.data.batches import Batches, validation_starts
from lmlab.model import Transformer
from lmlab.runs.run import Run
from lmlab.task.base import Task
from lmlab.task.config import PretrainConfig
from lmlab.task.samples import SampleLogger
from lmlab.task.summary import first_and_last_sample
from lmlab.tokenizer import Tokenizer
from lmlab.training.chunking import fastest_chunk
from lmlab.training.evaluate import Evaluator
from lmlab.training.objective import NextToken
from lmlab.training.state import Metrics


class Pretrain(Task):
    """Next-token prediction on random windows of a corpus, judged on its held-out split."""

    prepared: Prepared

    @property
    def settings(self) -> PretrainConfig:
        """The task's own configuration."""
        settings = self.config.task
        assert isinstance(settings, PretrainConfig)
        return settings

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the corpus."""
        return self.prepared.tokenizer

    def prepare(self, say: Callable[[str], None]) -> None:
        """Prepare the corpus, or find it in the cache."""
        main = self.runtime.distributed.is_main_process
        self.prepared = prepare(self.config.data, self.config.tokenizer, progress=main)
        if self.prepared.reused:
            say(f"reusing the prepared data in {self.prepared.directory}")
        require_context(self.prepared, self.config.model.context_length)

    def data_record(self) -> dict[str, Any]:
        """Return sizes and hashes of the corpus."""
        return asdict(self.prepared.meta)

    def facts(self) -> dict[str, Any]:
        """Return what xz needs for the held-out split."""
        return {"xz_bits_per_byte": self.prepared.meta.xz_bits_per_byte}

    def chunk_tokens(self) -> int | None:
        """Return the configured number, or the fastest one."""
        configured = self.settings.objective.chunk_tokens
        return fastest_chunk(self.runtime.device) if configured == "auto" else configured

    def build_objective(self, model: Transformer) -> NextToken:
        """Return the cross-entropy of the next token."""
        return NextToken(
            model,
            z_loss=self.settings.objective.z_loss,
            label_smoothing=self.settings.objective.label_smoothing,
            chunk_tokens=self.chunk_tokens(),
        )

    def build_source(self) -> Batches:
        """Return random windows of the training split."""
        distributed = self.runtime.distributed
        return Batches(
            self.prepared.train,
            self.config.trainer.batch_size,
            self.config.model.context_length,
            self.runtime.seed,
            rank=distributed.data_rank,
            processes=distributed.data_size,
        )

    def build_evaluation(
        self, model: Transformer, objective: nn.Module, run: Run
    ) -> Callable[[int], Metrics | None]:
        """Return the loss on the held-out split, which also writes a sample."""
        trainer, context_length = self.config.trainer, self.config.model.context_length
        held_out = self.prepared.val
        lengths = np.zeros(model.vocab_size, dtype=np.int64)  # padding rows stand for no bytes
        lengths[: self.tokenizer.vocab_size] = self.tokenizer.byte_lengths()
        evaluator = Evaluator(
            held_out,
            validation_starts(held_out, context_length, trainer.eval_windows),
            context_length,
            lengths,
            trainer.micro_batch_size or trainer.batch_size,
            self.runtime,
        )
        samples = SampleLogger(self.settings.sample, model, self.tokenizer, run, self.runtime)

        def evaluate(step: int) -> Metrics | None:
            metrics = evaluator(objective, lambda: run.stop_signal is not None)
            if metrics is None or not math.isfinite(metrics["val/loss"]):
                return metrics  # a model that has diverged has no tokens to draw
            return metrics if samples(step) else None

        return evaluate

    def summary(self, result: dict[str, Any], directory: Path) -> list[str]:
        """Return losses, and the first and the last sample."""
        bits, xz = result["val_bits_per_byte"], result["xz_bits_per_byte"]
        return [
            f"  validation loss   {result['val_loss']:.4f} nats per token",
            f"  bits per byte     {bits:.3f} (xz needs {xz:.3f} for the same files)",
            *first_and_last_sample(directory),
        ]
