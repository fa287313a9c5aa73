"""A trained model for a notebook: `lmlab.load(PATH)`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack, overload

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.config import RunConfig, load_yaml
from lmlab.errors import ConfigError, UserError
from lmlab.generation.engine import Generation
from lmlab.generation.generate import generate, stream
from lmlab.generation.options import Options, OptionValues
from lmlab.generation.weights import Dtype
from lmlab.layout import CONFIG, TOKENIZER, checkpoint_of, run_of
from lmlab.model import Transformer, build
from lmlab.model.value_head import without_value_head
from lmlab.tokenizer import Tokenizer
from lmlab.training.checkpoint import read_checkpoint
from lmlab.training.config import check_device
from lmlab.training.device import resolve_device
from lmlab.training.resume import load_weights

END_OF_DOCUMENT = "<|endoftext|>"


@dataclass(frozen=True)
class TrainedRun:
    """A run at one of its checkpoints, ready to be used."""

    model: Transformer
    """In evaluation mode."""
    tokenizer: Tokenizer
    config: RunConfig
    step: int
    directory: Path

    def encode(self, text: str) -> list[int]:
        """Return the ids of a document that begins with `text`: the end of the one before first."""
        return [self.tokenizer.special_tokens[END_OF_DOCUMENT], *self.tokenizer.encode(text)]

    @torch.no_grad()
    def logits(self, text: str) -> Float[Tensor, "tokens vocab"]:
        """Return the logits of what follows each token of a document that begins with `text`.

        The first row is what a document begins with, the last one what follows `text`. Rows beyond
        the tokenizer's vocabulary are left out. Raises UserError when `text` is longer than the
        context.
        """
        ids = self.encode(text)
        if len(ids) > self.model.context_length:
            raise UserError(
                f"a text of {len(ids) - 1:,} tokens is longer than the context of "
                f"{self.model.context_length:,} with its beginning; shorten it"
            )
        device = next(self.model.parameters()).device
        return self.model(torch.tensor([ids], device=device))[0, :, : self.tokenizer.vocab_size]

    def loss(self, text: str) -> float:
        """Return the mean cross-entropy in nats per token of a document that begins with `text`.

        Raises UserError when `text` is empty or longer than the context.
        """
        nats, tokens = self._nats(text)
        return nats / tokens

    def bits_per_byte(self, text: str) -> float:
        """Return the cross-entropy in bits per byte of UTF-8, which compares tokenizers."""
        nats, _ = self._nats(text)
        return nats / math.log(2) / len(text.encode())

    @overload
    def generate(
        self, prompts: str, *, dtype: Dtype | None = None, **options: Unpack[OptionValues]
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompts: list[str] | tuple[str, ...],
        *,
        samples: int = 1,
        dtype: Dtype | None = None,
        max_batch: int = 8,
        **options: Unpack[OptionValues],
    ) -> list[Generation]: ...

    def generate(
        self,
        prompts: str | list[str] | tuple[str, ...],
        *,
        samples: int = 1,
        dtype: Dtype | None = None,
        max_batch: int = 8,
        **options: Unpack[OptionValues],
    ) -> Generation | list[Generation]:
        """Return the continuation of a prompt; of a list of prompts, a list of `samples` of each.

        `options` are those of `lmlab.generation.options.Options`: max_new_tokens, min_new_tokens,
        temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, logprobs. Sample i of each
        prompt has the seed `seed + i`. `max_batch` texts are generated at a time. `dtype` fp32,
        bf16 or int8 converts the weights, for this call, to what generates fastest in it. An empty
        prompt begins a document; one longer than the context is cropped from the left. Raises
        UserError for options out of range.
        """
        if isinstance(prompts, str) and samples != 1:
            raise UserError(f"samples={samples} needs a list of prompts: generate([prompt], ...)")
        if samples < 1:
            raise UserError(f"samples must be at least 1, got {samples}")
        found = generate(
            self.model,
            self.tokenizer,
            [prompts] if isinstance(prompts, str) else prompts,
            Options(**options),  # type: ignore[arg-type]
            dtype=dtype,
            max_batch=max_batch,
            samples=samples,
        )
        return found[0] if isinstance(prompts, str) else found

    def stream(
        self, prompt: str, *, dtype: Dtype | None = None, **options: Unpack[OptionValues]
    ) -> Iterator[str]:
        """Yield the continuation of a prompt in pieces of whole characters, as `generate` would."""
        checked = Options(**options)  # type: ignore[arg-type]
        return stream(self.model, self.tokenizer, prompt, checked, dtype=dtype)

    def _nats(self, text: str) -> tuple[float, int]:
        ids = torch.tensor(self.encode(text)[1:])
        if not len(ids):
            raise UserError("an empty text has no loss; give some text")
        logits = self.logits(text)[:-1].float().cpu()
        return torch.nn.functional.cross_entropy(logits, ids, reduction="sum").item(), len(ids)


def load(path: str | Path, device: str = "cpu") -> TrainedRun:
    """Load a run directory at its newest checkpoint, or one of its checkpoints.

    `device` is cpu, cuda, cuda:N, mps or auto. Raises UserError when the run has no checkpoint or
    keeps no tokenizer, and for a device that is not available.
    """
    where = _device(device)
    path = Path(path).expanduser()
    directory = run_of(path)
    if not directory.is_dir():
        checkpoint_of(path)  # which says what is wrong with the path
    config = load_yaml(directory / CONFIG)
    checkpoint = checkpoint_of(path)
    tokenizer = load_tokenizer(directory)
    values = read_checkpoint(checkpoint, optimizer=False)
    model = build(config.model, tokenizer.vocab_size)
    if "model" not in values:
        raise UserError(f"{checkpoint} holds no model; use another checkpoint")
    load_weights(model, without_value_head(values["model"]), str(checkpoint))
    model = model.to(where).eval()
    return TrainedRun(model, tokenizer, config, values["step"], directory)


def load_tokenizer(directory: Path) -> Tokenizer:
    """Return the tokenizer of a run directory; raises UserError when it keeps none."""
    folder = directory / TOKENIZER
    if not folder.is_dir():
        raise UserError(
            f"{directory} has no {TOKENIZER}/, which version 0.1 did not keep; "
            f"python train.py resume={directory} adds it"
        )
    return Tokenizer.load(folder)


def _device(name: str) -> torch.device:
    try:
        return resolve_device(check_device(name))
    except ConfigError as error:
        raise UserError(f"device {error.problem}") from None
    except ValueError as error:
        raise UserError(f"device {error}") from None
