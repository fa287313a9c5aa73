"""The models that are served: names, facts, prompts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lmlab.generation.engine import Engine
from lmlab.generation.weights import Dtype
from lmlab.layout import checkpoint_of
from lmlab.loading import TrainedRun, load
from lmlab.serving.chat import ChatTemplate
from lmlab.serving.errors import ApiError
from lmlab.serving.worker import Worker


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and as tokens."""

    text: str
    """What the tokens say: in Unicode's form NFC, where the tokenizer brings text to it."""
    ids: list[int]


class ServedModel:
    """A trained run with its engine."""

    def __init__(
        self,
        run: TrainedRun,
        name: str,
        *,
        dtype: Dtype = "fp32",
        max_batch: int = 16,
        max_queue: int = 64,
        created: int = 0,
        template: Path | None = None,
    ) -> None:
        self.run, self.name, self.dtype, self.created = run, name, dtype, created
        self.tokenizer = run.tokenizer
        self.context_length = run.model.context_length
        engine = Engine(run.model, run.tokenizer, max_batch=max_batch, dtype=dtype)
        special = list(run.tokenizer.special_tokens)
        self.chat = (
            ChatTemplate.of_run(run.tokenizer.chat_template, special, run.directory)
            if template is None
            else ChatTemplate.read(template, special)
        )
        self.can_be_empty = engine.end is not None
        self.worker = Worker(engine, max_queue)

    @cached_property
    def vocabulary(self) -> dict[int, bytes]:
        """Bytes of each token."""
        return self.tokenizer.vocab

    @cached_property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.run.model.parameters())

    @property
    def fingerprint(self) -> str:
        """What decides the text beside the request."""
        return f"step_{self.run.step}-{self.dtype}"

    def facts(self) -> dict[str, Any]:
        """Return the model object of `/v1/models`; `lmlab` holds what OpenAI's does not."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "lmlab",
            "max_model_len": self.context_length,
            "lmlab": {
                "step": self.run.step,
                "parameters": self.parameters,
                "vocab_size": self.tokenizer.vocab_size,
                "dtype": self.dtype,
                "prompt": self.run.config.sample_prompt(),
            },
        }

    def token_text(self, token: int) -> str:
        """Return a token as text; one that is not UTF-8 by itself as `bytes:` and hex."""
        data = self.vocabulary[token]
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def prompts(self, given: str | Sequence[Any], param: str = "prompt") -> list[Prompt]:
        """Return the prompts of a request; raises ApiError for tokens or lengths out of range."""
        if isinstance(given, str):
            items: list[Any] = [given]
        elif given and isinstance(given[0], int):
            items = [given]
        else:
            items = list(given)
        if not items:
            raise ApiError(400, f"'{param}' is an empty list.", param=param, code="invalid_value")
        return [self._prompt(item, param) for item in items]

    def _prompt(self, item: str | list[int], param: str) -> Prompt:
        if isinstance(item, str):
            item = self.tokenizer.encode(item)
        else:
            outside = [i for i in item if i not in self.vocabulary]
            if outside:
                raise ApiError(
                    400,
                    f"Token {outside[0]} is not in the vocabulary of {self.tokenizer.vocab_size}.",
                    param=param,
                    code="invalid_value",
                )
        prompt = Prompt(self.tokenizer.decode(item), item)
        if len(prompt.ids) >= self.context_length:
            raise ApiError(
                400,
                f"This model's maximum context length is {self.context_length} tokens, and the "
                f"prompt has {len(prompt.ids)}. Shorten it: one token must be left for the text.",
                param=param,
                code="context_length_exceeded",
            )
        if not prompt.ids and not self.can_be_empty:
            raise ApiError(
                400,
                "The prompt is empty, and the tokenizer has no <|endoftext|> to begin with.",
                param=param,
                code="invalid_value",
            )
        return prompt

    def room(self, prompt: Prompt) -> int:
        """Return how many tokens fit into the context after the prompt."""
        return self.context_length - max(1, len(prompt.ids))


def load_models(
    paths: Sequence[Path],
    *,
    device: str,
    dtype: Dtype,
    max_batch: int,
    max_queue: int,
    template: Path | None,
) -> list[ServedModel]:
    """Load runs at their newest or the named checkpoints; raises UserError as `lmlab.load`."""
    runs = [load(path, device) for path in paths]
    return [
        ServedModel(
            run,
            name,
            dtype=dtype,
            max_batch=max_batch,
            max_queue=max_queue,
            created=int(checkpoint_of(path.expanduser()).stat().st_mtime),
            template=template,
        )
        for path, run, name in zip(paths, runs, model_names(runs), strict=True)
    ]


def model_names(runs: Sequence[TrainedRun]) -> list[str]:
    """Return the shortest distinct names: `demo`, else `demo@1200`, else with the directory."""
    for write in (
        lambda run: run.config.name,
        lambda run: f"{run.config.name}@{run.step}",
        lambda run: f"{run.config.name}/{run.directory.name}@{run.step}",
    ):
        names = [write(run) for run in runs]
        if len(set(names)) == len(names):
            return names
    count: Counter[str] = Counter()
    for i, name in enumerate(names):
        count[name] += 1
        names[i] = name if count[name] == 1 else f"{name}#{count[name]}"
    return names
