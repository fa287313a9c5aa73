"""Prompts from conversations, by a Jinja template as Hugging Face's tokenizers have."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError

from lmlab.alignment.templates import PLAIN, Template, TemplateRefusal
from lmlab.alignment.templates import Message as Turn
from lmlab.errors import UserError
from lmlab.serving.errors import ApiError
from lmlab.serving.protocol import Message

MARK = "\N{OBJECT REPLACEMENT CHARACTER}"


class ChatTemplate:
    """Turns messages into a prompt.

    `stop` is what the template puts after a reply: a special token, or the beginning of the user's
    next message.
    """

    def __init__(self, source: str = PLAIN, special_tokens: Sequence[str] = ()) -> None:
        self._template = Template(source)
        self.stop = self._stop(special_tokens)

    @classmethod
    def read(cls, path: Path, special_tokens: Sequence[str] = ()) -> "ChatTemplate":
        """Return the template in a file; raises UserError when it is not one."""
        try:
            return cls(path.read_text(encoding="utf-8"), special_tokens)
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8; give a Jinja template") from None
        except TemplateError as error:
            raise UserError(f"{path} is not a Jinja template: {error}") from None

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the text that the model continues; raises ApiError when the template refuses."""
        turns = [Turn(message.role, message.text) for message in messages]
        try:
            return self._template.render(turns, add_generation_prompt=True)
        except TemplateRefusal as error:
            raise ApiError(
                400, f"The chat template refuses the messages: {error}", param="messages"
            ) from None

    def _stop(self, special_tokens: Sequence[str]) -> tuple[str, ...]:
        turns = [Turn(role, MARK) for role in ("user", "assistant", "user")]
        try:
            text = self._template.render(turns, add_generation_prompt=False)
        except TemplateRefusal:  # a template with rules of its own about conversations
            return ()
        parts = text.split(MARK)
        if len(parts) != len(turns) + 1:
            return ()
        after = parts[2]
        found = [(after.find(s), s) for s in special_tokens if s in after]
        stop = min(found)[1] if found else after.rstrip()
        return (stop,) if stop.strip() else ()
