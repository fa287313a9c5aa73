"""The objects of OpenAI's two kinds of responses, whole and as a stream."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from lmlab.serving.choices import Choice, Part, chat_logprobs, completion_logprobs
from lmlab.serving.models import ServedModel

Object = dict[str, Any]


class CompletionFormat:
    """Objects of `/v1/completions`."""

    name = chunk_name = "text_completion"
    prefix = "cmpl-"

    def __init__(self, model: ServedModel, logprobs: bool) -> None:
        self.model, self.logprobs = model, logprobs
        self.id = self.prefix + secrets.token_hex(12)
        self.created = int(time.time())

    def response(self, choices: Sequence[Choice], usage: Object) -> Object:
        """Return the whole response."""
        written = [self.whole(choice) for choice in choices]
        return self._frame(self.name, written) | {"usage": usage}

    def chunk(self, choices: list[Object]) -> Object:
        """Return one event of a stream."""
        return self._frame(self.chunk_name, choices)

    def whole(self, choice: Choice) -> Object:
        """Return a finished choice."""
        return self.delta(choice, choice.whole, choice.finish_reason)

    def opening(self, choice: Choice) -> Object | None:
        """Return what a stream says about a choice before its text; None: nothing."""
        return None

    def delta(self, choice: Choice, part: Part, finish_reason: str | None) -> Object:
        """Return what is new of a choice."""
        return {
            "index": choice.index,
            "text": part.text,
            "logprobs": completion_logprobs(self.model, part.tokens) if self.logprobs else None,
            "finish_reason": finish_reason,
        }

    def _frame(self, name: str, choices: list[Object]) -> Object:
        return {
            "id": self.id,
            "object": name,
            "created": self.created,
            "model": self.model.name,
            "system_fingerprint": self.model.fingerprint,
            "choices": choices,
        }


class ChatFormat(CompletionFormat):
    """Objects of `/v1/chat/completions`."""

    name, chunk_name = "chat.completion", "chat.completion.chunk"
    prefix = "chatcmpl-"

    def whole(self, choice: Choice) -> Object:
        """Return a finished choice."""
        message = {"role": "assistant", "content": choice.whole.text, "refusal": None}
        return self._choice(choice, {"message": message}, choice.whole, choice.finish_reason)

    def opening(self, choice: Choice) -> Object | None:
        """Return the delta that names the role."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._choice(choice, {"delta": delta}, None, None)

    def delta(self, choice: Choice, part: Part, finish_reason: str | None) -> Object:
        """Return what is new of a choice."""
        content = {"content": part.text} if part.text or part.tokens else {}
        return self._choice(choice, {"delta": content}, part, finish_reason)

    def _choice(
        self, choice: Choice, text: Object, part: Part | None, finish_reason: str | None
    ) -> Object:
        told = self.logprobs and part is not None
        return {
            "index": choice.index,
            **text,
            "logprobs": chat_logprobs(self.model, part.tokens) if told and part else None,
            "finish_reason": finish_reason,
        }


def usage(choices: Sequence[Choice], samples: int) -> Object:
    """Return the token counts of a response; a prompt counts once for its samples."""
    read = sum(len(choice.prompt.ids) for choice in choices[::samples])
    written = sum(choice.generated for choice in choices)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }
