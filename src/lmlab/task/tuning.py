"""What the tasks that learn from files of examples share: rows, template, tokenizer."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from lmlab.accounting.fit import LeastRows
from lmlab.alignment.batches import Preferences, ShuffledSource, Supervised, shares
from lmlab.alignment.examples import Converter, Example, is_conversation
from lmlab.alignment.rows import Row, read_rows, split_rows, without_held_out
from lmlab.alignment.sequences import TokenSequence, fitted, padded_length, tokenized
from lmlab.alignment.templates import END, find_template
from lmlab.errors import DataError
from lmlab.runs.run import Run
from lmlab.task.base import Task
from lmlab.task.config import DPOConfig, SFTConfig
from lmlab.task.given_tokenizer import given_tokenizer
from lmlab.tokenizer import Tokenizer
from lmlab.training.batch import Batch, to_device
from lmlab.training.chunking import fastest_chunk

Item = TypeVar("Item", bound=TokenSequence | tuple[TokenSequence, TokenSequence])
Held = TypeVar("Held", bound=Batch)
Collate = Callable[[Sequence[int], Sequence[int]], Batch]
KEY, VALIDATION = "task.examples.paths", "task.examples.validation_paths"
PROMPT = "task.examples.prompt_template"


class Tuning(Task, Generic[Item]):
    """Training on examples of files, a share of which is held out."""

    train: list[Item]
    held_out: list[Item]
    _tokenizer: Tokenizer

    @property
    @abstractmethod
    def settings(self) -> SFTConfig | DPOConfig:
        """The task's own configuration."""

    @abstractmethod
    def convert(self, converter: Converter, row: Row) -> tuple[Example, ...]:
        """Return the texts of a row; raises DataError."""

    @abstractmethod
    def item(self, sequences: Sequence[TokenSequence]) -> Item | None:
        """Return what is trained on, of the tokens of those texts; None: nothing."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model, with the template and its special tokens."""
        return self._tokenizer

    def prepare(self, say: Callable[[str], None]) -> None:
        """Read the examples and tokenise them."""
        tokenizer = given_tokenizer(self.config.tokenizer)
        settings = self.settings.examples
        rows, given = read_rows(KEY, settings.paths, settings.rename), list[Row]()
        if settings.validation_paths is not None:
            given = read_rows(VALIDATION, settings.validation_paths, settings.rename)
        template = find_template(self.settings.template, tokenizer.chat_template)
        conversations = [is_conversation(row) for row in (*rows, *given)]
        if all(conversations) and settings.prompt_template != "{prompt}":
            say(f"{PROMPT} is not read: all examples are conversations")
        if not any(conversations) and self.settings.template is not None:
            say(f"task.template is not read: all examples are text, see {PROMPT}")
        if any(conversations):
            tokenizer = tokenizer.extended(template.special_tokens, template.source)
        self._tokenizer = tokenizer
        ends = END in tokenizer.special_tokens
        converter = Converter(template, settings.prompt_template, ends)
        examples = {row.place: self.convert(converter, row) for row in [*rows, *given]}
        if settings.validation_paths is None:
            prompts = [examples[row.place][0].prompt for row in rows]
            train, held_out = split_rows(rows, settings.validation_fraction, prompts)
        else:
            train, held_out = without_held_out(rows, given), given
            if len(train) < len(rows):
                say(
                    f"{len(rows) - len(train):,} of {len(rows):,} examples are left out: they are "
                    f"also in {VALIDATION}"
                )
        if not train or not held_out:
            raise DataError(
                f"{KEY}: of {len(rows):,} rows none is left to "
                f"{'train on' if not train else 'validate with'} (those with one prompt stay "
                "together); give more rows, another task.examples.validation_fraction, or "
                f"{VALIDATION}"
            )
        self.train = self._items([examples[row.place] for row in train], say)
        self.held_out = self._items([examples[row.place] for row in held_out], say)

    def _items(
        self, examples: Sequence[tuple[Example, ...]], say: Callable[[str], None]
    ) -> list[Item]:
        settings = self.settings.examples
        context_length = self.config.model.context_length
        items: list[Item] = []
        changed = unfit = equal = 0
        for texts in examples:
            sequences = [tokenized(text, self.tokenizer) for text in texts]
            found, count = fitted(
                sequences, [text.place for text in texts], context_length, settings.too_long
            )
            changed += count > 0
            kept = [sequence for sequence in found if sequence is not None]
            if len(kept) < len(texts):
                unfit += 1
            elif (item := self.item(kept)) is None:
                equal += 1
            else:
                items.append(item)
        if changed:
            say(
                f"{changed:,} of {len(examples):,} examples are longer than the context of "
                f"{context_length:,} tokens: {unfit:,} dropped, {changed - unfit:,} truncated"
            )
        if equal:
            say(
                f"{equal:,} of {len(examples):,} pairs are left out: chosen and rejected are equal "
                f"within the context of {context_length:,} tokens"
            )
        if not items:
            raise DataError(
                f"{KEY}: no example fits into model.context_length={context_length}; use a longer "
                "context, or shorter examples"
            )
        return items

    def data_record(self) -> dict[str, Any]:
        """Return counts and hashes of the tokens."""
        return {
            "train_examples": len(self.train),
            "held_out_examples": len(self.held_out),
            "train_hash": self.digest(self.train),
            "held_out_hash": self.digest(self.held_out),
        }

    def digest(self, items: Sequence[Item]) -> str:
        """Return a hash of tokens and what is learnt of them."""
        digest = blake2b(digest_size=16)
        for item in items:
            for sequence in (item,) if isinstance(item, TokenSequence) else item:
                digest.update(np.int64(len(sequence.ids)).tobytes())
                digest.update(sequence.ids.tobytes() + sequence.learned.tobytes())
        return digest.hexdigest()

    def shuffled(self, collate: Collate, count: int) -> ShuffledSource:
        """Return batches of `count` training rows, in a new order for each pass."""
        return ShuffledSource(
            collate,
            count,
            self.config.trainer.batch_size,
            self.runtime.seed,
            self.runtime.distributed,
        )

    @torch.no_grad()
    def held_out_terms(
        self, objective: nn.Module, run: Run, collate: Callable[[list[int]], Held], count: int
    ) -> list[tuple[Held, dict[str, float], bool]] | None:
        """Return each batch of `count` held-out rows, what the objective says of it, and whether
        it counts: the others only keep the processes in step.

        None, in all processes, once the run has a `stop_signal` in one of them.
        """
        distributed, runtime = self.runtime.distributed, self.runtime
        found = []
        objective.eval()
        try:
            for numbers, counts in shares(count, self.evaluation_batch, distributed):
                if distributed.maximum(run.stop_signal is not None) > 0:
                    return None
                batch = collate(numbers)
                with runtime.autocast():
                    _, terms = objective(*to_device(batch, runtime.device))
                found.append((batch, {name: x.item() for name, x in terms.items()}, counts))
        finally:
            objective.train()
        return found

    def chunk_tokens(self) -> int | None:
        """Return the number of tokens that is fastest."""
        return fastest_chunk(self.runtime.device)

    def batch_flops(self) -> Callable[[Batch], float]:
        """Return what counts the FLOPs of training on a batch: the head computes the labels that
        are learnt, all else the padding, too.
        """
        forward = self.row_flops()

        def counted(batch: Batch) -> float:
            assert isinstance(batch, Supervised | Preferences)
            sequences = batch.input_ids.flatten(0, -2)
            return 3 * forward(len(sequences), sequences.shape[-1], batch.labels_learnt)

        return counted

    def least_rows(self, steps: int) -> LeastRows:
        """Return what each row of the largest batch of `steps` steps has at the least."""
        context_length, trainer = self.config.model.context_length, self.config.trainer
        rows = [(item,) if isinstance(item, TokenSequence) else item for item in self.train]
        lengths = sorted(max(sequence.length for sequence in row) for row in rows)
        labels = min(sum(int(sequence.learned[1:].sum()) for sequence in row) for row in rows)
        # Of so many different rows, the longest is at least as long as that of the shortest ones.
        taken = min(len(rows), trainer.batch_size * (1 if trainer.fixed_batch else steps))
        return LeastRows(padded_length(lengths[taken - 1], context_length), labels, len(rows[0]))

    @property
    def evaluation_batch(self) -> int:
        """Return how many rows are evaluated at a time."""
        return self.config.trainer.micro_batch_size or self.config.trainer.batch_size
