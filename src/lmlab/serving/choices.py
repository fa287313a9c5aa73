"""The texts of a response while they are generated, and their tokens at their places."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmlab.serving.models import Prompt, ServedModel
from lmlab.serving.worker import Scored, Update


@dataclass(frozen=True)
class Placed:
    """A token and the offset of its first character in the text of a choice."""

    token: Scored
    offset: int


@dataclass
class Part:
    """Text of a choice, with the tokens that it shows."""

    text: str = ""
    tokens: list[Placed] = field(default_factory=list)


class Choice:
    """One choice of a response.

    A token is given out with the first character that it contributes to: those of a stop string
    that is cut off never are.
    """

    def __init__(self, model: ServedModel, index: int, prompt: Prompt) -> None:
        self.model, self.index, self.prompt = model, index, prompt
        self.whole = Part()
        self.finish_reason: str | None = None
        self.generated = 0
        """Tokens."""
        self._restart()

    def _restart(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._read = len(self.whole.text)
        self._held: list[Placed] = []

    def echo(self, scored: Sequence[Scored]) -> Part:
        """Begin the choice with its prompt."""
        part = self._add(self.prompt.text, scored)
        part.tokens += self._held
        self.whole.tokens += self._held
        self._restart()
        return part

    def add(self, update: Update) -> Part:
        """Return what an update adds."""
        self.generated += len(update.tokens)
        self.finish_reason = update.finish_reason
        return self._add(update.text, update.tokens)

    def _add(self, text: str, tokens: Sequence[Scored]) -> Part:
        for token in tokens:
            self._held.append(Placed(token, self._read))
            self._read += len(self._decoder.decode(self.model.vocabulary[token.id]))
        self.whole.text += text
        ready = sum(placed.offset < len(self.whole.text) for placed in self._held)
        part = Part(text, self._held[:ready])
        self._held = self._held[ready:]
        self.whole.tokens += part.tokens
        return part


def completion_logprobs(model: ServedModel, tokens: Sequence[Placed]) -> dict[str, Any]:
    """Return the log-probabilities as `/v1/completions` has them, and the bytes of each token."""
    return {
        "tokens": [model.token_text(p.token.id) for p in tokens],
        "token_logprobs": [p.token.logprob for p in tokens],
        "top_logprobs": [
            None
            if p.token.logprob is None
            else {model.token_text(i): logprob for i, logprob in p.token.alternatives}
            for p in tokens
        ],
        "text_offset": [p.offset for p in tokens],
        "bytes": [list(model.vocabulary[p.token.id]) for p in tokens],
    }


def chat_logprobs(model: ServedModel, tokens: Sequence[Placed]) -> dict[str, Any]:
    """Return the log-probabilities as `/v1/chat/completions` has them."""

    def one(token: int, logprob: float | None) -> dict[str, Any]:
        data = list(model.vocabulary[token])
        return {"token": model.token_text(token), "logprob": logprob, "bytes": data}

    return {
        "content": [
            one(p.token.id, p.token.logprob)
            | {"top_logprobs": [one(*pair) for pair in p.token.alternatives]}
            for p in tokens
        ],
        "refusal": None,
    }
