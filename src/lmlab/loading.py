"""A trained model for a notebook: `lmlab.load(PATH)`."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.config import RunConfig, load_yaml
from lmlab.errors import UserError
from lmlab.layout import CONFIG, TOKENIZER, checkpoint_of, run_of
from lmlab.model import Transformer, build
from lmlab.tokenizer import Tokenizer
from lmlab.training.checkpoint import read_checkpoint
from lmlab.training.device import resolve_device

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

    def _nats(self, text: str) -> tuple[float, int]:
        ids = torch.tensor(self.encode(text)[1:])
        if not len(ids):
            raise UserError("an empty text has no loss; give some text")
        logits = self.logits(text)[:-1].float().cpu()
        return torch.nn.functional.cross_entropy(logits, ids, reduction="sum").item(), len(ids)


def load(path: str | Path, device: str = "cpu") -> TrainedRun:
    """Load a run directory at its newest checkpoint, or one of its checkpoints.

    `device` is cpu, cuda, mps or auto. Raises UserError when the run has no checkpoint, or keeps no
    tokenizer.
    """
    path = Path(path).expanduser()
    directory = run_of(path)
    config = load_yaml(directory / CONFIG)
    checkpoint = checkpoint_of(path)
    folder = directory / TOKENIZER
    if not folder.is_dir():
        raise UserError(
            f"{directory} has no {TOKENIZER}/, which version 0.1 did not keep; "
            f"python train.py resume={directory} adds it"
        )
    tokenizer = Tokenizer.load(folder)
    values = read_checkpoint(checkpoint)
    model = build(config.model, tokenizer.vocab_size)
    model.load_state_dict(values["model"])
    model = model.to(resolve_device(device)).eval()
    return TrainedRun(model, tokenizer, config, values["step"], directory)
