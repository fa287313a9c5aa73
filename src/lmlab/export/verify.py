"""Comparison of a model with what another library computes from the exported files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmlab.errors import UserError
from lmlab.export.extras import quiet_transformers
from lmlab.model import Transformer
from lmlab.tokenizer import Tokenizer

TOLERANCE = 1e-5
"""Largest difference of logits in float32, as a share of the largest logit or of 1."""
LONGEST = 256
"""Tokens of the sequence that is compared, if the context has as many."""
SAMPLE = (
    "Once upon a time, there was a little dog named Spot. It's 12:30 - he'll run, won't he?\n"
    "    def f(x):\n\treturn x**2 + 3.14159  # ünïcödé: Ελλάδα, 日本語, привет, 🙂👩‍👩‍👧\n\n"
    "I'VE 1234567 things;   three   spaces,\r\nthe end.  \n "
)


@dataclass(frozen=True)
class Agreement:
    """How well two models agree on the same tokens."""

    difference: float
    """Largest absolute difference of the logits."""
    scale: float
    """Largest absolute logit."""
    tokens: int

    @property
    def relative(self) -> float:
        """The difference as a share of the largest logit, or of 1 if that is smaller."""
        return self.difference / max(self.scale, 1.0)


def sample_ids(model: Transformer, vocab_size: int) -> Int[Tensor, "1 time"]:
    """Return random tokens, as many as the context has, up to LONGEST."""
    generator = torch.Generator().manual_seed(0)
    length = min(model.context_length, LONGEST)
    return torch.randint(vocab_size, (1, length), generator=generator)


def compare(
    ours: Float[Tensor, "..."], theirs: Float[Tensor, "..."], limit: float, library: str
) -> Agreement:
    """Return how well logits agree; raises UserError beyond the limit, or for NaN."""
    difference = float((ours - theirs).abs().max())
    agreement = Agreement(difference, float(ours.abs().max()), ours.shape[-2])
    if not agreement.relative <= limit:  # NaN too
        raise UserError(
            f"the logits of {library} differ by {agreement.difference:.2g}, which is "
            f"{agreement.relative:.2g} of the largest; the limit is {limit:g}; nothing was written"
        )
    return agreement


@dataclass(frozen=True)
class Logits:
    """What a model computes, without the model, so that another one fits into memory."""

    ids: Int[Tensor, "1 time"]
    values: Float[Tensor, "1 time vocab"]

    @classmethod
    @torch.no_grad()
    def of(cls, model: Transformer, vocab_size: int) -> Self:
        """Compute the logits of the sample."""
        ids = sample_ids(model, vocab_size)
        return cls(ids, model(ids.to(model.lm_head.weight.device)).float().cpu())


@torch.no_grad()
def check_logits(ours: Logits, folder: Path) -> Agreement:
    """Load a folder by transformers in float32, and compare its logits with ours.

    Raises UserError when transformers does not load all weights, or the logits differ by more than
    TOLERANCE.
    """
    with quiet_transformers() as transformers:
        theirs, loaded = _explained(
            folder,
            lambda: transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="eager",
                local_files_only=True,
                output_loading_info=True,
            ),
        )
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if names := sorted(map(str, loaded.get(kind, ()))):
                raise UserError(f"{folder}: transformers finds {kind.replace('_', ' ')}: {names}")
        logits = theirs.eval()(ours.ids, use_cache=False).logits
    return compare(ours.values, logits.float(), TOLERANCE, "transformers")


def check_ids(
    tokenizer: Tokenizer, folder: Path, renamed: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Load a folder's tokenizer by transformers, and compare ids and text.

    `renamed` are special tokens with another name here. Raises UserError for the first text that it
    encodes or decodes in another way.
    """
    theirs = their_tokenizer(folder)
    names = {here: there for there, here in renamed.items()}
    for text, other in [(SAMPLE, SAMPLE)] + [
        (f"{name}{SAMPLE[:20]}", f"{names.get(name, name)}{SAMPLE[:20]}")
        for name in tokenizer.special_tokens
    ]:
        with quiet_transformers():  # which warns of texts longer than the context
            own, found = tokenizer.encode(text), theirs.encode(other, add_special_tokens=False)
            decoded = theirs.decode(own)
        if own != found:
            raise UserError(different_tokens(tokenizer, own, found, "transformers"))
        if decoded != other or tokenizer.decode(own) != text:
            raise UserError(f"transformers decodes {text!r} in another way")


def their_tokenizer(folder: Path) -> Any:
    """Return a folder's tokenizer by transformers; raises UserError when it cannot be loaded."""
    with quiet_transformers() as transformers:
        return _explained(
            folder,
            lambda: transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True),
        )


def different_tokens(
    tokenizer: Tokenizer, ours: Sequence[int], theirs: Sequence[int], library: str
) -> str:
    """Return where tokens of a library differ from ours."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    return (
        f"{library} reads {tokenizer.decode(ours[at : at + 3])!r} as the tokens "
        f"{list(theirs[at : at + 3])}, not {list(ours[at : at + 3])}; nothing was written"
    )


def _explained(folder: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # a library's errors are of many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"transformers cannot load {folder}: {lines[0]}") from error
