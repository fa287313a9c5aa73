"""Prompts from conversations, by a Jinja template as Hugging Face's tokenizers have."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError

from lmlab.alignment.templates import PLAIN, Template, TemplateRefusal
from lmlab.alignment.templates import Message as Turn
from lmlab.errors import UserError
from lmlab.serving.errors import ApiError
from lmlab.serving.protocol import Message


class ChatTemplate:
    """Turns messages into a prompt.

    `stop` is what the template puts after a reply: a special token, or the beginning of the user's
    next message.
    """

    def __init__(self, source: str = PLAIN, special_tokens: Sequence[str] = ()) -> None:
        self._template = Template(source)
        stop = self._template.stop(special_tokens)
        self.stop = () if stop is None else (stop,)

    @classmethod
    def of_run(cls, source: str | None, special_tokens: Sequence[str], run: Path) -> "ChatTemplate":
        """Return the template that a run has, or else PLAIN; raises UserError when it is none."""
        try:
            return cls(source or PLAIN, special_tokens)
        except TemplateError as error:
            raise UserError(
                f"{run}: its chat template cannot be read ({error}); serve it with "
                "--chat-template FILE"
            ) from None

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
